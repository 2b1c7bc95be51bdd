//! Zones, and the share that one node may have: kept as far as there is room, and said where not.
//!
//! Both are wishes. A pod that breaks one serves more than a pod that runs nowhere.

use std::collections::{BTreeMap, BTreeSet};

use latency_matrix::NodeName;
use placement::plan::ZoneReason;
use serde::{Deserialize, Serialize};

use super::{RevisionPlacement, Standing, reason_text};
use crate::rollout::Counts;
use crate::room::NodeRoom;

/// The label that names a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// In larger clusters at least this many nodes of each zone are candidates.
const NODES_PER_ZONE: usize = 4;

/// A node that has more than the allowed share of the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMissed {
    /// Pods that the share allows on one node.
    pub allowed: u32,
    /// The node that has the most.
    pub node: NodeName,
    /// Pods there.
    pub pods: u32,
}

/// The zones that a revision asks for pods in.
pub(super) struct Zones<'a> {
    /// Zone of each node, in the order of the capacities.
    of: Vec<Option<&'a str>>,
    /// How many zones are asked for.
    pub(super) asked: u32,
}

impl<'a> Zones<'a> {
    /// `None` where one zone is enough.
    pub(super) fn new(room: &'a [NodeRoom], asked: u32) -> Option<Self> {
        let zone = |room: &'a NodeRoom| room.labels.get(ZONE_LABEL).map(String::as_str).filter(|zone| !zone.is_empty());
        (asked > 1).then(|| Self { of: room.iter().map(zone).collect(), asked })
    }

    /// Every node's zone by name.
    pub(super) fn by_node(&self, standing: &Standing) -> Vec<(NodeName, String)> {
        let nodes = standing.capacities.iter().zip(&self.of);
        nodes.filter_map(|(capacity, zone)| Some((capacity.node.clone(), (*zone)?.to_owned()))).collect()
    }

    fn zone(&self, standing: &Standing, node: &NodeName) -> Option<&'a str> {
        self.of.get(standing.position(node)?).copied().flatten()
    }

    /// Whether these pods are in as many zones as asked for.
    pub(super) fn are_met(&self, standing: &Standing, pods: &Counts) -> bool {
        self.in_use(standing, pods) >= self.asked as usize
    }

    /// Whether these pods are in as many zones as there can be.
    pub(super) fn are_best(&self, standing: &Standing, pods: &Counts) -> bool {
        self.in_use(standing, pods) >= self.possible(standing, pods.values().sum())
    }

    fn in_use(&self, standing: &Standing, pods: &Counts) -> usize {
        let zones = pods.iter().filter(|(_, count)| **count > 0).filter_map(|(node, _)| self.zone(standing, node));
        zones.collect::<BTreeSet<_>>().len()
    }

    /// The number of zones that `pods` pods can be in, at most the number asked for.
    fn possible(&self, standing: &Standing, pods: u32) -> usize {
        let open = standing.capacities.iter().zip(&self.of).filter(|(capacity, _)| standing.limit(&capacity.node) > 0);
        let zones: BTreeSet<&str> = open.filter_map(|(_, zone)| *zone).collect();
        zones.len().min(self.asked as usize).min(pods as usize)
    }

    /// What runs, less the pods that a plan needs for zones that have none. They serve until others
    /// are ready in their stead.
    pub(super) fn release(&self, standing: &Standing, replicas: u32) -> Counts {
        let mut running = standing.running.clone();
        let possible = self.possible(standing, replicas);
        loop {
            let total: u32 = running.values().sum();
            if self.in_use(standing, &running) + replicas.saturating_sub(total) as usize >= possible {
                return running;
            }
            let mut by_zone: BTreeMap<&str, u32> = BTreeMap::new();
            for (node, count) in &running {
                if let Some(zone) = self.zone(standing, node) {
                    *by_zone.entry(zone).or_default() += count;
                }
            }
            let pods_of_zone = |node: &NodeName| self.zone(standing, node).map_or(u32::MAX, |zone| by_zone[zone]);
            let fullest = running.iter().filter(|(node, count)| **count > 0 && pods_of_zone(node) > 1);
            let Some(node) = fullest.max_by_key(|(node, count)| (pods_of_zone(node), **count)).map(|(node, _)| node.clone())
            else {
                return running;
            };
            if let Some(count) = running.get_mut(&node) {
                *count -= 1;
            }
            running.retain(|_, count| *count > 0);
        }
    }

    /// Adds to the nodes that a plan looks at the nearest of each zone that have room.
    pub(super) fn add_candidates(&self, standing: &Standing, chosen: &mut BTreeSet<usize>, seconds: impl Fn(usize) -> f64) {
        let mut by_zone: BTreeMap<&str, Vec<(f64, usize)>> = BTreeMap::new();
        for (position, zone) in self.of.iter().enumerate() {
            if let Some(zone) = zone
                && standing.capacities[position].limit(0) > 0
            {
                by_zone.entry(zone).or_default().push((seconds(position), position));
            }
        }
        for nodes in by_zone.values_mut() {
            nodes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            chosen.extend(nodes.iter().take(NODES_PER_ZONE).map(|(_, position)| *position));
        }
    }
}

/// How many of `replicas` pods a share allows on one node; one at least.
fn allowed(share: f64, replicas: u32) -> u32 {
    ((share * f64::from(replicas) + 1e-9) as u32).max(1)
}

/// Bounds the pods per node to the share that one may have, or to the least more with which all
/// find a place.
pub(super) fn bound_by_share(share: f64, standing: &mut Standing, replicas: u32) {
    let limits: Vec<u32> = standing.capacities.iter().map(|capacity| standing.limit(&capacity.node)).collect();
    let is_enough = |most: u32| limits.iter().map(|limit| u64::from(*limit.min(&most))).sum::<u64>() >= u64::from(replicas);
    let (mut low, mut high) = (allowed(share, replicas), replicas.max(1));
    if !is_enough(high) {
        return;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if is_enough(middle) { high = middle } else { low = middle + 1 }
    }
    for capacity in &mut standing.capacities {
        capacity.max_replicas = capacity.max_replicas.min(high);
    }
}

/// The node that has more than its share, where one has.
pub(super) fn share_missed(share: Option<f64>, pods: &Counts, replicas: u32) -> Option<ShareMissed> {
    let allowed = allowed(share?, replicas);
    let (node, count) = pods.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > allowed)?;
    Some(ShareMissed { allowed, node: node.clone(), pods: *count })
}

impl RevisionPlacement {
    /// Which wishes are not met and why, as a message.
    #[must_use]
    pub fn unmet_wishes(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(missing) = &self.zones_missing {
            let reasons = missing.reasons.iter().map(|(zone, reason)| match reason {
                ZoneReason::NoReplica => format!("{zone}: too few pods"),
                ZoneReason::NoRoom(nodes) => match nodes.first_key_value() {
                    Some((node, why)) => format!("{zone}: no room on its {} nodes ({node}: {})", nodes.len(), reason_text(why)),
                    None => format!("{zone}: no room"),
                },
            });
            let reasons: Vec<String> = reasons.take(super::MOST_REASONS).collect();
            let why = if reasons.is_empty() { "no node is in another zone".to_owned() } else { reasons.join("; ") };
            words.push(format!("pods are in {} of {} zones ({why})", missing.used, missing.asked));
        }
        if let Some(ShareMissed { allowed, node, pods }) = &self.share_missed {
            words.push(format!("{node} has {pods} pods, more than its share of {allowed}: the other nodes have no room"));
        }
        words
    }
}
