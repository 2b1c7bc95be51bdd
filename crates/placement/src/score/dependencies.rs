//! Scores for one pod of an application by where the pods are that it will call.

use serde::{Deserialize, Serialize};

use crate::latency::{CostMatrix, Costs, SiteCosts};
use crate::score::MAX_SCORE;
use crate::score::{MAX_COST, TopologyCosts};
use latency_matrix::Rtt;

/// A placed pod that the pod to be placed will call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedDependency {
    /// Position of its node.
    pub node: usize,
    /// What the way to it may cost at most, in the unit of the costs.
    pub max_cost: f64,
}

/// What it costs a pod on one node to call a pod on another; nodes are positions from 0, and what
/// is beyond the list is not known. Tables have no unit, measurements are seconds.
pub trait CallCosts {
    /// Number of nodes.
    fn nodes(&self) -> usize;

    /// The cost of an ordered pair, infinite where nothing may be sent; none where it is not known.
    fn cost(&self, from: usize, to: usize) -> Option<f64>;

    /// What an unknown pair counts: infinite where a node with an unknown way is no candidate.
    fn unknown_cost(&self) -> f64;

    /// Per node, the sum of the costs to all these nodes; infinite for one that is no candidate: it
    /// scores 0 and does not stretch the scale of the others.
    fn accumulate(&self, called: &[usize]) -> Vec<f64>;

    /// Whether a pod on one node is near enough to one on another whatever the required maximum.
    fn always_near(&self, from: usize, to: usize) -> bool {
        from == to
    }
}

impl CallCosts for TopologyCosts {
    fn nodes(&self) -> usize {
        self.places().len()
    }

    fn cost(&self, from: usize, to: usize) -> Option<f64> {
        Self::cost(self, from, to)
    }

    fn unknown_cost(&self) -> f64 {
        MAX_COST
    }

    fn accumulate(&self, called: &[usize]) -> Vec<f64> {
        let cost = |place: usize, node: &usize| self.places().get(*node).map_or(MAX_COST, |to| self.between(place, *to));
        let sums: Vec<f64> = (0..self.distinct()).map(|place| called.iter().map(|node| cost(place, node)).sum()).collect();
        let mut costs: Vec<f64> = self.places().iter().map(|place| sums[*place]).collect();
        exact_at(self, called, &mut costs);
        costs
    }

    /// A pod in the same zone is, as the plugins have it: they do not even look at the cost.
    fn always_near(&self, from: usize, to: usize) -> bool {
        from == to || self.same_zone(from, to)
    }
}

impl CallCosts for SiteCosts {
    fn nodes(&self) -> usize {
        Self::nodes(self).len()
    }

    fn cost(&self, from: usize, to: usize) -> Option<f64> {
        Some(self.seconds(from, to)).filter(|seconds| *seconds != Rtt::ABSURD.seconds())
    }

    fn unknown_cost(&self) -> f64 {
        f64::INFINITY
    }

    fn accumulate(&self, called: &[usize]) -> Vec<f64> {
        if self.tops() {
            let cost = |from: usize, to: &usize| CallCosts::cost(self, from, *to).unwrap_or(f64::INFINITY);
            return (0..self.sites().len()).map(|node| called.iter().map(|to| cost(node, to)).sum()).collect();
        }
        let (sites, access, between) = (self.sites(), self.access(), self.between());
        let cost = |site: usize, node: &usize| match sites.get(*node) {
            Some(to) if between[(site, *to)] < Rtt::ABSURD.seconds() => between[(site, *to)] + access[*node],
            _ => f64::INFINITY,
        };
        let sums: Vec<f64> = (0..between.nrows()).map(|site| called.iter().map(|node| cost(site, node)).sum()).collect();
        let calls = called.len() as f64;
        let mut costs: Vec<f64> = sites.iter().zip(access).map(|(site, access)| sums[*site] + calls * access).collect();
        for (from, to) in self.cut() {
            if called.contains(to) {
                costs[*from] = f64::INFINITY;
            }
        }
        exact_at(self, called, &mut costs);
        costs
    }
}

impl CallCosts for CostMatrix {
    fn nodes(&self) -> usize {
        Self::nodes(self).len()
    }

    fn cost(&self, from: usize, to: usize) -> Option<f64> {
        Some(self.at(from, to)).filter(|seconds| *seconds != Rtt::ABSURD.seconds())
    }

    fn unknown_cost(&self) -> f64 {
        f64::INFINITY
    }

    fn accumulate(&self, called: &[usize]) -> Vec<f64> {
        let cost = |from: usize, to: &usize| CallCosts::cost(self, from, *to).unwrap_or(f64::INFINITY);
        (0..Self::nodes(self).len()).map(|node| called.iter().map(|to| cost(node, to)).sum()).collect()
    }
}

