//! What one tick leaves for the next. A program that starts without it takes nothing away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use crate::kpa::{DemandHistory, ScaleMemory};
use crate::lifecycle::Lasting;
use crate::picture::{Facts, Picture};
use crate::place::{GoalMemory, Placed};
use crate::refusals::Refusals;
use crate::rollout::Counts;
use crate::room::Resources;
use crate::routes::Routes;
use crate::warm::Profile;

/// Everything that outlives a tick. [`Memory::prune`] drops what the picture no longer holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    #[serde(with = "crate::trace::pairs")]
    pub(crate) revisions: BTreeMap<RevisionKey, RevisionMemory>,
    /// What all revisions' pods that do not exist yet will take, by node.
    pub(crate) reserved: BTreeMap<NodeName, Resources>,
    /// The nodes of the last picture, which all routes share.
    #[serde(skip)]
    nodes: Arc<[NodeName]>,
}

/// What is kept of one revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RevisionMemory {
    /// UID of the PodAutoscaler that this is about.
    pub(crate) uid: String,
    /// Its demand, second by second.
    pub(crate) history: DemandHistory,
    /// The KPA's own memory.
    pub(crate) scale: Option<ScaleMemory>,
    /// Totals of the scale-down delay, with what sources earned included.
    pub(crate) totals: VecDeque<(Duration, u32)>,
    /// The most pods wanted since the present panic began, with what sources earned included.
    pub(crate) most_in_panic: Option<u32>,
    /// Source nodes that have earned a pod.
    pub(crate) earned: BTreeSet<NodeName>,
    /// Since when no request is routed to a node that has pods.
    pub(crate) withdrawn_since: BTreeMap<NodeName, Duration>,
    /// Since when the revision is active, or is not.
    #[serde(default)]
    pub(crate) active: Option<Lasting>,
    /// Since when the ServerlessService of the inactive revision has mode Proxy.
    pub(crate) hidden_since: Option<Duration>,
    /// How far the hand-back to the stock class is.
    pub(crate) handing_back: Option<HandingBack>,
    /// Nodes that refused pods lately.
    pub(crate) refusals: Refusals,
    /// The last placement and what it was made from.
    pub(crate) placed: Option<Placed>,
    /// When a pod was last moved.
    pub(crate) moved: VecDeque<Duration>,
    /// The last routes.
    #[serde(with = "crate::routes::exact")]
    pub(crate) routes: Option<Arc<Routes>>,
    /// What it has reserved on each node for pods that do not exist yet.
    pub(crate) reserved: Vec<(NodeName, Resources)>,
    /// What is kept of a goal for the response time, of a revision that has one.
    pub(crate) goal: Option<Box<GoalMemory>>,
    /// The demand of earlier days, of a revision that asks for warm pods.
    pub(crate) profile: Option<Box<Profile>>,
    /// What it was last decided from, where nothing but a change of it calls for another decision.
    pub(crate) settled: Option<Settled>,
}

/// How far a hand-back to the stock class is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HandingBack {
    /// Pods that might serve when it began.
    pub(crate) pods: u32,
    /// Pods that the Seika asks for.
    pub(crate) asked: u32,
    /// Pods of the Deployment that were ready when the Seika's last left; `None` before the first.
    pub(crate) deployed: Option<u32>,
    /// Since when it has this count.
    pub(crate) since: Duration,
}

/// The inputs of a decision that changed nothing and that time alone does not change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settled {
    pub(crate) facts: Arc<Facts>,
    /// `None` where no pod is placed or reached by the network, whatever it is.
    pub(crate) network_version: Option<u64>,
    /// Where warm pods are wanted: when their places were looked at.
    pub(crate) review: Option<u64>,
}

impl Memory {
    /// Forgets every revision that `picture` does not have, and every one that was recreated under
    /// its old name.
    pub fn prune(&mut self, picture: &Picture) {
        let Self { revisions, reserved, .. } = self;
        revisions.retain(|key, memory| {
            let is_same = picture.revisions.get(key).is_some_and(|inputs| inputs.facts.uid == memory.uid);
            if !is_same {
                release(reserved, &mut memory.reserved);
            }
            is_same
        });
    }

    /// Keeps only the demand: another instance decides from now on.
    pub fn keep_demand(&mut self) {
        self.reserved.clear();
        for memory in self.revisions.values_mut() {
            *memory = RevisionMemory {
                uid: std::mem::take(&mut memory.uid),
                history: std::mem::take(&mut memory.history),
                profile: memory.profile.take(),
                ..RevisionMemory::default()
            };
        }
    }

    /// The number of revisions that something is kept of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revisions.len()
    }

    /// How many nodes are avoided at `now` because they refused pods, counted once per revision.
    #[must_use]
    pub fn avoided(&self, now: Duration) -> usize {
        self.revisions.values().map(|memory| memory.refusals.avoided(now)).sum()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// The nodes as a shared slice, the same one as before where they are the same.
    pub(crate) fn share(&mut self, nodes: &[NodeName]) -> Arc<[NodeName]> {
        if *self.nodes != *nodes {
            self.nodes = nodes.into();
        }
        self.nodes.clone()
    }

    /// Takes out what is kept of a revision, until [`Self::put_back`].
    pub(crate) fn take(&mut self, key: &RevisionKey, uid: &str) -> RevisionMemory {
        let memory = self.revisions.get_mut(key).map(std::mem::take).unwrap_or_default();
        if memory.uid == uid { memory } else { RevisionMemory { uid: uid.to_owned(), ..RevisionMemory::default() } }
    }

    /// Keeps this of a revision.
    pub(crate) fn put_back(&mut self, key: &RevisionKey, memory: RevisionMemory) {
        match self.revisions.get_mut(key) {
            Some(held) => *held = memory,
            None => drop(self.revisions.insert(key.clone(), memory)),
        }
    }

    /// Reserves room for the pods of `target` that are not bound to their node yet, instead of what
    /// was reserved for this revision before.
    pub(crate) fn reserve(&mut self, memory: &mut RevisionMemory, target: &Counts, bound: &Counts, each: &Resources) {
        release(&mut self.reserved, &mut memory.reserved);
        for (node, count) in target {
            let missing = count.saturating_sub(bound.get(node).copied().unwrap_or(0));
            if missing > 0 {
                let amount = each.times(missing);
                *self.reserved.entry(node.clone()).or_default() += &amount;
                memory.reserved.push((node.clone(), amount));
            }
        }
    }

    /// What the other revisions have reserved on `node`, where anything is reserved there.
    pub(crate) fn reserved_by_others(&self, node: &NodeName, own: &[(NodeName, Resources)]) -> Option<Resources> {
        let mut reserved = self.reserved.get(node)?.clone();
        for (_, amount) in own.iter().filter(|(own_node, _)| own_node == node) {
            reserved -= amount;
        }
        Some(reserved)
    }
}

fn release(reserved: &mut BTreeMap<NodeName, Resources>, own: &mut Vec<(NodeName, Resources)>) {
    for (node, amount) in own.drain(..) {
        if let Some(all) = reserved.get_mut(&node) {
            *all -= &amount;
            if all.pods == 0 {
                reserved.remove(&node);
            }
        }
    }
}
