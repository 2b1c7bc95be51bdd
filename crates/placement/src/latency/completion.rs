//! Estimates for pairs that were not measured.
//!
//! In this order: the measurement itself; the median between the two sites plus what each node adds
//! to it (its access term); coordinates fitted to all measurements, corrected by the errors
//! measured between neighbours; the shortest path over measured pairs. Sites are labels where there
//! are any, else learned from who is near to whom. Coordinates are only used between sites: inside
//! one they are wrong by orders of magnitude. No estimate of theirs exceeds the shortest measured
//! path by more than a detour that real networks have. A pair for which none of these exists, or
//! that is known not to answer, gets nothing.
//!
//! No estimate makes a node better than it was ever measured: one from coordinates or a path is no
//! shorter than the shortest round trip measured to either of its two nodes, and one from sites no
//! shorter than the shortest between them. A few wild measurements change little: access terms are
//! weighed by what is usual between the sites, and bounded.

mod access;
mod coordinates;
mod sites;

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use petgraph::graph::{NodeIndex, UnGraph};
use petgraph::unionfind::UnionFind;
use serde::{Deserialize, Serialize};

use crate::latency::SiteCosts;
use crate::latency::{CostMatrix, CostPolicy};
use access::Terms;
use coordinates::{Coordinates, Evidence};
use latency_matrix::LatencyMatrix;
use latency_matrix::PairState;
use latency_matrix::{NodeName, Rtt};

/// Where an estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The pair was measured.
    Measured,
    /// The median between the sites and the nodes' access terms.
    Sites,
    /// Coordinates, corrected by what is measured between neighbours.
    Coordinates,
    /// The shortest path over measured pairs.
    Path,
}

/// An estimated round trip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Where it comes from.
    pub origin: Origin,
    /// From 0 to 1: 1 for a measurement, more for more samples between the sites or neighbours,
    /// least for a path; half of that where it is stale.
    pub confidence: f64,
    /// Whether it rests on measurements of the pair, or between its sites, that are no longer
    /// fresh.
    pub stale: bool,
}

/// A measurement that counts: a round trip in seconds, and whether it is no longer fresh.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RttSample {
    seconds: f64,
    stale: bool,
}

/// Measurements of a network, completed to an estimate for any pair. Nodes are positions from 0.
#[derive(Clone, Debug)]
pub struct Completion {
    measured: BTreeMap<(usize, usize), RttSample>,
    unreachable: BTreeSet<(usize, usize)>,
    /// The site of each node, or a point of its own.
    points: Vec<usize>,
    /// Per node: whether its site was learned, since it has no label.
    is_learned: Vec<bool>,
    terms: Terms,
    /// Per node: the shortest round trip measured to or from it; 0 if there is none.
    shortest: Vec<f64>,
    /// Whether no measurement is fresh.
    all_stale: bool,
    coordinates: Option<Coordinates>,
    /// Nodes that measurements connect.
    component: Vec<usize>,
    graph: UnGraph<(), f64>,
}

/// The direct way is rarely longer than this many times the shortest way over others: measured
/// networks break the triangle inequality in one of twenty cases, seldom by half.
const DETOUR: f64 = 1.5;
/// Shorter than any round trip between two machines; zeros have no logarithm.
const SHORTEST_SECONDS: f64 = 1e-6;

impl Completion {
    /// From the site of each node, where it is known, the measured pairs (from, to, seconds), and
    /// the pairs that do not answer. Measurements that are no valid [`Rtt`], of a node to itself,
    /// or of nodes beyond the list are ignored.
    ///
    /// ```
    /// use placement::latency::completion::{Completion, Origin};
    ///
    /// // Two sites of two nodes; only one pair between the sites was measured.
    /// let sites = [Some(0), Some(0), Some(1), Some(1)];
    /// let completion =
    ///     Completion::new(&sites, [(0, 1, 0.0002), (2, 3, 0.0002), (0, 2, 0.030)], []);
    /// let estimate = completion.estimate(1, 3).ok_or("no estimate")?;
    /// assert_eq!(estimate.origin, Origin::Sites);
    /// assert!((estimate.seconds - 0.030).abs() < 0.001);
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn new(
        sites: &[Option<u32>],
        measured: impl IntoIterator<Item = (usize, usize, f64)>,
        unreachable: impl IntoIterator<Item = (usize, usize)>,
    ) -> Self {
        let fresh = measured.into_iter().map(|(from, to, seconds)| (from, to, RttSample { seconds, stale: false }));
        Self::from_samples(sites, fresh, unreachable.into_iter().collect())
    }