impl CallCosts for Costs {
    fn nodes(&self) -> usize {
        Self::nodes(self).len()
    }

    fn cost(&self, from: usize, to: usize) -> Option<f64> {
        self.either(|dense| dense.cost(from, to), |sites| sites.cost(from, to))
    }

    fn unknown_cost(&self) -> f64 {
        f64::INFINITY
    }

    fn accumulate(&self, called: &[usize]) -> Vec<f64> {
        self.either(|dense| dense.accumulate(called), |sites| sites.accumulate(called))
    }
}

/// Sums that are true of a place or site are not true of the nodes there that run one of the called
/// pods themselves.
fn exact_at(costs: &impl CallCosts, called: &[usize], sums: &mut [f64]) {
    for node in called {
        if let Some(sum) = sums.get_mut(*node) {
            *sum = called.iter().map(|to| costs.cost(*node, *to).unwrap_or(costs.unknown_cost())).sum();
        }
    }
}

/// Scores every node for a pod that will call these placed pods, as the network-aware scheduler
/// plugins do: the costs to all of them are added up, the cheapest node gets 100 and the dearest 0,
/// and the others lie between in proportion. Without placed dependencies all get 100.
///
/// With measured costs, a node from which a dependency cannot be reached, or to which a way is not
/// known, gets 0; the others then get at least 1. A dependency on a node beyond the list is left
/// out: it is as far from each.
///
/// ```
/// use placement::{CostMatrix, score};
///
/// let nodes = ["a", "b", "c", "d"].map(Into::into).to_vec();
/// let costs = CostMatrix::new(nodes, ndarray::array![
///     [0.000, 0.010, 0.030, f64::NAN],
///     [0.010, 0.000, 0.020, f64::NAN],
///     [0.030, 0.020, 0.000, f64::NAN],
///     [f64::NAN, f64::NAN, f64::NAN, 0.0],
/// ]);
/// let placed = [0, 0, 2].map(|node| score::PlacedDependency { node, max_cost: 0.025 });
/// // 30, 40 and 60 ms in all; nothing is known of d.
/// assert_eq!(score::for_dependencies(&costs, &placed), [100, 67, 1, 0]);
/// let requirements = score::requirements(&costs, &placed);
/// assert_eq!((requirements[0].satisfied, requirements[0].violated), (2, 1));
/// assert!(requirements[0].fits() && !requirements[3].fits());
/// ```
#[must_use]
pub fn for_dependencies(costs: &impl CallCosts, placed: &[PlacedDependency]) -> Vec<u8> {
    let called = called(costs, placed);
    let mut scores = vec![MAX_SCORE; costs.nodes()];
    if !called.is_empty() {
        normalise(&costs.accumulate(&called), MAX_SCORE, &mut scores);
    }
    scores
}

/// Scores candidates as [`for_dependencies`] does, by position and among themselves, from 0 to
/// `best`. `scores` gets one number per candidate, as far as it is long enough; a candidate beyond
/// the list gets 0 where others are known.
pub fn dependencies_into(costs: &impl CallCosts, placed: &[PlacedDependency], candidates: &[usize], best: u8, scores: &mut [u8]) {
    let called = called(costs, placed);
    if called.is_empty() {
        scores.iter_mut().take(candidates.len()).for_each(|score| *score = best);
        return;
    }
    let sums = costs.accumulate(&called);
    let sums: Vec<f64> = candidates.iter().map(|node| sums.get(*node).copied().unwrap_or(f64::INFINITY)).collect();
    normalise(&sums, best, scores);
}

/// The nodes called, without those beyond the list.
fn called(costs: &impl CallCosts, placed: &[PlacedDependency]) -> Vec<usize> {
    placed.iter().map(|placed| placed.node).filter(|node| *node < costs.nodes()).collect()
}

/// How many of a pod's placed dependencies a node satisfies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Those that are near enough.
    pub satisfied: u32,
    /// Dependencies that are too far or at an unknown cost: unlike the plugins, which count an
    /// unknown way neither here nor there.
    pub violated: u32,
}

impl Requirements {
    /// Whether the node passes the filter: no more dependencies are violated than satisfied.
    #[must_use]
    pub fn fits(self) -> bool {
        self.violated <= self.satisfied
    }
}

/// For every node, how many of these dependencies it satisfies. A pod on the same node always does,
/// and with tables so does one in the same zone, whatever it may cost at most.
#[must_use]
pub fn requirements(costs: &impl CallCosts, placed: &[PlacedDependency]) -> Vec<Requirements> {
    (0..costs.nodes()).map(|node| met(costs, placed, node)).collect()
}

