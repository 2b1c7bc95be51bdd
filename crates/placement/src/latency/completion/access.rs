//! What is usual between two sites, and what each node adds to it.

use std::collections::BTreeMap;

use super::RttSample;

/// Rounds of alternating between site medians and access terms.
const ROUNDS: usize = 3;
/// How much of an access term is believed at first: as if one more measurement of so many seconds
/// had found nothing.
const DOUBT_SECONDS: f64 = 0.000_3;
/// How far a node may be nearer than is usual inside its site, as a share of that.
const NEARER: f64 = 0.4;

/// A measured pair of nodes.
type Way = (usize, usize, RttSample);

/// What is usual between two points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Median {
    pub(super) seconds: f64,
    /// Measurements that it rests on.
    pub(super) samples: usize,
    /// The shortest of them.
    pub(super) shortest: f64,
    /// Whether none of them is fresh.
    pub(super) stale: bool,
}

/// Medians between points and access terms of nodes: together, what a pair is expected to take.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) medians: BTreeMap<(usize, usize), Median>,
    pub(super) access: Vec<f64>,
}

impl Terms {
    /// From the point of each node, and the shortest measurement of each.
    pub(super) fn learn(points: &[usize], measured: &BTreeMap<(usize, usize), RttSample>, shortest: &[f64]) -> Self {
        let mut between: BTreeMap<(usize, usize), Vec<Way>> = BTreeMap::new();
        let mut peers: Vec<Vec<(usize, RttSample)>> = vec![Vec::new(); points.len()];
        for ((from, to), sample) in measured {
            between.entry(pair(points, *from, *to)).or_default().push((*from, *to, *sample));
            peers[*from].push((*to, *sample));
            peers[*to].push((*from, *sample));
        }
        for samples in between.values_mut() {
            // Fresh measurements supersede stale ones.
            if samples.iter().any(|(.., sample)| !sample.stale) {
                samples.retain(|(.., sample)| !sample.stale);
            }
        }
        let mut terms = Self { medians: BTreeMap::new(), access: vec![0.0; points.len()] };
        terms.medians(&between);
        for _ in 0..ROUNDS {
            terms.access(points, &peers, shortest);
            terms.medians(&between);
        }
        terms
    }

    fn medians(&mut self, between: &BTreeMap<(usize, usize), Vec<Way>>) {
        for (pair, samples) in between {
            let mut rests: Vec<f64> =
                samples.iter().map(|(from, to, sample)| sample.seconds - self.access[*from] - self.access[*to]).collect();
            rests.sort_by(f64::total_cmp);
            let shortest = samples.iter().map(|(.., sample)| sample.seconds).fold(f64::INFINITY, f64::min);
            let stale = samples.iter().all(|(.., sample)| sample.stale);
            let seconds = rests[rests.len() / 2].max(shortest);
            self.medians.insert(*pair, Median { seconds, samples: samples.len(), shortest, stale });
        }
    }

    /// What a node's measurements exceed the medians by. Long round trips are too noisy to show it,
    /// so each counts by the inverse square of what is usual between the points (not of its own
    /// length, which a wild one would gain by), and a node of which little is known stays near 0.
    /// Node by node, so that two nodes do not both take the whole of what their common measurement
    /// exceeds.
    fn access(&mut self, points: &[usize], peers: &[Vec<(usize, RttSample)>], shortest: &[f64]) {
        for node in 0..points.len() {
            let (mut sum, mut weights) = (0.0, 1.0 / (DOUBT_SECONDS * DOUBT_SECONDS));
            for (peer, sample) in &peers[node] {
                let Some(median) = self.medians.get(&pair(points, node, *peer)) else { continue };
                let weight = 1.0 / (median.seconds * median.seconds);
                sum += weight * (sample.seconds - median.seconds - self.access[*peer]);
                weights += weight;
            }
            let inside = self.medians.get(&(points[node], points[node])).map_or(0.0, |median| median.seconds);
            // It is paid by every round trip of the node, so none is shorter.
            self.access[node] = (sum / weights).clamp(-NEARER * inside, shortest[node].max(0.0));
        }
    }
}

fn pair(points: &[usize], from: usize, to: usize) -> (usize, usize) {
    let (one, other) = (points[from], points[to]);
    (one.min(other), one.max(other))
}
