//! Estimates for pairs that were not measured.
//!
//! In this order: the measurement itself; the median between the two sites plus what each node adds to it (its access term); coordinates
//! fitted to all measurements, corrected by the errors measured between neighbours; the shortest path over measured pairs. Sites are labels
//! where there are any, else learned from who is near to whom. Coordinates are only used between sites: inside one they are wrong by orders of
//! magnitude. No estimate of theirs exceeds the shortest measured path by more than a detour that real networks have. A pair for which none of these exists,
//! or that is known not to answer, gets nothing.

mod coordinates;
mod sites;

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use petgraph::graph::{NodeIndex, UnGraph};
use petgraph::unionfind::UnionFind;
use serde::{Deserialize, Serialize};

use crate::cost::{CostMatrix, CostPolicy};
use crate::site_costs::SiteCosts;
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
    /// From 0 to 1: 1 for a measurement, more for more samples between the sites or neighbours, least for a path.
    pub confidence: f64,
}

/// What is known of a network, ready to be asked for any pair. Nodes are numbers from 0.
#[derive(Clone, Debug)]
pub struct Completion {
    measured: BTreeMap<(usize, usize), f64>,
    unreachable: BTreeSet<(usize, usize)>,
    /// The site of each node, or a point of its own.
    points: Vec<usize>,
    medians: BTreeMap<(usize, usize), (f64, usize)>,
    access: Vec<f64>,
    coordinates: Option<Coordinates>,
    /// Nodes that measurements connect.
    component: Vec<usize>,
    graph: UnGraph<(), f64>,
}

/// Rounds of alternating between site medians and access terms.
const ROUNDS: usize = 3;
/// The direct way is rarely longer than this many times the shortest way over others: measured networks break the triangle inequality in one of
/// twenty cases, seldom by half.
const DETOUR: f64 = 1.5;
/// Shorter than any round trip between two machines; zeros have no logarithm.
const SHORTEST_SECONDS: f64 = 1e-6;

