//! Costs in factored form: between sites, plus what each node adds.

use std::collections::BTreeSet;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

use latency_matrix::{NodeName, Rtt};

/// The cost of a pair is that between the sites of its two nodes plus the access terms of both; 0
/// from a node to itself. For `n` nodes at `s` sites this holds `s * s + n` numbers where a matrix
/// holds `n * n`, and what is computed from it costs accordingly.
///
/// ```
/// use placement::latency::SiteCosts;
///
/// // Two nodes at one site, one at another 30 ms away.
/// let costs = SiteCosts::new(
///     ["a1", "a2", "b1"].map(Into::into).to_vec(),
///     vec![0, 0, 1],
///     ndarray::array![[0.0002, 0.030], [0.030, 0.0002]],
///     vec![0.0001, 0.0001, 0.0003],
/// );
/// assert!((costs.seconds(0, 2) - 0.0304).abs() < 1e-12);
/// assert_eq!(costs.seconds(1, 1), 0.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(from = "RawSiteCosts", into = "RawSiteCosts")]
pub struct SiteCosts {
    nodes: Vec<NodeName>,
    sites: Vec<usize>,
    between: Array2<f64>,
    /// None is negative.
    access: Vec<f64>,
    /// Pairs of nodes that nothing may be sent between, whatever their sites cost.
    cut: BTreeSet<(usize, usize)>,
    /// Whether some known sum is more than a pair can cost.
    tops: bool,
}

impl SiteCosts {
    /// From the site of each node (a row of `between`), the seconds between sites (rows are the
    /// sending ones; the diagonal is inside a site), and the seconds that each node adds. A number
    /// that is no valid cost counts as unknown; so does everything about a node without a site or
    /// access term.
    #[must_use]
    pub fn new(nodes: Vec<NodeName>, sites: Vec<usize>, between: Array2<f64>, access: Vec<f64>) -> Self {
        Self::floored(nodes, sites, between, access, &Array2::zeros((0, 0)))
    }

    /// The same where no node of one site is nearer to any of another than `floors` says, whatever
    /// its access term is.
    pub(crate) fn floored(
        nodes: Vec<NodeName>,
        mut sites: Vec<usize>,
        mut between: Array2<f64>,
        mut access: Vec<f64>,
        floors: &Array2<f64>,
    ) -> Self {
        let unknown = Rtt::ABSURD.seconds();
        let size = between.nrows().min(between.ncols());
        for cost in &mut between {
            if *cost != f64::INFINITY && Rtt::from_seconds(*cost).is_err() {
                *cost = unknown;
            }
        }
        sites.resize(nodes.len(), usize::MAX);
        access.resize(nodes.len(), f64::NAN);
        let unsound = |site: usize, access: f64| site >= size || !access.is_finite() || access.abs() > unknown;
        let lost = sites.iter().zip(&access).any(|(site, access)| unsound(*site, *access));
        // One more site for them, that nothing is known about.
        let whole = size + usize::from(lost);
        let mut all = Array2::from_elem((whole, whole), unknown);
        all.slice_mut(s![..size, ..size]).assign(&between.slice(s![..size, ..size]));
        for (site, access) in sites.iter_mut().zip(&mut access) {
            if unsound(*site, *access) {
                (*site, *access) = (size, 0.0);
            }
        }
        // A learned access term may be below zero: then it is a site as a whole that is nearer, and
        // nodes add to that. Costs below zero, or their floor, become that.
        let mut nearest = vec![0.0_f64; whole];
        for (site, access) in sites.iter().zip(&access) {
            nearest[*site] = nearest[*site].min(*access);
        }
        for ((from, to), cost) in all.indexed_iter_mut() {
            if *cost < unknown {
                let floor = floors.get((from, to)).copied().unwrap_or(0.0).clamp(0.0, unknown);
                *cost = (*cost + nearest[from] + nearest[to]).max(floor);
            }
        }
        for (site, access) in sites.iter().zip(&mut access) {
            // None is more than what it is added to can show.
            *access = (*access - nearest[*site]).min(unknown);
        }
        let most = all.iter().copied().filter(|cost| *cost < unknown).fold(0.0, f64::max);
        let tops = most + 2.0 * access.iter().copied().fold(0.0, f64::max) >= unknown;
        Self { nodes, sites, between: all, access, cut: BTreeSet::new(), tops }
    }

    /// The same without the ways of these pairs of positions, whatever their sites cost: nothing
    /// may be sent there.
    #[must_use]
    pub fn without(mut self, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let size = self.nodes.len();
        self.cut.extend(pairs.into_iter().filter(|(from, to)| from != to && *from < size && *to < size));
        self
    }

    /// The nodes; positions in this list stand for them below.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The cost of an ordered pair of positions in seconds: infinite where nothing may be sent, at
    /// most [`Rtt::ABSURD`] otherwise, which is also that of a position beyond the list.
    #[must_use]
    pub fn seconds(&self, from: usize, to: usize) -> f64 {
        if from == to {
            return 0.0;
        }
        let (Some(site), Some(other)) = (self.sites.get(from), self.sites.get(to)) else { return Rtt::ABSURD.seconds() };
        if !self.cut.is_empty() && self.cut.contains(&(from, to)) {
            return f64::INFINITY;
        }
        join(self.between[(*site, *other)], self.access[from] + self.access[to])
    }

