//! Estimates for pairs that were not measured.
//!
//! In this order: the measurement itself; the median between the two sites plus what each node adds to it (its access term); the shortest path over
//! measured pairs, which no direct round trip should exceed. A pair for which none of these exists, or that is known not to answer, gets
//! nothing. Coordinates are not used: inside a site they are wrong by orders of magnitude.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::{NodeIndex, UnGraph};
use serde::{Deserialize, Serialize};

use crate::node::Rtt;

/// Where an estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The pair was measured.
    Measured,
    /// The median between the sites and the nodes' access terms.
    Sites,
    /// The shortest path over measured pairs: an upper bound.
    Path,
}

/// An estimated round trip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Where it comes from.
    pub origin: Origin,
    /// From 0 to 1: 1 for a measurement, more for more samples between the sites, least for a path.
    pub confidence: f64,
}

/// What is known of a network, ready to be asked for any pair. Nodes are numbers from 0.
#[derive(Clone, Debug)]
pub struct Completion {
    measured: BTreeMap<(usize, usize), f64>,
    unreachable: BTreeSet<(usize, usize)>,
    sites: Vec<Option<u32>>,
    medians: BTreeMap<(u32, u32), (f64, usize)>,
    access: Vec<f64>,
    graph: UnGraph<(), f64>,
}

/// Rounds of alternating between site medians and access terms.
const ROUNDS: usize = 3;

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
        for _ in sites {
            graph.add_node(());
        }
        for ((from, to), seconds) in &measured {
            graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), *seconds);
        }
        let mut completion = Self {
            access: vec![0.0; sites.len()],
            unreachable: unreachable.into_iter().collect(),
            sites: sites.to_vec(),
            medians: BTreeMap::new(),
            measured,
            graph,
        };
        completion.learn_medians();
        for _ in 0..ROUNDS {
            completion.learn_access();
            completion.learn_medians();
        }
        completion
    }

    fn site_pair(&self, from: usize, to: usize) -> Option<(u32, u32)> {
        let (one, other) = (self.sites[from]?, self.sites[to]?);
        Some((one.min(other), one.max(other)))
    }

    fn learn_medians(&mut self) {
        let mut samples: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
        for ((from, to), seconds) in &self.measured {
            if let Some(pair) = self.site_pair(*from, *to) {
                samples.entry(pair).or_default().push(seconds - self.access[*from] - self.access[*to]);
            }
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
            let Some((median, _)) = self.site_pair(*from, *to).and_then(|pair| self.medians.get(&pair)) else { continue };
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

    /// The estimate for an ordered pair; measurements of the other direction count where this one has none.
    #[must_use]
    pub fn estimate(&self, from: usize, to: usize) -> Option<Estimate> {
        if from >= self.sites.len() || to >= self.sites.len() || self.unreachable.contains(&(from, to)) {
            return None;
        }
        if from == to {
            return Some(Estimate { seconds: 0.0, origin: Origin::Measured, confidence: 1.0 });
        }
        if let Some(seconds) = self.measured.get(&(from, to)).or_else(|| self.measured.get(&(to, from))) {
            return Some(Estimate { seconds: *seconds, origin: Origin::Measured, confidence: 1.0 });
        }
        if let Some((median, samples)) = self.site_pair(from, to).and_then(|pair| self.medians.get(&pair)) {
            let seconds = (median + self.access[from] + self.access[to]).clamp(0.0, Rtt::ABSURD.seconds());
            let samples = *samples as f64;
            return Some(Estimate { seconds, origin: Origin::Sites, confidence: 0.9 * samples / (samples + 2.0) });
        }
        self.path(from, to)
    }

    /// The shortest way over measured pairs. One Dijkstra search: meant for the few pairs that have nothing better.
    fn path(&self, from: usize, to: usize) -> Option<Estimate> {
        let goal = NodeIndex::new(to);
        let lengths = petgraph::algo::dijkstra(&self.graph, NodeIndex::new(from), Some(goal), |edge| *edge.weight());
        let seconds = lengths.get(&goal)?.min(Rtt::ABSURD.seconds());
        Some(Estimate { seconds, origin: Origin::Path, confidence: 0.2 })
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
}
