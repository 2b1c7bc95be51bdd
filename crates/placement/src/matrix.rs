//! What is known about the latency of every ordered pair of nodes.

use std::collections::BTreeMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cost::{CostMatrix, CostPolicy};
use crate::node::{NodeName, Rtt};

/// Statistics of the round trips of one ordered pair over the prober's window. Plain data from outside: it is judged when it is put
/// into a [`LatencyMatrix`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairStats {
    /// Shortest round trip, seconds.
    pub min: f64,
    /// Median, seconds.
    pub p50: f64,
    /// 90th percentile, seconds.
    pub p90: f64,
    /// 99th percentile, seconds.
    pub p99: f64,
    /// Exponentially weighted mean, seconds.
    pub ewma: f64,
    /// Mean deviation between successive round trips, seconds.
    pub jitter: f64,
    /// Lost probes over sent probes, 0 to 1.
    pub loss_ratio: f64,
    /// Seconds since the newest sample.
    pub age_seconds: f64,
    /// Samples in the window.
    pub samples: u64,
}

impl PairStats {
    /// Statistics of a link that always takes `rtt_seconds`: for tables of latencies, tests and examples.
    #[must_use]
    pub fn constant(rtt_seconds: f64) -> Self {
        Self {
            min: rtt_seconds,
            p50: rtt_seconds,
            p90: rtt_seconds,
            p99: rtt_seconds,
            ewma: rtt_seconds,
            jitter: 0.0,
            loss_ratio: 0.0,
            age_seconds: 0.0,
            samples: 1,
        }
    }

    /// Whether these can be the statistics of a real link: every time a valid [`Rtt`], quantiles in order, loss in 0..=1, an age that is not
    /// negative, at least one sample. One bad field condemns all: what produced it may have produced the others.
    #[must_use]
    pub fn is_credible(&self) -> bool {
        [self.min, self.p50, self.p90, self.p99, self.ewma, self.jitter].iter().all(|seconds| Rtt::from_seconds(*seconds).is_ok())
            && self.min <= self.p50
            && self.p50 <= self.p90
            && self.p90 <= self.p99
            && self.min <= self.ewma
            && (0.0..=1.0).contains(&self.loss_ratio)
            && self.age_seconds.is_finite()
            && self.age_seconds >= 0.0
            && self.samples > 0
    }

    /// One of the kept quantiles, seconds.
    #[must_use]
    pub fn quantile(&self, quantile: Quantile) -> f64 {
        match quantile {
            Quantile::Min => self.min,
            Quantile::P50 => self.p50,
            Quantile::P90 => self.p90,
            Quantile::P99 => self.p99,
        }
    }
}

/// The quantiles that [`PairStats`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantile {
    /// The shortest.
    Min,
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 99th percentile.
    P99,
}

/// What is known of one ordered pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairState {
    /// Measured lately.
    Known(PairStats),
    /// Measured, but longer ago than is trusted.
    Stale(PairStats),
    /// Never measured, forgotten, or measured as nonsense.
    #[default]
    Unknown,
    /// Probed and not answering: nothing may be sent this way.
    Unreachable,
}

impl PairState {
    /// Known, stale or unknown, by the age that the statistics carry.
    #[must_use]
    pub fn judged(stats: PairStats, freshness: Freshness) -> Self {
        if !stats.is_credible() || stats.age_seconds > freshness.forget_after_seconds {
            Self::Unknown
        } else if stats.age_seconds > freshness.stale_after_seconds {
            Self::Stale(stats)
        } else {
            Self::Known(stats)
        }
    }

    /// The statistics, where there are any.
    #[must_use]
    pub fn stats(&self) -> Option<&PairStats> {
        match self {
            Self::Known(stats) | Self::Stale(stats) => Some(stats),
            Self::Unknown | Self::Unreachable => None,
        }
    }

    fn sanitised(self) -> Self {
        match self.stats() {
            Some(stats) if !stats.is_credible() => Self::Unknown,
            _ => self,
        }
    }
}

/// How old a measurement may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// Older than this many seconds is [`PairState::Stale`].
    pub stale_after_seconds: f64,
    /// Older than this many seconds is [`PairState::Unknown`].
    pub forget_after_seconds: f64,
}

impl Default for Freshness {
    /// Stale after 30 s, forgotten after an hour: decisions outlive an hour without metrics.
    fn default() -> Self {
        Self { stale_after_seconds: 30.0, forget_after_seconds: 3600.0 }
    }
}

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

/// The state of every ordered pair of a list of nodes. Pairs start [`PairState::Unknown`]; a node to itself is always known and 0.
///
/// ```
/// use placement::{LatencyMatrix, PairState, PairStats};
///
/// let mut matrix = LatencyMatrix::new(vec!["a".into(), "b".into()])?;
/// matrix.set(&"a".into(), &"b".into(), PairState::Known(PairStats::constant(-0.003)))?;
/// assert_eq!(matrix.state(&"a".into(), &"b".into()), PairState::Unknown); // a negative time is no measurement
/// # Ok::<(), placement::MatrixError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

    fn position(&self, node: &NodeName) -> Result<usize, MatrixError> {
        self.index.get(node).copied().ok_or_else(|| MatrixError::UnknownNode(node.clone()))
    }

    /// Sets one ordered pair. Statistics that make no sense become [`PairState::Unknown`]; a node to itself stays 0.
    ///
    /// # Errors
    /// When one of the nodes is not in the matrix.
    pub fn set(&mut self, from: &NodeName, to: &NodeName, state: PairState) -> Result<(), MatrixError> {
        let pair = (self.position(from)?, self.position(to)?);
        if pair.0 != pair.1 {
            self.pairs[pair] = state.sanitised();
        }
        Ok(())
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

    /// What each pair costs under a policy.
    #[must_use]
    pub fn costs(&self, policy: &CostPolicy) -> CostMatrix {
        CostMatrix::new(self.nodes.clone(), self.pairs.map(|state| policy.seconds(state)))
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
