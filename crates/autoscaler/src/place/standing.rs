//! How a revision stands: its pods per node, and how many each node may have.

use std::collections::BTreeMap;

use latency_matrix::NodeName;
use placement::NodeCapacity;
use placement::problem::Exclusion;

use crate::memory::{Memory, RevisionMemory};
use crate::picture::{Facts, Picture};
use crate::rollout::{Counts, Maker, Pod};
use crate::room::{Admission, admission};

/// What one decision knows of a revision's pods and of the room for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Pods per node that run or are on their way to a node that takes them.
    pub(crate) running: Counts,
    /// Pods per node that exist, bound or made for it.
    pub(crate) existing: Counts,
    /// Pods per node that are bound to it, whose room is taken.
    pub(crate) bound: Counts,
    /// Ready pods per node.
    pub(crate) ready: Counts,
    /// Pods that are ready, or on nodes whose kubelet is silent: Kubernetes marks those not ready,
    /// but they may serve.
    pub(crate) may_serve: u32,
    /// Counts on nodes whose kubelet is silent.
    pub(crate) kept: Counts,
    /// Per node, in the order of the network, how many pods it may have.
    pub(crate) capacities: Vec<NodeCapacity>,
    /// Nodes that count for a spread of the pods over nodes.
    pub(super) domains: u32,
    /// Whether one of these takes no new pod.
    pub(super) has_closed: bool,
}

impl Standing {
    /// How many pods may be on `node`.
    pub(crate) fn limit(&self, node: &NodeName) -> u32 {
        self.position(node).map_or(0, |position| self.limit_at(position))
    }

    /// How many pods may be on the node at this position.
    pub(super) fn limit_at(&self, position: usize) -> u32 {
        let capacity = &self.capacities[position];
        // What runs there matters for a node that takes no new pods.
        let running = if capacity.schedulable { 0 } else { self.running.get(&capacity.node).copied().unwrap_or(0) };
        capacity.limit(running)
    }

    pub(super) fn position(&self, node: &NodeName) -> Option<usize> {
        self.capacities.binary_search_by(|capacity| capacity.node.cmp(node)).ok()
    }
}

/// A revision's pods on one node.
#[derive(Clone, Copy, Default)]
struct Here {
    /// How many its Seika asks for.
    told: u32,
    existing: u32,
    bound: u32,
    ready: u32,
    bootstrap: u32,
}

impl Here {
    fn add(&mut self, pod: &Pod) {
        self.existing += 1;
        self.bound += u32::from(pod.node.is_some());
        self.ready += u32::from(pod.is_ready);
        self.bootstrap += u32::from(pod.maker == Maker::Deployment);
    }
}

/// Looks at a revision's pods and at the room that the others leave it.
pub(crate) fn stand(picture: &Picture, facts: &Facts, all: &Memory, memory: &RevisionMemory) -> Standing {
    let now = picture.now.monotonic;
    let position = |node: &NodeName| picture.room.binary_search_by(|room| room.node.cmp(node));
    let mut pods = vec![Here::default(); picture.room.len()];
    // Pods on nodes that are not there any more.
    let mut elsewhere: BTreeMap<&NodeName, Here> = BTreeMap::new();
    for pod in &facts.pods {
        if let Some(node) = pod.place() {
            let here = position(node).map_or_else(|_| elsewhere.entry(node).or_default(), |position| &mut pods[position]);
            here.add(pod);
        }
    }
    for (node, told) in &facts.seika {
        if let Ok(position) = position(node) {
            pods[position].told = *told;
        }
    }
    let counted = |count: fn(&Here) -> u32| -> Counts {
        let known = picture.room.iter().map(|room| &room.node).zip(&pods);
        let all = known.chain(elsewhere.iter().map(|(node, here)| (*node, here)));
        all.filter(|(_, here)| count(here) > 0).map(|(node, here)| (node.clone(), count(here))).collect()
    };
    let existing = counted(|here| here.existing);
    let bound = counted(|here| here.bound);
    let ready = counted(|here| here.ready);
    let (mut running, mut kept) = (Counts::new(), Counts::new());
    let mut may_serve: u32 = ready.values().sum();
    let (mut domains, mut has_closed) = (0, false);
    let mut capacities = Vec::with_capacity(picture.room.len());
    for (room, here) in picture.room.iter().zip(&pods) {
        let node = &room.node;
        let refusal = memory.refusals.reason(node, now);
        let closed = match admission(room, &facts.template) {
            Admission::Open => refusal.map(|why| Exclusion::Other(why.to_owned())),
            Admission::Closed(why) => Some(why),
        };
        if closed.as_ref() != Some(&Exclusion::Selector) {
            domains += 1;
            has_closed |= closed.is_some();
        }
        match closed {
            Some(Exclusion::NotReady) => {
                // The state of pods there is unknown, and those that are not ready may serve. They
                // stay, whether of Deployment or Seika, and do not reduce the count elsewhere.
                may_serve += here.bound - here.ready;
                let kept_here = here.told + here.bootstrap;
                if kept_here > 0 {
                    kept.insert(node.clone(), kept_here);
                }
                capacities.push(NodeCapacity::new(node.clone(), 0).excluded(Exclusion::NotReady));
            }
            Some(why) => {
                let capacity = NodeCapacity::new(node.clone(), here.ready);
                if here.ready > 0 {
                    running.insert(node.clone(), here.ready);
                    capacities.push(capacity.cordoned());
                } else {
                    capacities.push(capacity.excluded(why));
                }
            }
            None => {
                let runs = here.told.max(here.existing.saturating_sub(here.bootstrap)) + here.bootstrap;
                if runs > 0 {
                    running.insert(node.clone(), runs);
                }
                let fits = match all.reserved_by_others(node, &memory.reserved) {
                    Some(reserved) => {
                        let mut taken = room.taken.clone();
                        taken += &reserved;
                        room.offers.fit(&taken, &facts.each)
                    }
                    None => room.offers.fit(&room.taken, &facts.each),
                };
                let most = (here.bound + fits).min(facts.template.per_node_most().unwrap_or(u32::MAX));
                // Running pods have their room, even if the sums disagree.
                capacities.push(NodeCapacity::new(node.clone(), most.max(here.ready)));
            }
        }
    }
    Standing { running, existing, bound, ready, may_serve, kept, capacities, domains, has_closed }
}

/// Bounds the pods per node so that they keep within the template's spread constraints.
pub(super) fn spread(facts: &Facts, standing: &mut Standing, replicas: u32) {
    for constraint in &facts.template.among_pods.spread {
        let (least, most) = constraint.bounds(replicas, standing.domains, standing.has_closed);
        for capacity in standing.capacities.iter_mut().filter(|capacity| capacity.excluded.is_none() && capacity.schedulable) {
            let ready = standing.ready.get(&capacity.node).copied().unwrap_or(0);
            capacity.max_replicas = capacity.max_replicas.min(most).max(ready);
            capacity.min_replicas = capacity.min_replicas.max(least.min(capacity.max_replicas));
        }
    }
}
