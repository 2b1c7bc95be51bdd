//! What sending a request from one node to another costs, in seconds.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use latency_matrix::{LatencyMatrix, NodeName, PairState, PairStats, Quantile, Rtt};

/// Which number of a pair's statistics stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// One of the quantiles.
    Quantile(Quantile),
    /// The weighted mean plus `jitters` times the jitter: `mean + k * jitter`. A negative or NaN
    /// `jitters` counts as 0.
    MeanPlusJitter {
        /// How many times the jitter is added.
        jitters: f64,
    },
}

/// How a pair's state becomes a cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostPolicy {
    /// The number that stands for a pair.
    pub statistic: Statistic,
    /// A stale pair costs this many times its last known cost; values below 1 count as 1.
    pub stale_factor: f64,
    /// Seconds that a lost packet costs, added in proportion to the loss ratio. TCP's shortest
    /// retransmission time-out is 0.2 s.
    pub loss_seconds: f64,
}

impl Default for CostPolicy {
    /// The median; a stale pair is half as costly again; a lost packet costs 0.2 s.
    fn default() -> Self {
        Self { statistic: Statistic::Quantile(Quantile::P50), stale_factor: 1.5, loss_seconds: 0.2 }
    }
}

impl CostPolicy {
    /// The cost of a pair in seconds.
    ///
    /// An unknown pair costs [`Rtt::ABSURD`], which is a constant and no less than any known pair
    /// can cost: losing or spoiling a measurement can therefore never make its pair cheaper, nor
    /// change the cost of another. An unreachable pair costs infinity: it is excluded.
    ///
    /// ```
    /// use placement::CostPolicy;
    /// use placement::latency::{PairState, PairStats};
    ///
    /// let policy = CostPolicy::default();
    /// assert_eq!(policy.seconds(&PairState::Known(PairStats::constant(0.020))), 0.020);
    /// assert_eq!(policy.seconds(&PairState::Stale(PairStats::constant(0.020))), 0.030);
    /// assert_eq!(policy.seconds(&PairState::Unknown), 10.0);
    /// assert!(policy.seconds(&PairState::Unreachable).is_infinite());
    /// ```
    #[must_use]
    pub fn seconds(&self, state: &PairState) -> f64 {
        let unknown = Rtt::ABSURD.seconds();
        match state {
            PairState::Known(stats) if stats.is_credible() => self.credible_seconds(stats).min(unknown),
            PairState::Stale(stats) if stats.is_credible() => {
                (self.credible_seconds(stats) * self.stale_factor.max(1.0)).min(unknown)
            }
            PairState::Known(_) | PairState::Stale(_) | PairState::Unknown => unknown,
            PairState::Unreachable => f64::INFINITY,
        }
    }

    /// What each pair of `matrix` costs.
    #[must_use]
    pub fn costs(&self, matrix: &LatencyMatrix) -> CostMatrix {
        CostMatrix::new(matrix.nodes().to_vec(), matrix.pairs().map(|state| self.seconds(state)))
    }

    fn credible_seconds(&self, stats: &PairStats) -> f64 {
        let time = match self.statistic {
            Statistic::Quantile(quantile) => stats.quantile(quantile),
            // max() of a NaN and a number is the number.
            Statistic::MeanPlusJitter { jitters } => stats.ewma + jitters.max(0.0) * stats.jitter,
        };
        time + self.loss_seconds.max(0.0) * stats.loss_ratio
    }
}

/// The cost in seconds of every ordered pair of nodes: finite, or infinite where nothing may be
/// sent. Clones share the numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(from = "RawCosts", into = "RawCosts")]
pub struct CostMatrix {
    nodes: Arc<Vec<NodeName>>,
    index: Arc<HashMap<NodeName, usize>>,
    seconds: Arc<Array2<f64>>,
}

impl CostMatrix {
    /// A matrix of costs in seconds, rows are the sending nodes. The diagonal becomes 0; NaN,
    /// negative and finite-but-absurd entries become the cost of an unknown pair; nodes beyond the
    /// array's size and second mentions of a node are as unknown as nodes not listed.
    #[must_use]
    pub fn new(nodes: Vec<NodeName>, mut seconds: Array2<f64>) -> Self {
        for ((row, column), cost) in seconds.indexed_iter_mut() {
            if row == column {
                *cost = 0.0;
            } else if *cost != f64::INFINITY && Rtt::from_seconds(*cost).is_err() {
                *cost = Rtt::ABSURD.seconds();
            } else {
                // Turns -0.0 into 0.0: costs are ordered by their bits where there are many.
                *cost += 0.0;
            }
        }
        if !seconds.is_standard_layout() {
            seconds = seconds.as_standard_layout().into_owned();
        }
        let mut index = HashMap::with_capacity(nodes.len());
        for (position, node) in nodes.iter().enumerate() {
            if position < seconds.nrows().min(seconds.ncols()) {
                index.entry(node.clone()).or_insert(position);
            }
        }
        Self { nodes: Arc::new(nodes), index: Arc::new(index), seconds: Arc::new(seconds) }
    }

    /// The same from one list, a row after the other; pairs beyond its end are unknown.
    ///
    /// ```
    /// use placement::CostMatrix;
    ///
    /// let costs =
    ///     CostMatrix::from_row_major(vec!["a".into(), "b".into()], vec![0.0, 0.004, 0.005]);
    /// assert_eq!((costs.at(0, 1), costs.at(1, 0), costs.at(0, 2)), (0.004, 0.005, 10.0));
    /// ```
    #[must_use]
    pub fn from_row_major(nodes: Vec<NodeName>, mut seconds: Vec<f64>) -> Self {
        let size = nodes.len();
        seconds.resize(size * size, f64::NAN);
        let seconds = Array2::from_shape_vec((size, size), seconds).unwrap_or_default();
        Self::new(nodes, seconds)
    }

