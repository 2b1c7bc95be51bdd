//! What is known about the latency of every ordered pair of nodes.

use std::collections::BTreeMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::node::NodeName;
use crate::pair::{PairState, PairStats};

/// Why a matrix cannot be made or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// Two entries of the node list are the same.
    #[error("failed to make a latency matrix: node {0} is listed twice")]
    DuplicateNode(NodeName),
    /// The matrix has no such node.
    #[error("failed to find node {0} in the latency matrix")]
    UnknownNode(NodeName),
    /// A serialised matrix whose shape does not fit its node list.
    #[error("failed to read a latency matrix of {nodes} nodes: it has {rows} rows and {columns} columns")]
    Shape {
        /// Length of the node list.
        nodes: usize,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct RawMatrix {
    nodes: Vec<NodeName>,
    pairs: Array2<PairState>,
}

/// The state of every ordered pair of a list of nodes. Pairs start [`PairState::Unknown`]; a node
/// to itself is always known and 0.
///
/// ```
/// use latency_matrix::{LatencyMatrix, PairState, PairStats};
///
/// let mut matrix = LatencyMatrix::new(vec!["a".into(), "b".into()])?;
/// matrix.set(&"a".into(), &"b".into(), PairState::Known(PairStats::constant(-0.003)))?;
/// // a negative time is no measurement
/// assert_eq!(matrix.state(&"a".into(), &"b".into()), PairState::Unknown);
/// # Ok::<(), latency_matrix::MatrixError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawMatrix", into = "RawMatrix")]
pub struct LatencyMatrix {
    nodes: Vec<NodeName>,
    index: BTreeMap<NodeName, usize>,
    pairs: Array2<PairState>,
}

impl LatencyMatrix {
    /// A matrix over these nodes, in this order, with nothing known yet.
    ///
    /// # Errors
    /// When a node is listed twice.
    pub fn new(nodes: Vec<NodeName>) -> Result<Self, MatrixError> {
        let size = nodes.len();
        let mut index = BTreeMap::new();
        for (position, node) in nodes.iter().enumerate() {
            if index.insert(node.clone(), position).is_some() {
                return Err(MatrixError::DuplicateNode(node.clone()));
            }
        }
        let mut pairs = Array2::from_elem((size, size), PairState::Unknown);
        pairs.diag_mut().fill(PairState::Known(PairStats::constant(0.0)));
        Ok(Self { nodes, index, pairs })
    }

    /// The nodes, in the order of rows and columns.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The position of a node in rows and columns; none where the matrix does not have it.
    pub fn position(&self, node: impl AsRef<str>) -> Option<usize> {
        self.index.get(node.as_ref()).copied()
    }

    fn known(&self, node: &NodeName) -> Result<usize, MatrixError> {
        self.position(node).ok_or_else(|| MatrixError::UnknownNode(node.clone()))
    }

    /// Sets one ordered pair. Statistics that make no sense become [`PairState::Unknown`]; a node
    /// to itself stays 0.
    ///
    /// # Errors
    /// When one of the nodes is not in the matrix.
    pub fn set(&mut self, from: &NodeName, to: &NodeName, state: PairState) -> Result<(), MatrixError> {
        let pair = (self.known(from)?, self.known(to)?);
        if pair.0 != pair.1 {
            self.pairs[pair] = state.sanitised();
        }
        Ok(())
    }

    /// Sets the pair at these positions of [`LatencyMatrix::nodes`], as [`LatencyMatrix::set`]
    /// does. Nothing happens beyond the matrix.
    pub fn set_at(&mut self, from: usize, to: usize, state: PairState) {
        if let Some(pair) = self.pairs.get_mut((from, to)).filter(|_| from != to) {
            *pair = state.sanitised();
        }
    }

    /// Sets a pair in both directions.
    ///
    /// # Errors
    /// When one of the nodes is not in the matrix.
    pub fn set_symmetric(&mut self, one: &NodeName, other: &NodeName, state: PairState) -> Result<(), MatrixError> {
        self.set(one, other, state)?;
        self.set(other, one, state)
    }

    /// The state of an ordered pair; unknown where a node is not in the matrix.
    #[must_use]
    pub fn state(&self, from: &NodeName, to: &NodeName) -> PairState {
        if from == to {
            return PairState::Known(PairStats::constant(0.0));
        }
        match (self.index.get(from), self.index.get(to)) {
            (Some(row), Some(column)) => self.pairs[(*row, *column)],
            _ => PairState::Unknown,
        }
    }

    /// All states, rows are the sending nodes.
    #[must_use]
    pub fn pairs(&self) -> &Array2<PairState> {
        &self.pairs
    }
}

impl TryFrom<RawMatrix> for LatencyMatrix {
    type Error = MatrixError;

    fn try_from(raw: RawMatrix) -> Result<Self, MatrixError> {
        let mut matrix = Self::new(raw.nodes)?;
        let (rows, columns) = raw.pairs.dim();
        if (rows, columns) != matrix.pairs.dim() {
            return Err(MatrixError::Shape { nodes: matrix.nodes.len(), rows, columns });
        }
        for ((row, column), state) in raw.pairs.indexed_iter() {
            if row != column {
                matrix.pairs[(row, column)] = state.sanitised();
            }
        }
        Ok(matrix)
    }
}

impl From<LatencyMatrix> for RawMatrix {
    fn from(matrix: LatencyMatrix) -> Self {
        Self { nodes: matrix.nodes, pairs: matrix.pairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Freshness;

    fn two() -> LatencyMatrix {
        LatencyMatrix::new(vec!["a".into(), "b".into()]).unwrap()
    }

    #[test]
    fn every_kind_of_nonsense_is_unknown() {
        let good = PairStats::constant(0.02);
        let bad = [
            PairStats { p50: f64::NAN, ..good },
            PairStats { min: -0.001, ..good },
            PairStats { p99: f64::INFINITY, ..good },
            PairStats { p99: 11.0, ..good },
            PairStats { p90: 0.001, ..good },
            PairStats { ewma: f64::NAN, ..good },
            PairStats { jitter: -1.0, ..good },
            PairStats { loss_ratio: 1.5, ..good },
            PairStats { age_seconds: f64::NAN, ..good },
            PairStats { samples: 0, ..good },
        ];
        for stats in bad {
            let mut matrix = two();
            matrix.set(&"a".into(), &"b".into(), PairState::Known(stats)).unwrap();
            assert_eq!(matrix.state(&"a".into(), &"b".into()), PairState::Unknown, "{stats:?}");
            assert_eq!(PairState::judged(stats, Freshness::default()), PairState::Unknown);
        }
    }

    #[test]
    fn age_decides_between_known_stale_and_forgotten() {
        let aged = |age_seconds| PairState::judged(PairStats { age_seconds, ..PairStats::constant(0.02) }, Freshness::default());
        assert!(matches!(aged(29.0), PairState::Known(_)));
        assert!(matches!(aged(31.0), PairState::Stale(_)));
        assert_eq!(aged(3601.0), PairState::Unknown);
    }

    #[test]
    fn a_mean_that_lags_behind_a_longer_route_is_believed() {
        let mut matrix = two();
        let risen = PairStats { ewma: 0.040, ..PairStats::constant(0.050) };
        matrix.set(&"a".into(), &"b".into(), PairState::Known(risen)).unwrap();
        assert_eq!(matrix.state(&"a".into(), &"b".into()), PairState::Known(risen));
    }

    #[test]
    fn positions_are_those_of_rows_and_columns() {
        let matrix = two();
        assert_eq!(
            (matrix.position("b"), matrix.position(NodeName::from("a")), matrix.position("gone")),
            (Some(1), Some(0), None)
        );
    }

    #[test]
    fn a_node_to_itself_cannot_be_spoilt() {
        let mut matrix = two();
        matrix.set(&"a".into(), &"a".into(), PairState::Unreachable).unwrap();
        assert_eq!(matrix.state(&"a".into(), &"a".into()).stats().unwrap().p50, 0.0);
    }

    #[test]
    fn reading_a_matrix_back_judges_it_again() {
        let mut matrix = two();
        matrix.set(&"a".into(), &"b".into(), PairState::Known(PairStats::constant(0.25))).unwrap();
        let text = serde_json::to_string(&matrix).unwrap();
        assert_eq!(serde_json::from_str::<LatencyMatrix>(&text).unwrap(), matrix);
        let spoilt = text.replace("0.25", "-0.25");
        assert_eq!(serde_json::from_str::<LatencyMatrix>(&spoilt).unwrap().state(&"a".into(), &"b".into()), PairState::Unknown);
        assert!(serde_json::from_str::<LatencyMatrix>(&text.replace("\"b\"", "\"a\"")).is_err());
    }
}