    fn from_samples(
        sites: &[Option<u32>],
        samples: impl Iterator<Item = (usize, usize, RttSample)>,
        unreachable: BTreeSet<(usize, usize)>,
    ) -> Self {
        let inside = |node: usize| node < sites.len();
        let sound = |sample: &RttSample| Rtt::from_seconds(sample.seconds).is_ok();
        let measured: BTreeMap<(usize, usize), RttSample> = samples
            .filter(|(from, to, sample)| from != to && inside(*from) && inside(*to) && sound(sample))
            // No machine answers another in no time.
            .map(|(from, to, sample)| ((from, to), RttSample { seconds: sample.seconds.max(SHORTEST_SECONDS), ..sample }))
            .collect();
        let mut shortest = vec![f64::INFINITY; sites.len()];
        let mut graph = UnGraph::with_capacity(sites.len(), measured.len());
        let mut connected = UnionFind::<usize>::new(sites.len());
        for _ in sites {
            graph.add_node(());
        }
        for ((from, to), RttSample { seconds, .. }) in &measured {
            graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), *seconds);
            connected.union(*from, *to);
            for node in [*from, *to] {
                shortest[node] = shortest[node].min(*seconds);
            }
        }
        shortest.iter_mut().filter(|seconds| seconds.is_infinite()).for_each(|seconds| *seconds = 0.0);
        let points = sites::points(sites, &measured);
        let mut completion = Self {
            terms: Terms::learn(&points, &measured, &shortest),
            unreachable,
            points,
            is_learned: sites.iter().map(Option::is_none).collect(),
            shortest,
            all_stale: measured.values().all(|sample| sample.stale),
            coordinates: None,
            component: connected.into_labeling(),
            measured,
            graph,
        };
        completion.fit();
        completion
    }

    /// From a latency matrix, each known or stale pair by its cost under a policy, and the sites of
    /// its nodes in the matrix's order. A stale pair counts as it was when it was fresh; what rests
    /// on it is trusted half as much.
    #[must_use]
    pub fn of(matrix: &LatencyMatrix, policy: &CostPolicy, sites: &[Option<u32>]) -> Self {
        let samples = matrix.pairs().indexed_iter().filter_map(|((from, to), state)| {
            let (stats, stale) = match state {
                PairState::Known(stats) => (stats, false),
                PairState::Stale(stats) => (stats, true),
                PairState::Unknown | PairState::Unreachable => return None,
            };
            Some((from, to, RttSample { seconds: policy.seconds(&PairState::Known(*stats)), stale }))
        });
        let silent = matrix.pairs().indexed_iter().filter(|(_, state)| matches!(state, PairState::Unreachable));
        Self::from_samples(sites, samples, silent.map(|(pair, _)| pair).collect())
    }

    /// The costs of a matrix with estimates where it knows nothing. A pair that is measured in the
    /// other direction only costs the same in this one: a round trip is the same loop. An estimate
    /// counts the more the less it is trusted: twice at confidence 0, once at 1; one that is stale
    /// at least as many times as a stale pair does. Choosing this gives up that an unmeasured pair
    /// costs more than every measured one.
    ///
    /// ```
    /// use placement::{CostPolicy, LatencyMatrix};
    /// use placement::latency::{PairState, PairStats, completion::Completion};
    ///
    /// let mut matrix = LatencyMatrix::new(["a1", "a2", "b1"].map(Into::into).to_vec())?;
    /// matrix.set_symmetric(
    ///     &"a1".into(),
    ///     &"a2".into(),
    ///     PairState::Known(PairStats::constant(0.0002)),
    /// )?;
    /// matrix.set_symmetric(
    ///     &"a1".into(),
    ///     &"b1".into(),
    ///     PairState::Known(PairStats::constant(0.030)),
    /// )?;
    /// let policy = CostPolicy::default();
    /// let costs =
    ///     Completion::of(&matrix, &policy, &[Some(0), Some(0), Some(1)]).costs(&matrix, &policy);
    /// assert_eq!(costs.seconds(&"a1".into(), &"b1".into()), 0.030);
    /// let estimated = costs.seconds(&"a2".into(), &"b1".into());
    /// assert!(estimated > 0.030 && estimated < 0.060); // near a1, so about as far from b1
    /// # Ok::<(), placement::latency::MatrixError>(())
    /// ```
    #[must_use]
    pub fn costs(&self, matrix: &LatencyMatrix, policy: &CostPolicy) -> CostMatrix {
        let mut seconds: Array2<f64> = matrix.pairs().map(|state| policy.seconds(state));
        for (from, mut row) in seconds.rows_mut().into_iter().enumerate() {
            if !matrix.pairs().row(from).iter().any(|state| matches!(state, PairState::Unknown)) {
                continue;
            }
            // More sites may be given than there are nodes.
            for (to, (state, estimate)) in matrix.pairs().row(from).iter().zip(self.estimates(from)).enumerate() {
                if let (PairState::Unknown, Some(estimate)) = (state, estimate) {
                    let doubt = match estimate.origin {
                        // It costs what it costs in the other direction.
                        Origin::Measured => 1.0,
                        _ => 2.0 - estimate.confidence,
                    };
                    let age = if estimate.stale { policy.stale_factor.max(1.0) } else { 1.0 };
                    row[to] = (estimate.seconds * doubt.max(age)).min(Rtt::ABSURD.seconds());
                }
            }
        }
        CostMatrix::new(matrix.nodes().to_vec(), seconds)
    }

    fn point_pair(&self, from: usize, to: usize) -> (usize, usize) {
        let (one, other) = (self.points[from], self.points[to]);
        (one.min(other), one.max(other))
    }

    /// Coordinates of the points, unless the medians say all there is to know.
    fn fit(&mut self) {
        let points = self.points.iter().max().map_or(0, |last| last + 1);
        let between: Vec<(usize, usize, f64)> = (self.terms.medians.iter().filter(|((one, other), _)| one != other))
            .map(|((one, other), median)| (*one, *other, median.seconds))
            .collect();
        if between.len() < points * points.saturating_sub(1) / 2 {
            self.coordinates = Some(Coordinates::fit(points, &between));
        }
    }

    /// The estimate for an ordered pair; measurements of the other direction count where this one
    /// has none.
    #[must_use]
    pub fn estimate(&self, from: usize, to: usize) -> Option<Estimate> {
        if from >= self.points.len() || to >= self.points.len() {
            return None;
        }
        self.direct(from, to).unwrap_or_else(|| {
            let path = self.paths(from, Some(to))[to];
            self.indirect(from, self.evidence(from).as_ref(), to, path)
        })
    }

    /// The estimates from one node to all, in their order: cheaper than to ask for each.
    #[must_use]
    pub fn estimates(&self, from: usize) -> Vec<Option<Estimate>> {
        if from >= self.points.len() {
            return Vec::new();
        }
        let mut indirect = None;
        (0..self.points.len())
            .map(|to| {
                self.direct(from, to).unwrap_or_else(|| {
                    let (evidence, paths) = indirect.get_or_insert_with(|| (self.evidence(from), self.paths(from, None)));
                    self.indirect(from, evidence.as_ref(), to, paths[to])
                })
            })
            .collect()
    }

    /// What measurements and sites say, which may be that there is nothing to say; nothing if they
    /// are silent.
    #[allow(clippy::option_option)]
    fn direct(&self, from: usize, to: usize) -> Option<Option<Estimate>> {
        if self.unreachable.contains(&(from, to)) {
            return Some(None);
        }
        if from == to {
            return Some(Some(Estimate { seconds: 0.0, origin: Origin::Measured, confidence: 1.0, stale: false }));
        }
        if let Some(RttSample { seconds, stale }) = self.measured.get(&(from, to)).or_else(|| self.measured.get(&(to, from))) {
            let confidence = trust(1.0, *stale);
            return Some(Some(Estimate { seconds: *seconds, origin: Origin::Measured, confidence, stale: *stale }));
        }
        // It is the same loop.
        if self.unreachable.contains(&(to, from)) {
            return Some(None);
        }
        let median = self.terms.medians.get(&self.point_pair(from, to))?;
        let seconds = median.seconds + self.terms.access[from] + self.terms.access[to];
        // Who is in a learned site was measured to somebody there.
        let own = |node: usize| if self.is_learned[node] { self.shortest[node] } else { 0.0 };
        let shortest = median.shortest.max(own(from)).max(own(to));
        let seconds = seconds.clamp(shortest.min(Rtt::ABSURD.seconds()), Rtt::ABSURD.seconds());
        let samples = median.samples as f64;
        let confidence = trust(0.9 * samples / (samples + 2.0), median.stale);
        Some(Some(Estimate { seconds, origin: Origin::Sites, confidence, stale: median.stale }))
    }

    fn evidence(&self, from: usize) -> Option<Evidence> {
        self.coordinates.as_ref()?.evidence(self.points[from])
    }

    fn indirect(&self, from: usize, evidence: Option<&Evidence>, to: usize, path: Option<f64>) -> Option<Estimate> {
        // Where no measurement leads from one to the other, nothing is known about the way
        // between them.
        let path = path.filter(|_| self.component[from] == self.component[to])?.min(Rtt::ABSURD.seconds());
        let (one, other) = (self.points[from], self.points[to]);
        let placed = if one == other { None } else { evidence.zip(self.coordinates.as_ref()) };
        if let Some((seconds, weight)) = placed.and_then(|(evidence, coordinates)| coordinates.estimate(one, evidence, other)) {
            // The path begins and ends with a measurement of either node, so it is no shorter than
            // the shortest of these.
            let shortest = self.shortest[from].max(self.shortest[to]);
            let seconds = (seconds + self.terms.access[from] + self.terms.access[to]).max(shortest).min(DETOUR * path);
            let confidence = trust(0.3 + 0.4 * weight / (weight + 0.1), self.all_stale);
            return Some(Estimate { seconds, origin: Origin::Coordinates, confidence, stale: self.all_stale });
        }
        Some(Estimate { seconds: path, origin: Origin::Path, confidence: trust(0.2, self.all_stale), stale: self.all_stale })
    }

    /// The shortest ways over measured pairs from one node.
    fn paths(&self, from: usize, goal: Option<usize>) -> Vec<Option<f64>> {
        let lengths =
            petgraph::algo::dijkstra(&self.graph, NodeIndex::new(from), goal.map(NodeIndex::new), |edge| *edge.weight());
        let mut paths = vec![None; self.points.len()];
        for (node, length) in lengths {
            paths[node.index()] = Some(length);
        }
        paths
    }

    /// The same in factored form: costs between sites and an access term per node, for as many
    /// names as there are nodes. What nothing is known about costs as much as an unknown pair, and
    /// pairs that do not answer are cut.
    #[must_use]
    pub fn site_costs(&self, nodes: Vec<NodeName>) -> SiteCosts {
        let points = self.points.iter().max().map_or(0, |last| last + 1);
        let mut between = Array2::from_elem((points, points), Rtt::ABSURD.seconds());
        let mut shortest = vec![Rtt::ABSURD.seconds(); points];
        for (point, seconds) in self.points.iter().zip(&self.shortest) {
            shortest[*point] = shortest[*point].min(*seconds);
        }
        let mut floors = Array2::zeros((points, points));
        for one in 0..points {
            let evidence = self.coordinates.as_ref().and_then(|coordinates| Some((coordinates, coordinates.evidence(one)?)));
            for other in 0..points {
                let estimated =
                    || evidence.as_ref().and_then(|(coordinates, evidence)| coordinates.estimate(one, evidence, other));
                if let Some(median) = self.terms.medians.get(&(one.min(other), one.max(other))) {
                    between[(one, other)] = median.seconds;
                    floors[(one, other)] = median.shortest;
                } else if let (true, Some((seconds, _))) = (one != other, estimated()) {
                    floors[(one, other)] = shortest[one].max(shortest[other]);
                    between[(one, other)] = seconds.max(floors[(one, other)]);
                }
            }
        }
        // Loops that are known to be broken are broken for either end.
        let known = |pair: &(usize, usize)| self.measured.contains_key(pair);
        let cut = (self.unreachable.iter().copied())
            .chain(self.unreachable.iter().map(|(from, to)| (*to, *from)).filter(|pair| !known(pair)));
        SiteCosts::floored(nodes, self.points.clone(), between, self.terms.access.clone(), &floors).without(cut)
    }
}