/// The same for candidates by position; `found` gets one entry per candidate, as far as it is long
/// enough.
pub fn requirements_into(costs: &impl CallCosts, placed: &[PlacedDependency], candidates: &[usize], found: &mut [Requirements]) {
    for (found, node) in found.iter_mut().zip(candidates) {
        *found = met(costs, placed, *node);
    }
}

fn met(costs: &impl CallCosts, placed: &[PlacedDependency], node: usize) -> Requirements {
    let near = |dependency: &&PlacedDependency| {
        costs.always_near(node, dependency.node)
            || costs.cost(node, dependency.node).is_some_and(|cost| cost <= dependency.max_cost)
    };
    let satisfied = placed.iter().filter(near).count();
    Requirements { satisfied: satisfied as u32, violated: (placed.len() - satisfied) as u32 }
}

/// `best` for the least, 0 for the greatest, truncated as the plugins do; lanes that do not wait
/// for each other where all nodes are looked at.
fn normalise(costs: &[f64], best: u8, scores: &mut [u8]) {
    const LANES: usize = 8;
    let mut least = [f64::INFINITY; LANES];
    let mut greatest = [f64::NEG_INFINITY; LANES];
    for chunk in costs.chunks(LANES) {
        for ((cost, least), greatest) in chunk.iter().zip(&mut least).zip(&mut greatest) {
            *least = if cost < least { *cost } else { *least };
            let cost = if *cost < f64::INFINITY { *cost } else { f64::NEG_INFINITY };
            *greatest = if cost > *greatest { cost } else { *greatest };
        }
    }
    let least = least.into_iter().fold(f64::INFINITY, f64::min);
    let greatest = greatest.into_iter().fold(f64::NEG_INFINITY, f64::max);
    // An unknown or cut-off node must stay behind the dearest known one.
    let some_hopeless = costs.iter().any(|cost| cost.is_infinite());
    let lowest = u8::from(some_hopeless).min(best);
    let most = f64::from(best);
    let scale = if greatest > least { most / (greatest - least) } else { 0.0 };
    // What is a whole number but for rounding counts as one, the dearest node's above all.
    let from_best = |cost: f64| ((cost - least) * scale + 1e-9).min(most) as u8;
    for (score, cost) in scores.iter_mut().zip(costs) {
        *score = if *cost < f64::INFINITY { (best - from_best(*cost)).max(lowest) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::NodeName;
    use crate::score::{Place, TableCost};

    fn at(nodes: &[usize]) -> Vec<PlacedDependency> {
        nodes.iter().map(|node| PlacedDependency { node: *node, max_cost: 6.0 }).collect()
    }

    #[test]
    fn tables_score_as_the_plugins_do() {
        let place = |region: &str, zone: &str| Place { region: region.into(), zone: zone.into() };
        let entry = |one: &str, other: &str, cost| TableCost { origin: one.into(), destination: other.into(), cost };
        let nodes = [("w", "z1"), ("w", "z1"), ("w", "z2"), ("e", "z3"), ("e", "z4")].map(|(region, zone)| place(region, zone));
        let costs = TopologyCosts::new(
            &nodes,
            &[entry("w", "e", 20.0), entry("e", "w", 20.0)],
            &[entry("z1", "z2", 5.0), entry("z2", "z1", 5.0), entry("z3", "z4", 10.0), entry("z4", "z3", 10.0)],
        );
        assert_eq!(costs.accumulate(&[0, 3]), [20.0, 21.0, 25.0, 20.0, 30.0]);
        assert_eq!(for_dependencies(&costs, &at(&[0, 3])), [100, 90, 50, 100, 0]);
        let fits: Vec<(u32, u32)> =
            requirements(&costs, &at(&[0, 3])).iter().map(|found| (found.satisfied, found.violated)).collect();
        assert_eq!(fits, [(1, 1), (1, 1), (1, 1), (1, 1), (0, 2)]);
        // The same zone is near enough whatever is asked for (what AppGroups ask for by default),
        // the same region is not.
        let strict = [PlacedDependency { node: 0, max_cost: 0.0 }, PlacedDependency { node: 3, max_cost: 0.0 }];
        let fits: Vec<(u32, u32)> = requirements(&costs, &strict).iter().map(|found| (found.satisfied, found.violated)).collect();
        assert_eq!(fits, [(1, 1), (1, 1), (0, 2), (1, 1), (0, 2)]);
        // All alike, and none placed.
        assert_eq!(for_dependencies(&costs, &at(&[])), [100; 5]);
    }

    #[test]
    fn known_ways_never_add_up_to_an_unknown_one() {
        let names = ["a", "b", "c"].map(NodeName::from).to_vec();
        let far = f64::NAN;
        let costs = CostMatrix::new(names.clone(), ndarray::array![[0.0, 0.08, 0.05], [0.08, 0.0, far], [0.05, far, 0.0]]);
        let placed: Vec<PlacedDependency> = (0..200).map(|_| PlacedDependency { node: 2, max_cost: 1.0 }).collect();
        // Ten seconds in all, and each way is known.
        assert_eq!(for_dependencies(&costs, &placed), [1, 0, 100]);
        // A learned access term below zero makes an unknown way no better known.
        let sites =
            SiteCosts::new(names, vec![0, 1, 1], ndarray::array![[0.0002, f64::NAN], [f64::NAN, 0.02]], vec![0.0, -0.005, 0.01]);
        assert_eq!(for_dependencies(&sites, &at(&[1])), [0, 100, 1]);
    }

    #[test]
    fn positions_beyond_the_list_are_unknown() {
        let place = |zone: &str| Place { region: "r".into(), zone: zone.into() };
        let tables = TopologyCosts::new(&[place("z1"), place("z2")], &[], &[]);
        let names = ["a", "b"].map(NodeName::from).to_vec();
        let dense = CostMatrix::new(names.clone(), ndarray::array![[0.0, 0.01], [0.01, 0.0]]);
        let sites = SiteCosts::new(names, vec![0, 1], ndarray::array![[0.0, 0.01], [0.01, 0.0]], vec![0.0; 2]);
        fn check(costs: &impl CallCosts) {
            assert_eq!((costs.cost(0, 99), costs.cost(99, 0)), (None, None));
            let gone = at(&[99]);
            assert_eq!(for_dependencies(costs, &gone), [100, 100]);
            assert_eq!(for_dependencies(costs, &at(&[0, 99])), for_dependencies(costs, &at(&[0])));
            assert_eq!(requirements(costs, &gone)[0], Requirements { satisfied: 0, violated: 1 });
            let mut scores = [7; 3];
            dependencies_into(costs, &at(&[0]), &[1, 0, 44], 10, &mut scores);
            assert!(scores[1] == 10 && scores[0] < 10 && scores[2] == 0, "{scores:?}");
            let mut found = [Requirements::default(); 1];
            requirements_into(costs, &at(&[0]), &[44, 0], &mut found);
            assert_eq!(found[0].violated, 1);
            assert_eq!(costs.accumulate(&[99])[0], costs.unknown_cost());
        }
        check(&tables);
        check(&dense);
        check(&sites);
    }

    proptest! {
        #[test]
        fn factored_sums_are_the_sums_of_pairs(
            sites in prop::collection::vec(0..3_usize, 6),
            between in prop::collection::vec(prop_oneof![6 => 0.0002..0.1_f64, 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)], 9),
            lost in (0..6_usize, 0..6_usize),
            access in prop::collection::vec(prop_oneof![4 => -0.001..0.001_f64, 1 => Just(6.0)], 6),
            called in prop::collection::vec(0..6_usize, 1..5),
        ) {
            let names: Vec<NodeName> = (0..6).map(|number| NodeName::new(format!("n{number}"))).collect();
            let costs = SiteCosts::new(names.clone(), sites, Array2::from_shape_vec((3, 3), between).unwrap(), access).without([lost]);
            let dense = CostMatrix::new(names, Array2::from_shape_fn((6, 6), |(from, to)| costs.seconds(from, to)));
            for (one, other) in costs.accumulate(&called).iter().zip(dense.accumulate(&called)) {
                prop_assert!(*one == other || (one - other).abs() < 1e-12, "{one} {other}");
            }
        }

        #[test]
        fn a_lost_pair_improves_nobody_it_concerns(
            cells in prop::collection::vec(0.0..0.1_f64, 25),
            called in prop::collection::vec(0..5_usize, 1..4),
            (node, lost) in (0..5_usize, prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0)]),
        ) {
            prop_assume!(!called.contains(&node));
            let names: Vec<NodeName> = (0..5).map(|number| NodeName::new(format!("n{number}"))).collect();
            let mut cells = Array2::from_shape_vec((5, 5), cells).unwrap();
            let before = for_dependencies(&CostMatrix::new(names.clone(), cells.clone()), &at(&called));
            cells[(node, called[0])] = lost;
            let after = for_dependencies(&CostMatrix::new(names, cells), &at(&called));
            prop_assert_eq!(after[node], 0);
            for other in (0..5).filter(|other| *other != node) {
                prop_assert!(after[other] > 0 || before[other] == 0, "{before:?} {after:?}");
            }
        }
    }
}
