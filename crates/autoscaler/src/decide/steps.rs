//! The next step from the pods that there are to those that are wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use latency_matrix::NodeName;

use super::Deciding;
use crate::handback::{self, BackStep};
use crate::lifecycle::{Goal, Outcome};
use crate::memory::{HandingBack, RevisionMemory};
use crate::place::RevisionPlacement;
use crate::rollout::{self, Maker, RolloutInputs, Step};

/// After this time gateways use new routes and have sent the last request along the old ones.
const ROUTES_SETTLE: Duration = Duration::from_secs(1);
/// How long a hand-back waits for a pod to become ready before it continues without it.
const BACK_PATIENCE: Duration = Duration::from_secs(60);

impl Deciding<'_> {
    pub(super) fn step(&self, outcome: &Outcome, target: &RevisionPlacement, own: &RevisionMemory) -> Option<Step> {
        let facts = &*self.inputs.facts;
        let wanted = match outcome.goal {
            Goal::Keep => return None,
            Goal::Pods(count) | Goal::AtLeast(count) => count,
        };
        let now = self.picture.now.monotonic;
        let is_settled = |since: &Duration| now.saturating_sub(*since) >= ROUTES_SETTLE;
        let withdrawn: BTreeSet<NodeName> = if wanted == 0 {
            facts.pods.iter().filter_map(|pod| pod.place()).chain(facts.seika.keys()).cloned().collect()
        } else {
            own.withdrawn_since.iter().filter(|(_, since)| is_settled(since)).map(|(node, _)| node.clone()).collect()
        };
        let present = RolloutInputs {
            pods: &facts.pods,
            seika: &facts.seika,
            deployment: facts.deployment,
            wanted,
            unplaced: self.known_shortage(target),
            withdrawn: &withdrawn,
        };
        let step = rollout::step(&target.pods, &present);
        match outcome.goal {
            Goal::AtLeast(_) => Some(Step { deployment: facts.deployment.max(step.deployment), victims: Vec::new(), ..step }),
            Goal::Pods(_) | Goal::Keep => Some(step),
        }
    }

    /// Pods that found no node. With every node silent nothing is known of room: then no more than
    /// wait for it already.
    fn known_shortage(&self, target: &RevisionPlacement) -> u32 {
        let unplaced = target.unplaced.as_ref().map_or(0, |unplaced| unplaced.replicas);
        if self.picture.room.iter().any(|room| room.is_ready) {
            return unplaced;
        }
        let waits = |pod: &&rollout::Pod| pod.maker == Maker::Deployment && pod.node.is_none();
        unplaced.min(rollout::as_count(self.inputs.facts.pods.iter().filter(waits).count()))
    }

    pub(super) fn hand_back(&self, outcome: &Outcome, may_serve: u32, own: &mut RevisionMemory) -> BackStep {
        let facts = &*self.inputs.facts;
        let now = self.picture.now.monotonic;
        let asked: u32 = facts.seika.values().sum();
        let deployed = rollout::as_count(facts.pods.iter().filter(|pod| pod.maker == Maker::Deployment && pod.is_ready).count());
        let back = own.handing_back.get_or_insert_with(|| HandingBack {
            pods: (may_serve + self.unseen()).max(facts.deployment),
            asked,
            // A leader before this one may have made room already.
            deployed: (may_serve < facts.deployment).then_some(deployed),
            since: now,
        });
        if back.asked != asked {
            (back.asked, back.deployed, back.since) = (asked, Some(deployed), now);
        }
        // As many pods as before, more if demand needs more, none if the revision goes to zero.
        let wanted = match outcome.goal {
            Goal::Pods(0) => 0,
            Goal::Pods(count) => count.max(back.pods),
            Goal::AtLeast(_) | Goal::Keep => back.pods,
        };
        // Where fewer pods have room than there were, waiting for as many would never end: it is
        // enough that the last one that left was replaced.
        let is_patient = now.saturating_sub(back.since) < BACK_PATIENCE;
        let is_replaced = back.deployed.is_none_or(|before| deployed > before);
        let floor = if is_patient || !is_replaced { wanted.min(back.pods) } else { 0 };
        let (pods, seika, deployment) = (&facts.pods, &facts.seika, facts.deployment);
        let silent = self.picture.room.iter().filter(|room| !room.is_ready).map(|room| room.node.clone()).collect();
        let present = handback::HandbackInputs { pods, seika, deployment, silent: &silent, was_reverted: facts.was_handed_back };
        handback::next(&present, wanted, floor)
    }
}
