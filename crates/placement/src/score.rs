//! Node scores from 0 to 100, for schedulers that place one pod at a time.
//!
//! Each comes in two forms: by name or for all nodes, and (`.._into`) for some nodes by position,
//! into the caller's buffer and up to the caller's best score.

#[cfg(feature = "app-graph")]
mod app_graph;
mod dependencies;
mod topology;

use std::collections::BTreeMap;

#[cfg(feature = "app-graph")]
pub use app_graph::{AppGraph, AppGraphError, Call, Order};
pub use dependencies::{
    CallCosts, PlacedDependency, Requirements, dependencies_into, for_dependencies, requirements, requirements_into,
};
pub use topology::{MAX_COST, Place, SAME_ZONE_COST, TableCost, TopologyCosts};

use crate::latency::CostMatrix;
use crate::problem::Demand;
use crate::solver::flow::UNSERVED_SECONDS;
use latency_matrix::{NodeName, Rtt};

/// The best score.
pub const MAX_SCORE: u8 = 100;

/// Scores nodes for one more replica of a service, by the mean response time that its demand would
/// see there: the best node gets 100, a node with twice its response time 50. A node that no source
/// can reach gets 0; one that some cannot reach counts an hour for these. A source that reaches no
/// node at all favours none and is left out. Without demand all nodes count alike as sources.
///
/// A node's score depends on its own costs and those of the best node only, and never rises when a
/// measurement to it is lost or spoilt.
///
/// ```
/// use placement::{CostMatrix, Demand, NodeName, score};
///
/// let nodes: Vec<NodeName> = vec!["near".into(), "far".into()];
/// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.030], [0.030, 0.0]]);
/// let demand = Demand::from_concurrency([("near".into(), 3.0)])?;
/// let scores = score::for_demand(&nodes, &costs, &demand, 0.010);
/// assert_eq!((scores["near"], scores["far"]), (100, 25));
/// # Ok::<(), placement::problem::DemandError>(())
/// ```
#[must_use]
pub fn for_demand(nodes: &[NodeName], costs: &CostMatrix, demand: &Demand, serving_seconds: f64) -> BTreeMap<NodeName, u8> {
    let columns: Vec<Option<usize>> = nodes.iter().map(|node| costs.position(node)).collect();
    let mut means = Means::new(nodes.len());
    let mut add = |source: &NodeName, demand: f64| {
        let row = costs.position(source);
        means.add(demand, |at| match (row, columns[at]) {
            (Some(row), Some(column)) => costs.at(row, column),
            _ if nodes[at] == *source => 0.0,
            _ => Rtt::ABSURD.seconds(),
        });
    };
    if demand.is_zero() {
        nodes.iter().for_each(|node| add(node, 1.0));
    } else {
        demand.iter().for_each(|(source, demand)| add(source, demand));
    }
    let mut scores = vec![0; nodes.len()];
    means.score_into(serving_seconds, MAX_SCORE, &mut scores);
    nodes.iter().cloned().zip(scores).collect()
}

/// Scores candidates as [`for_demand`] does, by position, from 0 to `best`. Sources are positions
/// with their demand; without any that is above 0, all candidates count alike. `scores` gets one
/// number per candidate, as far as it is long enough.
///
/// ```
/// use placement::{CostMatrix, score};
///
/// let nodes = ["a", "b", "c"].map(Into::into).to_vec();
/// let costs = CostMatrix::new(
///     nodes,
///     ndarray::array![[0.0, 0.03, 0.01], [0.03, 0.0, 0.03], [0.01, 0.03, 0.0]],
/// );
/// let mut scores = [0; 2];
/// score::demand_into(&costs, &[(0, 3.0)], 0.010, &[2, 1], 10, &mut scores);
/// assert_eq!(scores, [10, 5]); // 20 and 40 ms
/// ```
pub fn demand_into(
    costs: &impl CallCosts,
    sources: &[(usize, f64)],
    serving_seconds: f64,
    candidates: &[usize],
    best: u8,
    scores: &mut [u8],
) {
    let mut means = Means::new(candidates.len());
    let mut add = |source: usize, demand: f64| {
        means.add(demand, |at| costs.cost(source, candidates[at]).unwrap_or(Rtt::ABSURD.seconds()));
    };
    let asking = |(_, demand): &&(usize, f64)| *demand > 0.0 && demand.is_finite();
    if sources.iter().any(|source| asking(&source)) {
        sources.iter().filter(asking).for_each(|(source, demand)| add(*source, *demand));
    } else {
        candidates.iter().for_each(|source| add(*source, 1.0));
    }
    means.score_into(serving_seconds, best, scores);
}