impl Completion {
    /// From the site of each node, where it is known, the measured pairs (from, to, seconds), and the pairs that do not answer. Measurements that
    /// are no valid [`Rtt`], of a node to itself, or of nodes beyond the list are ignored.
    ///
    /// ```
    /// use placement::completion::{Completion, Origin};
    ///
    /// // Two sites of two nodes; only one pair between the sites was measured.
    /// let sites = [Some(0), Some(0), Some(1), Some(1)];
    /// let completion = Completion::new(&sites, [(0, 1, 0.0002), (2, 3, 0.0002), (0, 2, 0.030)], []);
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
        let inside = |node: usize| node < sites.len();
        let measured: BTreeMap<(usize, usize), f64> = measured
            .into_iter()
            .filter(|(from, to, seconds)| from != to && inside(*from) && inside(*to) && Rtt::from_seconds(*seconds).is_ok())
            .map(|(from, to, seconds)| ((from, to), seconds))
            .collect();
        let mut graph = UnGraph::with_capacity(sites.len(), measured.len());
        let mut connected = UnionFind::<usize>::new(sites.len());
        for _ in sites {
            graph.add_node(());
        }
        for ((from, to), seconds) in &measured {
            graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), *seconds);
            connected.union(*from, *to);
        }
        let mut completion = Self {
            access: vec![0.0; sites.len()],
            unreachable: unreachable.into_iter().collect(),
            points: sites::points(sites, &measured),
            medians: BTreeMap::new(),
            coordinates: None,
            component: connected.into_labeling(),
            measured,
            graph,
        };
        completion.learn_medians();
        for _ in 0..ROUNDS {
            completion.learn_access();
            completion.learn_medians();
        }
        completion.fit();
        completion
    }

    /// From a latency matrix, each known pair by its cost under a policy, and the sites of its nodes in the matrix's order.
    #[must_use]
    pub fn of(matrix: &LatencyMatrix, policy: &CostPolicy, sites: &[Option<u32>]) -> Self {
        let known = matrix.pairs().indexed_iter().filter(|(_, state)| matches!(state, PairState::Known(_)));
        let silent = matrix.pairs().indexed_iter().filter(|(_, state)| matches!(state, PairState::Unreachable));
        Self::new(sites, known.map(|((from, to), state)| (from, to, policy.seconds(state))), silent.map(|(pair, _)| pair))
    }

    /// The costs of a matrix with estimates where it knows nothing. An estimate counts the more the less it is trusted: twice at confidence 0, once at
    /// 1. Choosing this gives up that an unmeasured pair costs more than every measured one.
    ///
    /// ```
    /// use placement::{CostPolicy, LatencyMatrix, PairState, PairStats, completion::Completion};
    ///
    /// let mut matrix = LatencyMatrix::new(["a1", "a2", "b1"].map(Into::into).to_vec())?;
    /// matrix.set_symmetric(&"a1".into(), &"a2".into(), PairState::Known(PairStats::constant(0.0002)))?;
    /// matrix.set_symmetric(&"a1".into(), &"b1".into(), PairState::Known(PairStats::constant(0.030)))?;
    /// let policy = CostPolicy::default();
    /// let costs = Completion::of(&matrix, &policy, &[Some(0), Some(0), Some(1)]).costs(&matrix, &policy);
    /// assert_eq!(costs.seconds(&"a1".into(), &"b1".into()), 0.030);
    /// let estimated = costs.seconds(&"a2".into(), &"b1".into());
    /// assert!(estimated > 0.030 && estimated < 0.060); // near a1, so about as far from b1
    /// # Ok::<(), placement::MatrixError>(())
    /// ```
    #[must_use]
    pub fn costs(&self, matrix: &LatencyMatrix, policy: &CostPolicy) -> CostMatrix {
        let mut seconds: Array2<f64> = matrix.pairs().map(|state| policy.seconds(state));
        for (from, mut row) in seconds.rows_mut().into_iter().enumerate() {
            if !matrix.pairs().row(from).iter().any(|state| matches!(state, PairState::Unknown)) {
                continue;
            }
            for (to, estimate) in self.estimates(from).into_iter().enumerate() {
                if let (PairState::Unknown, Some(estimate)) = (matrix.pairs()[(from, to)], estimate) {
                    row[to] = (estimate.seconds * (2.0 - estimate.confidence)).min(Rtt::ABSURD.seconds());
                }
            }
        }
        CostMatrix::new(matrix.nodes().to_vec(), seconds)
    }

    fn point_pair(&self, from: usize, to: usize) -> (usize, usize) {
        let (one, other) = (self.points[from], self.points[to]);
        (one.min(other), one.max(other))
    }

    fn learn_medians(&mut self) {
        let mut samples: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
        for ((from, to), seconds) in &self.measured {
            let sample = seconds - self.access[*from] - self.access[*to];
            samples.entry(self.point_pair(*from, *to)).or_default().push(sample);
        }
        self.medians = samples
            .into_iter()
            .map(|(pair, mut samples)| {
                samples.sort_by(f64::total_cmp);
                (pair, (samples[samples.len() / 2], samples.len()))
            })
            .collect();
    }

    /// What a node's measurements exceed the medians by. Long round trips are too noisy to show it, so each counts by the inverse square of its
    /// length, and a node of which little is known stays near 0.
    fn learn_access(&mut self) {
        let mut sums = vec![(0.0, 0.0); self.access.len()];
        for ((from, to), seconds) in &self.measured {
            let Some((median, _)) = self.medians.get(&self.point_pair(*from, *to)) else { continue };
            let weight = 1.0 / (seconds * seconds).max(1e-12);
            for (node, peer) in [(*from, *to), (*to, *from)] {
                sums[node].0 += weight * (seconds - median - self.access[peer]);
                sums[node].1 += weight;
            }
        }
        for (access, (sum, weight)) in self.access.iter_mut().zip(sums) {
            // As if one more measurement of 0.3 ms had found nothing.
            *access = sum / (weight + 1.0 / (0.0003 * 0.0003));
        }
    }

    /// Coordinates of the points, unless the medians say all there is to know.
    fn fit(&mut self) {
        let points = self.points.iter().max().map_or(0, |last| last + 1);
        let between: Vec<(usize, usize, f64)> = (self.medians.iter().filter(|((one, other), _)| one != other))
            .map(|((one, other), (median, _))| (*one, *other, median.max(SHORTEST_SECONDS)))
            .collect();
        if between.len() < points * points.saturating_sub(1) / 2 {
            self.coordinates = Some(Coordinates::fit(points, &between));
        }
    }

    /// The estimate for an ordered pair; measurements of the other direction count where this one has none.
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

    /// What measurements and sites say, which may be that there is nothing to say; nothing if they are silent.
    #[allow(clippy::option_option)]
    fn direct(&self, from: usize, to: usize) -> Option<Option<Estimate>> {
        if self.unreachable.contains(&(from, to)) {
            return Some(None);
        }
        if from == to {
            return Some(Some(Estimate { seconds: 0.0, origin: Origin::Measured, confidence: 1.0 }));
        }
        if let Some(seconds) = self.measured.get(&(from, to)).or_else(|| self.measured.get(&(to, from))) {
            return Some(Some(Estimate { seconds: *seconds, origin: Origin::Measured, confidence: 1.0 }));
        }
        let (median, samples) = self.medians.get(&self.point_pair(from, to))?;
        let seconds = (median + self.access[from] + self.access[to]).clamp(0.0, Rtt::ABSURD.seconds());
        let samples = *samples as f64;
        Some(Some(Estimate { seconds, origin: Origin::Sites, confidence: 0.9 * samples / (samples + 2.0) }))
    }

    fn evidence(&self, from: usize) -> Option<Evidence> {
        self.coordinates.as_ref()?.evidence(self.points[from])
    }

    fn indirect(&self, from: usize, evidence: Option<&Evidence>, to: usize, path: Option<f64>) -> Option<Estimate> {
        // Where no measurement leads from one to the other, nothing can be said about the way between them.
        let path = path.filter(|_| self.component[from] == self.component[to])?.min(Rtt::ABSURD.seconds());
        let (one, other) = (self.points[from], self.points[to]);
        let placed = if one == other { None } else { evidence.zip(self.coordinates.as_ref()) };
        if let Some((seconds, weight)) = placed.and_then(|(evidence, coordinates)| coordinates.estimate(one, evidence, other)) {
            let seconds = (seconds + self.access[from] + self.access[to]).clamp(0.0, DETOUR * path);
            return Some(Estimate { seconds, origin: Origin::Coordinates, confidence: 0.3 + 0.4 * weight / (weight + 0.1) });
        }
        Some(Estimate { seconds: path, origin: Origin::Path, confidence: 0.2 })
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

    /// The same in factored form: costs between sites and an access term per node, for as many names as there are nodes. What nothing is known about
    /// costs as much as an unknown pair.
    #[must_use]
    pub fn site_costs(&self, nodes: Vec<NodeName>) -> SiteCosts {
        let points = self.points.iter().max().map_or(0, |last| last + 1);
        let mut between = Array2::from_elem((points, points), Rtt::ABSURD.seconds());
        for one in 0..points {
            let evidence = self.coordinates.as_ref().and_then(|coordinates| Some((coordinates, coordinates.evidence(one)?)));
            for other in 0..points {
                let estimated =
                    || evidence.as_ref().and_then(|(coordinates, evidence)| coordinates.estimate(one, evidence, other));
                if let Some((median, _)) = self.medians.get(&(one.min(other), one.max(other))) {
                    between[(one, other)] = median.max(0.0);
                } else if let (true, Some((seconds, _))) = (one != other, estimated()) {
                    between[(one, other)] = seconds;
                }
            }
        }
        SiteCosts::new(nodes, self.points.clone(), between, self.access.clone())
    }
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
    fn a_pair_that_does_not_answer_gets_no_estimate() {
        let completion = Completion::new(&[Some(0), Some(0)], [(0, 1, 0.0002)], [(0, 1)]);
        assert_eq!(completion.estimate(0, 1), None);
        assert_eq!(completion.estimate(0, 5), None);
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
        use crate::synthetic::{Network, Random, Shape};

        let shape = Shape { sites: 20, nodes_per_site: 10, ..Shape::default() };
        let network = Network::new(shape, 3);
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
