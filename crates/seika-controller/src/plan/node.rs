//! One node's share of the plan.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::victims::rank;
use super::{Delete, DeleteCause, DesiredPods};
use crate::observed::{PodProgress, PodView};
use k8s_api::seika::Rollout;

/// What a node may have.
pub(super) struct NodeAllowance<'a> {
    /// Pods wanted.
    pub(super) count: usize,
    /// Pods beyond the total that may still be added anywhere.
    pub(super) surge_left: usize,
    /// Available pods that may still be given up anywhere.
    pub(super) unavailable_left: usize,
    /// Failed pods must not be replaced yet.
    pub(super) held: bool,
    /// How to replace.
    pub(super) rollout: &'a Rollout,
}

/// What to do on a node.
#[derive(Default)]
pub(super) struct NodeDecision {
    pub(super) creates: usize,
    /// How many of the creates are beyond the count.
    pub(super) surge: usize,
    /// How many of the deletes leave the node with fewer available pods than wanted.
    pub(super) unavailable: usize,
    pub(super) deletes: Vec<Delete>,
    /// More would be created if nothing were held back.
    pub(super) wants_more: bool,
}

/// A node's pods, sorted by what can be done with them.
pub(super) struct OnNode<'a> {
    /// Made from the present template (or nothing is being replaced).
    current: Vec<&'a PodView>,
    outdated: Vec<&'a PodView>,
    finished: Vec<&'a PodView>,
    asked: &'a DesiredPods<'a>,
    now: Timestamp,
}

impl<'a> OnNode<'a> {
    /// `rolls` is whether pods of other revisions are being replaced.
    pub(super) fn new(pods: &[&'a Arc<PodView>], asked: &'a DesiredPods<'a>, rolls: bool, now: Timestamp) -> Self {
        let mut on_node = Self { current: Vec::new(), outdated: Vec::new(), finished: Vec::new(), asked, now };
        for pod in pods.iter().copied().map(Arc::as_ref).filter(|pod| !pod.terminating) {
            let list = match pod.progress {
                PodProgress::Finished => &mut on_node.finished,
                _ if !rolls || pod.revision == asked.revision => &mut on_node.current,
                _ => &mut on_node.outdated,
            };
            list.push(pod);
        }
        for list in [&mut on_node.current, &mut on_node.outdated, &mut on_node.finished] {
            rank(list, now);
        }
        let (mut current, mut outdated) = (std::mem::take(&mut on_node.current), std::mem::take(&mut on_node.outdated));
        current.sort_by_key(|pod| on_node.available(pod));
        outdated.sort_by_key(|pod| on_node.available(pod));
        Self { current, outdated, ..on_node }
    }

    fn available(&self, pod: &PodView) -> bool {
        self.asked.is_available(pod, self.now)
    }

    /// When the next ready pod will have been ready for long enough.
    pub(super) fn next_available_in(&self) -> Option<SignedDuration> {
        self.current
            .iter()
            .chain(&self.outdated)
            .filter_map(|pod| Some(self.asked.min_ready - self.now.duration_since(pod.ready_since()?)))
            .filter(SignedDuration::is_positive)
            .min()
    }

    pub(super) fn decide(&self, room: &NodeAllowance<'_>) -> NodeDecision {
        let mut decision = NodeDecision::default();
        let active = self.current.len() + self.outdated.len();

        let surge = if self.outdated.is_empty() { 0 } else { count(room.rollout.max_surge_per_node).min(room.surge_left) };
        let lacking = room.count.saturating_sub(self.current.len()).min((room.count + surge).saturating_sub(active));
        decision.wants_more = lacking > 0;
        if !room.held {
            decision.creates = lacking;
            decision.surge = (active + lacking).saturating_sub(room.count.max(active));
        }

        let excess = self.current.len().saturating_sub(room.count);
        decision.deletes.extend(self.current[..excess].iter().map(|pod| delete(pod, DeleteCause::Excess)));
        let (going, unavailable) = self.outdated_going(room, excess);
        let cause = if room.count == 0 { DeleteCause::Excess } else { DeleteCause::Outdated };
        decision.deletes.extend(self.outdated[..going].iter().map(|pod| delete(pod, cause)));
        decision.unavailable = unavailable;

        // The latest failure stays to be looked at until its replacement may come.
        let shown = usize::from(room.held && decision.wants_more).min(self.finished.len());
        let mut finished = self.finished.clone();
        finished.sort_by_key(|pod| pod.created);
        decision.deletes.extend(finished[..finished.len() - shown].iter().map(|pod| delete(pod, DeleteCause::Finished)));
        decision
    }

    /// How many outdated pods can go so that no more than allowed is unavailable, and how many more
    /// pods are unavailable by that.
    fn outdated_going(&self, room: &NodeAllowance<'_>, excess: usize) -> (usize, usize) {
        let kept = &self.current[excess..];
        let floor = room.count.saturating_sub(count(room.rollout.max_unavailable_per_node));
        let (ready, unready): (Vec<&PodView>, Vec<&PodView>) = self.outdated.iter().partition(|pod| self.available(pod));
        let total = kept.len() + self.outdated.len();
        // A pod that does not serve can be deleted as soon as its replacement exists: nothing gets
        // worse.
        let unready_going = unready.len().min(total.saturating_sub(floor));
        let available = kept.iter().filter(|pod| self.available(pod)).count() + ready.len();
        let to_spare = available.saturating_sub(room.count);
        let ready_going = ready
            .len()
            .min(available.saturating_sub(floor))
            .min((total - unready_going).saturating_sub(floor))
            .min(to_spare.saturating_add(room.unavailable_left));
        (unready_going + ready_going, ready_going.saturating_sub(to_spare))
    }
}

/// The node is no more, so everything on it goes. What was bound to it waits for a kubelet that
/// will never answer: by force, then.
pub(super) fn abandon(pods: &[&Arc<PodView>]) -> Vec<Delete> {
    pods.iter()
        .filter(|pod| !pod.terminating || pod.progress != PodProgress::Unscheduled)
        .map(|pod| Delete { force: pod.progress != PodProgress::Unscheduled, ..delete(pod, DeleteCause::NodeGone) })
        .collect()
}

fn delete(pod: &PodView, cause: DeleteCause) -> Delete {
    Delete { name: pod.name.clone(), uid: pod.uid.clone(), node: pod.node.clone(), cause, force: false }
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}
