//! The nodes that a plan looks at, so that its time does not grow with the cluster.

use std::collections::BTreeSet;

use latency_matrix::NodeName;

use super::wishes::Zones;
use super::{Question, Standing};
use crate::picture::Network;

/// In larger clusters the candidates are the nodes in use, the sources, and this many nodes near
/// each.
const NEAR_NODES: usize = 8;
/// Up to this many nodes, all are candidates.
const FEW_NODES: usize = 48;

/// The nodes that a plan looks at.
pub(super) struct LookedAt {
    /// Their positions.
    pub(super) nodes: Vec<usize>,
    /// Per source, how far the nodes that have room and are not among them are at least, in
    /// seconds.
    pub(super) farthest: Vec<f64>,
}

/// All of few nodes; of many those in use, the sources, and the nearest to each source that have
/// room.
pub(super) fn candidates(network: &Network, standing: &Standing, zones: Option<&Zones<'_>>, question: &Question<'_>) -> LookedAt {
    let all = standing.capacities.len();
    let everything = || LookedAt { nodes: (0..all).collect(), farthest: vec![0.0; question.demand.len()] };
    if all <= FEW_NODES || question.demand.is_empty() {
        return everything();
    }
    let mut farthest = vec![0.0; question.demand.len()];
    let position = |node: &NodeName| standing.position(node);
    let mut chosen: BTreeSet<usize> = standing.running.keys().filter_map(position).collect();
    let is_open = |position: usize| standing.capacities[position].limit(0) > 0;
    let mut near: Vec<(f64, usize)> = Vec::with_capacity(all);
    for (number, (node, _)) in question.demand.iter().enumerate() {
        let Some(source) = position(node) else { continue };
        if is_open(source) {
            chosen.insert(source);
        }
        near.clear();
        near.extend((0..all).filter(|other| is_open(*other)).map(|other| (network.costs.at(source, other), other)));
        let kept = NEAR_NODES.min(near.len());
        if kept > 0 && kept < near.len() {
            near.select_nth_unstable_by(kept, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        }
        farthest[number] = near.iter().take(kept).map(|(seconds, _)| *seconds).fold(0.0, f64::max);
        chosen.extend(near.iter().take(kept).map(|(_, position)| *position));
    }
    if let Some(zones) = zones {
        let sources: Vec<(usize, f64)> =
            question.demand.iter().filter_map(|(node, load)| Some((position(node)?, *load))).collect();
        let seconds = |other| sources.iter().map(|(source, load)| load * network.costs.at(*source, other)).sum();
        zones.add_candidates(standing, &mut chosen, seconds);
    }
    let room: u64 = chosen.iter().map(|position| u64::from(standing.limit_at(*position))).sum();
    if room < u64::from(question.replicas) {
        return everything();
    }
    LookedAt { nodes: chosen.into_iter().collect(), farthest }
}
