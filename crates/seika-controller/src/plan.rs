//! What to create and what to delete: a pure function of what is asked and what is seen.
//!
//! Three rules hold whatever else does. A create is planned only where the pods seen (those just
//! asked for included) are fewer than what is allowed, never in the hope that a delete of the same
//! plan goes through. Each pod to create has a name that depends only on the Seika, the node and a
//! slot. And a plan whose doing is seen has nothing more to do.

mod node;
#[cfg(test)]
mod properties;
mod victims;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::node::{NodeAllowance, OnNode};
use crate::index::SeikaView;
use crate::naming::pod_name;
use crate::observed::{NodeKnowledge, Nodes, PodView};
use crate::taints::Tolerations;
use k8s_api::seika::Rollout;

/// For how long a node must have been gone before its pods are taken for lost: one that leaves and
/// comes back at once keeps them.
pub(crate) const NODE_GONE_HOLD: SignedDuration = SignedDuration::from_secs(2);
/// The most pods that one plan creates; the rest comes with the next.
pub(crate) const CREATES_PER_PLAN: usize = 1000;
/// The most pods that one plan creates on a node, so that a kubelet is not given more at once than
/// it commonly holds in all.
pub(crate) const CREATES_PER_NODE_AND_PLAN: usize = 110;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct DesiredPods<'a> {
    /// The Seika's name.
    pub(crate) seika: &'a str,
    /// The Seika's UID.
    pub(crate) uid: &'a str,
    /// Pods per node.
    pub(crate) counts: &'a BTreeMap<String, i32>,
    /// The revision of the template.
    pub(crate) revision: &'a str,
    /// How to replace pods of other revisions.
    pub(crate) rollout: &'a Rollout,
    /// For how long a pod must have been ready to count as available.
    pub(crate) min_ready: SignedDuration,
    /// Which taints its pods put up with.
    pub(crate) tolerations: &'a Tolerations,
}

impl DesiredPods<'_> {
    /// How many pods `node` is to have.
    fn count(&self, node: &str) -> usize {
        self.counts.get(node).map_or(0, |count| usize::try_from(*count).unwrap_or(0))
    }

    /// Whether `pod` has served for long enough.
    pub(crate) fn is_available(&self, pod: &PodView, now: Timestamp) -> bool {
        // Who may be going already cannot be counted on.
        pod.is_active() && !pod.doomed && pod.ready_since().is_some_and(|since| now.duration_since(since) >= self.min_ready)
    }
}

/// What is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObservedPods<'a> {
    /// The cluster's nodes.
    pub(crate) nodes: &'a Nodes,
    /// The Seika's pods and the creates whose outcome is unknown.
    pub(crate) picture: &'a SeikaView,
    /// Names that others hold.
    pub(crate) taken: &'a HashSet<String>,
    /// Nodes on which no failed pod may be replaced yet, and until when.
    pub(crate) held: &'a BTreeMap<String, Timestamp>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Create {
    /// For this node.
    pub(crate) node: String,
    /// Under this name.
    pub(crate) name: String,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeleteCause {
    /// The node has more than it should.
    Excess,
    /// It was made from another template.
    Outdated,
    /// It will never run again.
    Finished,
    /// Its node is no more.
    NodeGone,
}

/// A pod to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delete {
    /// Its name.
    pub(crate) name: String,
    /// Its UID: another pod of that name is another pod.
    pub(crate) uid: String,
    /// Its node.
    pub(crate) node: String,
    /// Why.
    pub(crate) cause: DeleteCause,
    /// Nobody is left who could end it gently.
    pub(crate) force: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodPlan {
    /// Pods to create, in this order.
    pub(crate) creates: Vec<Create>,
    /// Pods to delete.
    pub(crate) deletes: Vec<Delete>,
    /// When to plan again though nothing happened.
    pub(crate) again_after: Option<SignedDuration>,
}