/// Stale knowledge is trusted half as much.
fn trust(confidence: f64, stale: bool) -> f64 {
    if stale { confidence / 2.0 } else { confidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_infects_nothing() {
        let sites = [Some(0), Some(0), Some(1)];
        let clean = [(0, 1, 0.0002), (0, 2, 0.030)];
        let spoilt = [(1, 2, f64::NAN), (2, 1, -0.004), (1, 0, f64::INFINITY), (7, 0, 0.001), (2, 2, 0.5)];
        let expected = Completion::new(&sites, clean, []).estimate(1, 2);
        assert_eq!(Completion::new(&sites, clean.into_iter().chain(spoilt), []).estimate(1, 2), expected);
        assert!(expected.unwrap().seconds.is_finite());
    }

    #[test]
    fn more_sites_than_nodes_are_no_panic() {
        let matrix = LatencyMatrix::new(["a", "b"].map(Into::into).to_vec()).unwrap();
        let policy = CostPolicy::default();
        let costs = Completion::of(&matrix, &policy, &[Some(0), Some(0), None]).costs(&matrix, &policy);
        assert_eq!(costs.at(0, 1), 10.0);
    }

    #[test]
    fn costs_by_site_are_no_shorter_than_what_was_measured_between_the_sites() {
        // Node 1 is far nearer to its own site than is usual there, and the sites are near.
        let inside = [(0, 2, 0.010), (2, 3, 0.010), (0, 3, 0.010), (1, 0, 0.001), (1, 2, 0.001), (1, 3, 0.001)];
        let measured = inside.into_iter().chain([(0, 4, 0.0005), (2, 4, 0.0005)]);
        let sites = [Some(0), Some(0), Some(0), Some(0), Some(1)];
        let completion = Completion::new(&sites, measured, []);
        let nodes = (0..5).map(|node| NodeName::new(format!("n{node}"))).collect();
        let costs = completion.site_costs(nodes);
        assert!(costs.seconds(1, 4) >= 0.0005, "{}", costs.seconds(1, 4));
    }

    #[test]
    fn a_pair_that_does_not_answer_gets_no_estimate() {
        let completion = Completion::new(&[Some(0), Some(0)], [(0, 1, 0.0002)], [(0, 1)]);
        assert_eq!(completion.estimate(0, 1), None);
        assert_eq!(completion.estimate(0, 5), None);
    }

    #[test]
    fn one_wild_measurement_moves_no_node() {
        let clean =
            [(0, 1, 2e-4), (1, 2, 2e-4), (3, 4, 2e-4), (4, 5, 2e-4), (0, 3, 0.03), (1, 4, 0.03), (2, 5, 0.03), (1, 5, 0.03)];
        let sites = [Some(0), Some(0), Some(0), Some(1), Some(1), Some(1)];
        for wild in [1e-5, 1e-4, 1e-3] {
            let completion = Completion::new(&sites, clean.into_iter().chain([(0, 4, wild)]), []);
            for (from, to) in [(0, 2), (0, 5), (1, 3), (2, 4), (3, 5), (2, 3)] {
                let truth = if sites[from] == sites[to] { 2e-4 } else { 0.03 };
                let seconds = completion.estimate(from, to).unwrap().seconds;
                assert!((seconds - truth).abs() < 0.1 * truth, "{from} {to}: {seconds} with {wild}");
            }
        }
        // A node of which only the wild measurement is known.
        let completion =
            Completion::new(&sites, clean[1..4].iter().copied().chain([(1, 5, 0.03), (2, 5, 0.03), (0, 4, 1e-3)]), []);
        let inside = completion.estimate(0, 2).unwrap().seconds;
        assert!((inside - 2e-4).abs() < 5e-5, "{inside}");
        // Without labels it is not taken for a neighbour of both.
        let completion = Completion::new(&[None; 6], clean.into_iter().chain([(0, 4, 1e-5), (0, 5, 0.03), (2, 4, 0.03)]), []);
        let far = completion.estimate(2, 3).unwrap().seconds;
        assert!((far - 0.03).abs() < 0.003, "{far}");
    }

    #[test]
    fn half_a_millisecond_is_not_shown_for_a_tenth() {
        // A 0.10 ms link between nodes whose other round trips are tens of milliseconds
        // (hashicorp/consul#8337 showed 0.46).
        let far = (2..12).flat_map(|peer| [(0, peer, 0.02 + 0.003 * peer as f64), (1, peer, 0.0201 + 0.003 * peer as f64)]);
        let completion = Completion::new(&[None; 12], far.chain([(1, 0, 1e-4)]), []);
        let estimate = completion.estimate(0, 1).unwrap();
        assert_eq!((estimate.seconds, estimate.origin), (1e-4, Origin::Measured));
    }

    #[test]
    fn a_learned_site_makes_no_node_better_than_it_was_measured() {
        let mut sites = [None; 12];
        let measured = [(9, 0, 8.35e-5), (9, 1, 5.77e-5)];
        let estimate = Completion::new(&sites, measured, []).estimate(0, 1).unwrap();
        assert!(estimate.origin == Origin::Sites && estimate.seconds >= 8.35e-5, "{estimate:?}");
        // Somebody said of labelled ones that they are alike.
        sites.fill(Some(0));
        let estimate = Completion::new(&sites, measured, []).estimate(0, 1).unwrap();
        assert!(estimate.origin == Origin::Sites && estimate.seconds >= 5.77e-5, "{estimate:?}");
    }

    #[test]
    fn stale_pairs_are_not_forgotten() {
        use crate::LatencyMatrix;
        use crate::latency::{PairState, PairStats};

        let mut matrix = LatencyMatrix::new(["a1", "a2", "b1"].map(Into::into).to_vec()).unwrap();
        let stale = |seconds| PairState::Stale(PairStats { age_seconds: 100.0, ..PairStats::constant(seconds) });
        matrix.set(&"a1".into(), &"a2".into(), stale(0.0002)).unwrap();
        matrix.set(&"a1".into(), &"b1".into(), stale(0.030)).unwrap();
        let policy = CostPolicy::default();
        let costs = Completion::of(&matrix, &policy, &[Some(0), Some(0), Some(1)]).costs(&matrix, &policy);
        let seconds = |from: &str, to: &str| costs.seconds(&from.into(), &to.into());
        // The measured pair, the same loop from the other end, and what follows from it.
        assert!((seconds("a1", "b1") - 0.045).abs() < 1e-9 && (seconds("b1", "a1") - 0.045).abs() < 1e-9);
        assert!(seconds("a2", "b1") >= 0.045 - 1e-3 && seconds("a2", "b1") <= 0.061, "{}", seconds("a2", "b1"));
        // A fresh measurement counts before stale ones.
        matrix.set(&"a1".into(), &"b1".into(), PairState::Known(PairStats::constant(0.010))).unwrap();
        let estimate = Completion::of(&matrix, &policy, &[Some(0), Some(0), Some(1)]).estimate(1, 2).unwrap();
        assert!(!estimate.stale && estimate.seconds < 0.011);
    }

    #[test]
    fn a_loop_that_is_broken_is_broken_for_both() {
        let sites = [Some(0), Some(0), Some(1), Some(1)];
        let completion = Completion::new(&sites, [(0, 1, 2e-4), (0, 2, 0.03)], [(1, 3)]);
        assert_eq!((completion.estimate(1, 3), completion.estimate(3, 1)), (None, None));
        let costs = completion.site_costs(["a", "b", "c", "d"].map(Into::into).to_vec());
        assert!(costs.seconds(1, 3).is_infinite() && costs.seconds(3, 1).is_infinite());
        assert!((costs.seconds(0, 3) - 0.03).abs() < 0.001);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn no_node_is_better_than_it_was_ever_measured(
            measured in proptest::collection::vec((0..12_usize, 0..12_usize, 1e-6..0.2_f64), 1..60),
            labelled in proptest::bool::ANY,
        ) {
            let sites: Vec<Option<u32>> = (0..12).map(|node| labelled.then_some(node % 4)).collect();
            let measured: Vec<(usize, usize, f64)> = measured.into_iter().filter(|(from, to, _)| from != to).collect();
            let completion = Completion::new(&sites, measured.iter().copied(), []);
            let last: BTreeMap<(usize, usize), f64> = measured.iter().map(|(from, to, seconds)| ((*from, *to), *seconds)).collect();
            let shortest = |node: usize| {
                last.iter().filter(|((from, to), _)| *from == node || *to == node).map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min)
            };
            for from in 0..12 {
                for to in (0..12).filter(|to| *to != from) {
                    let Some(estimate) = completion.estimate(from, to) else { continue };
                    proptest::prop_assert!(estimate.seconds >= 1e-6 && estimate.seconds <= 10.0);
                    let least = if estimate.origin == Origin::Sites && labelled {
                        let between = |pair: &(usize, usize)| {
                            [(sites[pair.0], sites[pair.1]), (sites[pair.1], sites[pair.0])].contains(&(sites[from], sites[to]))
                        };
                        last.iter().filter(|(pair, _)| between(pair)).map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min)
                    } else {
                        shortest(from).max(shortest(to))
                    };
                    proptest::prop_assert!(estimate.seconds >= least - 1e-12, "{from} {to} {estimate:?} {least}");
                }
            }
        }
    }

    #[test]
    fn without_sites_paths_bound_from_above() {
        let completion = Completion::new(&[None; 4], [(0, 1, 0.010), (1, 2, 0.015)], []);
        let estimate = completion.estimate(2, 0).unwrap();
        assert_eq!((estimate.seconds, estimate.origin), (0.025, Origin::Path));
        assert_eq!(completion.estimate(0, 3), None);
    }

    #[test]
    fn without_labels_sites_are_learned_and_coordinates_fill_the_rest() {
        use crate::latency::synthetic::{Random, Shape, SyntheticNetwork};

        let shape = Shape { sites: 20, nodes_per_site: 10, ..Shape::default() };
        let network = SyntheticNetwork::new(shape, 3);
        let mut random = Random::new(5);
        let measured: Vec<(usize, usize, f64)> = (0..200 * 6)
            .map(|number| (number / 6, random.below(200)))
            .chain((0..200).map(|node| (node, node / 10 * 10)))
            .map(|(from, to)| (from, to, network.measured_seconds(from, to, 0)))
            .collect();
        // Keep two sites from meeting directly, so that only coordinates can tell.
        let apart = |(from, to, _): &(usize, usize, f64)| !matches!((from / 10, to / 10), (3, 8) | (8, 3));
        let completion = Completion::new(&[None; 200], measured.into_iter().filter(apart), []);
        let row = completion.estimates(31);
        for (to, known) in row.iter().enumerate() {
            let estimate = known.unwrap();
            let truth = network.rtt_seconds(31, to);
            if to / 10 == 8 {
                assert_eq!(estimate.origin, Origin::Coordinates);
                assert!(estimate.seconds > truth / 3.0 && estimate.seconds < truth * 3.0);
            } else {
                assert!(matches!(estimate.origin, Origin::Measured | Origin::Sites), "{to}: {estimate:?}");
                assert!((estimate.seconds - truth).abs() < 0.25 * truth + 0.000_2, "{to}: {estimate:?}, truth {truth}");
            }
            assert_eq!(completion.estimate(31, to), *known);
        }
    }
}
