//! Decisions that need not be made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use placement::plan::Verdict;

use super::beyond::review;
use super::{Deciding, Decision};
use crate::memory::{RevisionMemory, Settled};
use crate::picture::{Inputs, Picture};

/// Whether neither the inputs nor time can change the last decision.
pub(super) fn is_unchanged(picture: &Picture, inputs: &Inputs, own: &RevisionMemory) -> bool {
    let demand = &inputs.demand;
    own.settled.as_ref().is_some_and(|settled| {
        (Arc::ptr_eq(&settled.facts, &inputs.facts) || settled.facts == inputs.facts)
            && settled.network_version.is_none_or(|version| version == picture.network.version)
            && settled.review == review(picture, &inputs.facts)
    }) && demand.in_flight.is_empty()
        && demand.seconds.iter().all(|(_, sources)| sources.as_ref().is_some_and(BTreeMap::is_empty))
}

impl Deciding<'_> {
    pub(super) fn settled(&self) -> Settled {
        let facts = &self.inputs.facts;
        let is_anywhere = !facts.pods.is_empty() || !facts.seika.is_empty();
        let network_version = is_anywhere.then_some(self.picture.network.version);
        Settled { facts: facts.clone(), network_version, review: review(self.picture, facts) }
    }

    /// Whether this decision leaves everything as it is and time alone changes nothing of that.
    pub(super) fn settles(&self, decision: &Decision, own: &RevisionMemory) -> bool {
        let facts = &*self.inputs.facts;
        let sks = facts.sks.as_ref();
        let changes_nothing = sks.is_some_and(|sks| sks.mode == decision.mode)
            && decision.status == facts.status
            && decision.step.as_ref().is_none_or(|step| step.seika == facts.seika && step.deployment == facts.deployment)
            && decision.back.is_none()
            && !decision.probe_activator;
        // What the scale-down rate leaves of many pods asks for none beyond min-scale.
        let asks_nothing = match decision.count.asked {
            Some(asked) => asked <= facts.settings.min_scale,
            None => facts.pods.is_empty(),
        };
        let is_at_rest = facts.pods.is_empty() || facts.settings.min_scale > 0 || !facts.settings.scale_to_zero;
        changes_nothing
            && asks_nothing
            && is_at_rest
            && own.history.is_silent(self.picture.now.second())
            && own.refusals.is_empty()
            && own.withdrawn_since.is_empty()
            && decision.target.unplaced.is_none()
            && !matches!(decision.target.verdict, Some(Verdict::CoolingDown | Verdict::MovedPartly | Verdict::BudgetSpent))
            && decision.target.share_missed.is_none()
            && decision.target.zones_missing.as_ref().is_none_or(|missing| missing.reasons.is_empty())
            && !decision.count.is_panicking
            && facts.pods.iter().all(|pod| pod.is_ready)
            && !self.inputs.demand.is_unknown
    }
}