/// Makes the plan.
#[must_use]
pub(crate) fn plan(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>) -> PodPlan {
    let mut plan = PodPlan::default();
    let mut by_node: BTreeMap<&str, Vec<&Arc<PodView>>> = asked.counts.keys().map(|node| (node.as_str(), Vec::new())).collect();
    for pod in &seen.picture.pods {
        by_node.entry(&pod.node).or_default().push(pod);
    }
    let (mut surge_left, mut unavailable_left) = (surge_left(asked, seen), unavailable_left(asked, seen, &by_node));
    let mut creates: Vec<Vec<Create>> = Vec::new();
    for (name, pods) in by_node {
        match seen.nodes.look_up(name) {
            NodeKnowledge::Present(view) => {
                // Where no new pod can start, the old ones are not given up for them.
                let rolls = !asked.rollout.paused && view.obstacle(asked.tolerations).is_none();
                let on_node = OnNode::new(&pods, asked, rolls, seen.now);
                let held_until = seen.held.get(name).copied();
                let decision = on_node.decide(&NodeAllowance {
                    count: asked.count(name),
                    surge_left,
                    unavailable_left,
                    held: held_until.is_some(),
                    rollout: asked.rollout,
                });
                surge_left = surge_left.saturating_sub(decision.surge);
                unavailable_left = unavailable_left.saturating_sub(decision.unavailable);
                if let Some(until) = held_until.filter(|_| decision.wants_more) {
                    plan.look_again_in(until.duration_since(seen.now));
                }
                if let Some(available_in) = on_node.next_available_in() {
                    plan.look_again_in(available_in);
                }
                plan.deletes.extend(decision.deletes);
                creates.push(name_creates(asked, seen, name, &pods, decision.creates));
            }
            NodeKnowledge::GoneSince(since) if seen.now.duration_since(since) < NODE_GONE_HOLD => {
                plan.look_again_in(NODE_GONE_HOLD - seen.now.duration_since(since));
            }
            NodeKnowledge::GoneSince(_) | NodeKnowledge::Never => plan.deletes.extend(node::abandon(&pods)),
        }
    }
    let wanted: usize = creates.iter().map(Vec::len).sum();
    creates.iter_mut().for_each(|on_node| on_node.truncate(CREATES_PER_NODE_AND_PLAN));
    plan.creates = one_from_each_in_turn(creates);
    plan.creates.truncate(CREATES_PER_PLAN);
    if plan.creates.len() < wanted {
        plan.look_again_in(SignedDuration::ZERO);
    }
    plan
}

impl PodPlan {
    fn look_again_in(&mut self, delay: SignedDuration) {
        let delay = delay.max(SignedDuration::ZERO);
        self.again_after = Some(self.again_after.map_or(delay, |sooner| sooner.min(delay)));
    }
}

/// How many pods beyond the total may still be added for a roll-out.
fn surge_left(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>) -> usize {
    let Some(max_surge) = asked.rollout.max_surge else { return usize::MAX };
    // Nodes that are short of pods do not lend their room to those that are rolling.
    let mut active: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in seen.picture.pods.iter().filter(|pod| pod.is_active()) {
        *active.entry(&pod.node).or_default() += 1;
    }
    let beyond: usize = active.iter().map(|(node, active)| active.saturating_sub(asked.count(node))).sum();
    usize::try_from(max_surge).unwrap_or(0).saturating_sub(beyond)
}

/// How many available pods a rollout may still delete. Nodes that do not exist do not count as
/// lacking pods: nothing could run there.
fn unavailable_left(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>, by_node: &BTreeMap<&str, Vec<&Arc<PodView>>>) -> usize {
    let Some(max_unavailable) = asked.rollout.max_unavailable else { return usize::MAX };
    let lacking = |(node, pods): (&&str, &Vec<&Arc<PodView>>)| {
        let available = pods.iter().filter(|pod| asked.is_available(pod, seen.now)).count();
        if matches!(seen.nodes.look_up(node), NodeKnowledge::Present(_)) {
            asked.count(node).saturating_sub(available)
        } else {
            0
        }
    };
    usize::try_from(max_unavailable).unwrap_or(0).saturating_sub(by_node.iter().map(lacking).sum())
}

/// Names for `count` new pods on `node`: first those whose create may or may not have happened,
/// then the first free slots.
fn name_creates(
    asked: &DesiredPods<'_>,
    seen: &ObservedPods<'_>,
    node: &str,
    pods: &[&Arc<PodView>],
    count: usize,
) -> Vec<Create> {
    if count == 0 {
        return Vec::new();
    }
    let mut held: BTreeSet<&str> =
        pods.iter().map(|pod| pod.name.as_str()).chain(seen.taken.iter().map(String::as_str)).collect();
    let unresolved: Vec<&str> = seen
        .picture
        .unresolved
        .iter()
        .filter(|(on, name)| on == node && !held.contains(name.as_str()))
        .map(|(_, name)| name.as_str())
        .collect();
    held.extend(&unresolved);
    let fresh = (0..).map(|slot| pod_name(asked.seika, asked.uid, node, slot)).filter(|name| !held.contains(name.as_str()));
    unresolved
        .iter()
        .map(|name| (*name).to_owned())
        .chain(fresh)
        .take(count)
        .map(|name| Create { node: node.to_owned(), name })
        .collect()
}

/// So that a plan that is cut short, or stopped by a refusal, has served every node alike.
fn one_from_each_in_turn(lists: Vec<Vec<Create>>) -> Vec<Create> {
    let mut ranked: Vec<(usize, Create)> = lists.into_iter().flat_map(|list| list.into_iter().enumerate()).collect();
    ranked.sort_by_key(|(turn, _)| *turn);
    ranked.into_iter().map(|(_, create)| create).collect()
}