    /// The nodes, in the order of rows and columns.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The cost of an ordered pair; that of an unknown pair where a node is not in the matrix; 0
    /// from a node to itself.
    #[must_use]
    pub fn seconds(&self, from: &NodeName, to: &NodeName) -> f64 {
        if from == to {
            return 0.0;
        }
        match (self.index.get(from), self.index.get(to)) {
            (Some(row), Some(column)) => self.seconds[(*row, *column)],
            _ => Rtt::ABSURD.seconds(),
        }
    }

    /// The cost of an ordered pair of positions; that of an unknown pair beyond the array.
    #[must_use]
    pub fn at(&self, from: usize, to: usize) -> f64 {
        if from == to { 0.0 } else { self.seconds.get((from, to)).copied().unwrap_or(Rtt::ABSURD.seconds()) }
    }

    /// The position of a node in rows and columns; none where its costs are not known.
    pub fn position(&self, node: impl AsRef<str>) -> Option<usize> {
        self.index.get(node.as_ref()).copied()
    }

    /// Whether every node has a row and column, its own.
    pub(crate) fn is_plain(&self) -> bool {
        self.index.len() == self.nodes.len() && self.seconds.nrows() == self.nodes.len() && self.seconds.is_square()
    }

    /// The costs from one node to all others, by position.
    pub(crate) fn row(&self, from: usize) -> &[f64] {
        self.seconds.row(from).to_slice().unwrap_or_default()
    }

    /// Whether two matrices are clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.seconds, &other.seconds) && Arc::ptr_eq(&self.index, &other.index)
    }

    /// The costs of the given pairs of nodes as an array, rows are the sources.
    pub(crate) fn select(&self, sources: &[&NodeName], targets: &[&NodeName]) -> Array2<f64> {
        let unknown = Rtt::ABSURD.seconds();
        let columns: Vec<usize> = targets.iter().map(|node| self.position(node).unwrap_or(usize::MAX)).collect();
        let mut selected = Array2::from_elem((sources.len(), targets.len()), unknown);
        for (mut row, source) in selected.rows_mut().into_iter().zip(sources) {
            if let Some(position) = self.position(source) {
                // The diagonal is 0.
                let known = self.seconds.row(position);
                for (cost, column) in row.iter_mut().zip(&columns) {
                    *cost = known.get(*column).copied().unwrap_or(unknown);
                }
            } else if let Some(own) = targets.iter().position(|target| target == source) {
                row[own] = 0.0;
            }
        }
        selected
    }
}

/// Costs as they are written: rows are the sending nodes, and nothing stands for infinity, which
/// JSON has no number for.
#[derive(Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
struct RawCosts {
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "Vec<String>"))]
    nodes: Vec<NodeName>,
    seconds: Vec<Vec<Option<f64>>>,
}

impl From<RawCosts> for CostMatrix {
    fn from(raw: RawCosts) -> Self {
        let size = raw.seconds.len();
        // A row that is too short is unknown from there on.
        let cell = |(row, column): (usize, usize)| match raw.seconds[row].get(column) {
            Some(Some(seconds)) => *seconds,
            Some(None) => f64::INFINITY,
            None => f64::NAN,
        };
        Self::new(raw.nodes, Array2::from_shape_fn((size, size), cell))
    }
}

impl From<CostMatrix> for RawCosts {
    fn from(costs: CostMatrix) -> Self {
        let row = |row: ndarray::ArrayView1<'_, f64>| row.iter().map(|seconds| seconds.is_finite().then_some(*seconds)).collect();
        Self { nodes: costs.nodes.to_vec(), seconds: costs.seconds.rows().into_iter().map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_plus_jitter_and_loss_add_up() {
        let policy = CostPolicy { statistic: Statistic::MeanPlusJitter { jitters: 2.0 }, stale_factor: 0.1, loss_seconds: 0.2 };
        let stats = PairStats { jitter: 0.003, loss_ratio: 0.05, ..PairStats::constant(0.020) };
        assert!((policy.seconds(&PairState::Known(stats)) - 0.036).abs() < 1e-12);
        // A factor below 1 must not make an old measurement look better than a fresh one.
        assert!(policy.seconds(&PairState::Stale(stats)) >= policy.seconds(&PairState::Known(stats)));
        let odd = CostPolicy { statistic: Statistic::MeanPlusJitter { jitters: f64::NAN }, ..policy };
        assert!(odd.seconds(&PairState::Known(stats)) > 0.0);
    }

    #[test]
    fn a_negative_zero_is_a_zero() {
        let costs = CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, -0.0], [0.0, 0.0]]);
        assert_eq!(costs.at(0, 1).to_bits(), 0);
        assert_eq!((costs.position("b"), costs.position("gone")), (Some(1), None));
    }

    #[test]
    fn a_raw_matrix_is_cleaned_and_lookups_never_fail() {
        let raw = ndarray::array![[5.0, f64::NAN], [-1.0, 3.0]];
        let costs = CostMatrix::new(vec!["a".into(), "b".into(), "beyond".into()], raw);
        assert_eq!(costs.seconds(&"a".into(), &"a".into()), 0.0);
        assert_eq!(costs.seconds(&"a".into(), &"b".into()), 10.0);
        assert_eq!(costs.seconds(&"b".into(), &"a".into()), 10.0);
        assert_eq!(costs.seconds(&"b".into(), &"beyond".into()), 10.0);
        assert_eq!(costs.seconds(&"beyond".into(), &"beyond".into()), 0.0);
        assert_eq!(costs.select(&[&"b".into()], &[&"b".into(), &"gone".into()]), ndarray::array![[0.0, 10.0]]);
    }
}