    /// Writes the costs from one node to these, of which those beyond the list are unknown.
    pub(crate) fn fill_row(&self, from: usize, columns: &[u32], row: &mut Vec<f64>) {
        row.clear();
        let (Some(site), Some(own)) = (self.sites.get(from), self.access.get(from)) else {
            row.resize(columns.len(), Rtt::ABSURD.seconds());
            return;
        };
        let between = self.between.row(*site);
        row.extend(columns.iter().map(|to| match self.sites.get(*to as usize) {
            Some(site) if *to as usize != from => join(between[*site], own + self.access[*to as usize]),
            Some(_) => 0.0,
            None => Rtt::ABSURD.seconds(),
        }));
        if self.cut.range((from, 0)..=(from, usize::MAX)).next().is_some() {
            for (cost, to) in row.iter_mut().zip(columns) {
                if self.cut.contains(&(from, *to as usize)) && *to as usize != from {
                    *cost = f64::INFINITY;
                }
            }
        }
    }

    pub(crate) fn cut(&self) -> &BTreeSet<(usize, usize)> {
        &self.cut
    }

    /// Whether the sum of a pair's terms may be more than what an unknown pair costs, which it is
    /// then cut to.
    pub(crate) fn tops(&self) -> bool {
        self.tops
    }

    pub(crate) fn sites(&self) -> &[usize] {
        &self.sites
    }

    pub(crate) fn between(&self) -> &Array2<f64> {
        &self.between
    }

    pub(crate) fn access(&self) -> &[f64] {
        &self.access
    }
}

/// As it is written: rows are the sending sites, and nothing stands for infinity, which JSON has no
/// number for.
#[derive(Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
struct RawSiteCosts {
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "Vec<String>"))]
    nodes: Vec<NodeName>,
    sites: Vec<usize>,
    between: Vec<Vec<Option<f64>>>,
    access: Vec<f64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    cut: BTreeSet<(usize, usize)>,
}

impl From<RawSiteCosts> for SiteCosts {
    fn from(raw: RawSiteCosts) -> Self {
        let size = raw.between.len();
        // A row that is too short is unknown from there on.
        let cell = |(row, column): (usize, usize)| match raw.between[row].get(column) {
            Some(Some(seconds)) => *seconds,
            Some(None) => f64::INFINITY,
            None => f64::NAN,
        };
        Self::new(raw.nodes, raw.sites, Array2::from_shape_fn((size, size), cell), raw.access).without(raw.cut)
    }
}

impl From<SiteCosts> for RawSiteCosts {
    fn from(costs: SiteCosts) -> Self {
        let row = |row: ndarray::ArrayView1<'_, f64>| row.iter().map(|seconds| seconds.is_finite().then_some(*seconds)).collect();
        let between = costs.between.rows().into_iter().map(row).collect();
        Self { nodes: costs.nodes, sites: costs.sites, between, access: costs.access, cut: costs.cut }
    }
}

/// Seconds between sites and what nodes add: never negative, never above an unknown pair's cost
/// unless infinite.
pub(crate) fn join(between: f64, access: f64) -> f64 {
    if between.is_infinite() { between } else { (between + access).clamp(0.0, Rtt::ABSURD.seconds()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_unknown() {
        let names = || ["a", "b", "c"].map(NodeName::from).to_vec();
        let costs = SiteCosts::new(names(), vec![0, 1, 9], ndarray::array![[0.0, f64::NAN], [-1.0, 0.0]], vec![0.0, f64::NAN]);
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            assert_eq!(costs.seconds(from, to), 10.0);
        }
        let text = serde_json::to_string(&costs).unwrap();
        assert_eq!(serde_json::from_str::<SiteCosts>(&text).unwrap(), costs);
        let cut =
            SiteCosts::new(names(), vec![0, 1, 1], ndarray::array![[0.0, f64::INFINITY], [0.01, 0.0]], vec![-0.02, 0.0, 0.0]);
        assert!(cut.seconds(0, 1).is_infinite());
        assert_eq!(cut.seconds(1, 0), 0.0);
        // What may not be sent is read back as such, and positions beyond the list are unknown.
        let cut = cut.without([(1, 2), (5, 0), (1, 1)]);
        let text = serde_json::to_string(&cut).unwrap();
        assert_eq!(serde_json::from_str::<SiteCosts>(&text).unwrap(), cut);
        assert!(cut.seconds(1, 2).is_infinite() && cut.seconds(2, 1).is_finite());
        assert_eq!((cut.seconds(0, 3), cut.seconds(9, 0), cut.seconds(1, 1)), (10.0, 10.0, 0.0));
        // Access terms that are far apart are read back as they are.
        let far = SiteCosts::new(names(), vec![0, 0, 0], ndarray::array![[5.0]], vec![-9.0, 9.0, 0.0]);
        let text = serde_json::to_string(&far).unwrap();
        assert_eq!(serde_json::from_str::<SiteCosts>(&text).unwrap(), far);
        assert_eq!((far.seconds(0, 1), far.seconds(0, 2)), (10.0, 9.0));
    }
}