/// The mean cost of demand to each of some nodes.
struct Means {
    sums: Vec<f64>,
    /// Whether any demand arrives.
    reached: Vec<bool>,
    total: f64,
    row: Vec<f64>,
}

impl Means {
    fn new(nodes: usize) -> Self {
        Self { sums: vec![0.0; nodes], reached: vec![false; nodes], total: 0.0, row: vec![0.0; nodes] }
    }

    fn add(&mut self, demand: f64, cost: impl Fn(usize) -> f64) {
        let mut arrives = false;
        for (at, (known, reached)) in self.row.iter_mut().zip(&mut self.reached).enumerate() {
            *known = cost(at);
            *reached |= known.is_finite();
            arrives |= known.is_finite();
        }
        if arrives {
            self.total += demand;
            for (sum, cost) in self.sums.iter_mut().zip(&self.row) {
                *sum += demand * cost.min(UNSERVED_SECONDS);
            }
        }
    }

    fn score_into(&self, serving_seconds: f64, best: u8, scores: &mut [u8]) {
        let serving_seconds = if serving_seconds.is_finite() { serving_seconds.max(1e-6) } else { 1e-6 };
        let response = |at: usize| {
            if self.reached[at] { self.sums[at] / self.total + serving_seconds } else { f64::INFINITY }
        };
        let least = (0..self.sums.len()).map(response).fold(f64::INFINITY, f64::min);
        for (at, score) in scores.iter_mut().enumerate().take(self.sums.len()) {
            let share = least / response(at);
            // Rounded down; infinity over infinity is no share.
            *score = if share.is_finite() { (f64::from(best) * share).clamp(0.0, f64::from(best)) as u8 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_cut_off_takes_no_ranking_away() {
        let far = f64::INFINITY;
        let nodes: Vec<NodeName> = ["a", "b"].map(NodeName::from).to_vec();
        let costs = CostMatrix::new(
            ["a", "b", "c"].map(NodeName::from).to_vec(),
            ndarray::array![[0.0, 0.03, far], [0.03, 0.0, far], [far, far, 0.0]],
        );
        let demand = Demand::from_concurrency([("a".into(), 9.0), ("c".into(), 0.01)]).unwrap();
        let scores = for_demand(&nodes, &costs, &demand, 0.010);
        assert_eq!((scores["a"], scores["b"]), (100, 25));
        // Where it reaches one of them, that one is better, and the other not lost.
        let half = CostMatrix::new(
            ["a", "b", "c"].map(NodeName::from).to_vec(),
            ndarray::array![[0.0, 0.03, far], [0.03, 0.0, far], [far, 0.01, 0.0]],
        );
        let little = Demand::from_concurrency([("a".into(), 9.0), ("c".into(), 0.0005)]).unwrap();
        let scores = for_demand(&nodes, &half, &little, 0.010);
        assert!(scores["b"] == 100 && scores["a"] > 0 && scores["a"] < 30);
        let nobody = Demand::from_concurrency([("c".into(), 1.0)]).unwrap();
        assert_eq!(for_demand(&nodes, &costs, &nobody, 0.010).into_values().collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn some_nodes_by_position_score_as_all_by_name() {
        let nodes: Vec<NodeName> = ["a", "b", "c"].map(NodeName::from).to_vec();
        let cells = ndarray::array![[0.0, 0.02, 0.03], [0.02, 0.0, 0.04], [0.03, 0.04, 0.0]];
        let costs = CostMatrix::new(nodes.clone(), cells);
        let demand = Demand::from_concurrency([("a".into(), 2.0), ("c".into(), 1.0)]).unwrap();
        let by_name = for_demand(&nodes, &costs, &demand, 0.004);
        let mut scores = [7; 4];
        demand_into(&costs, &[(0, 2.0), (2, 1.0), (1, f64::NAN)], 0.004, &[0, 1, 2], MAX_SCORE, &mut scores);
        assert_eq!(scores, [by_name["a"], by_name["b"], by_name["c"], 7]);
        // Positions beyond the list are unknown, and a buffer may be short.
        let mut short = [0; 1];
        demand_into(&costs, &[(99, 1.0)], 0.004, &[0, 77], 10, &mut short);
        assert_eq!(short, [10]);
    }
}
