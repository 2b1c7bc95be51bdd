//! What a revision asks for beyond what demand does: warm pods, and a goal for the response time.

use gateway_link::RevisionKey;
use latency_matrix::NodeName;
use placement::problem::{CostModel, ProblemError};

use super::{Count, Deciding};
use crate::lifecycle::{Goal, Outcome};
use crate::memory::{Memory, RevisionMemory};
use crate::picture::{Facts, Inputs, Now, Picture};
use crate::place::{self, GoalState, Question, Standing};
use crate::warm::{self, Outlook, Profile};

/// What is likely to come counts as so much of what one pod is to carry, where there is no demand.
const LIKELY_OF_TARGET: f64 = 0.5;
/// And as so much of the demand where there is some.
const LIKELY_OF_DEMAND: f64 = 0.1;

/// Keeps a profile of the demand of a revision that asks for warm pods. A new revision of a service
/// goes on from that of an earlier one.
pub(super) fn keep_profile(picture: &Picture, key: &RevisionKey, inputs: &Inputs, memory: &Memory, own: &mut RevisionMemory) {
    if inputs.facts.settings.warm == 0 {
        own.profile = None;
        return;
    }
    let service = inputs.facts.service.as_str();
    let earlier = || {
        let is_sibling = |(other, inputs): &(&RevisionKey, &Inputs)| {
            other.namespace == key.namespace && !service.is_empty() && inputs.facts.service == service
        };
        let profiles = picture.revisions.iter().filter(is_sibling).filter_map(|(other, inputs)| {
            let profile = memory.revisions.get(other)?.profile.clone()?;
            Some((inputs.facts.created, profile))
        });
        profiles.max_by_key(|(created, _)| *created).map(|(_, profile)| profile)
    };
    if own.profile.is_none() {
        own.profile = Some(earlier().unwrap_or_default());
    }
}

pub(super) fn wall_seconds(now: Now) -> u64 {
    u64::try_from(now.wall.as_second()).unwrap_or(0)
}

/// When the places of warm pods were last looked at.
pub(super) fn review(picture: &Picture, facts: &Facts) -> Option<u64> {
    (facts.settings.warm > 0).then(|| warm::review(wall_seconds(picture.now)))
}

impl Deciding<'_> {
    /// Raises the number of pods to the fewest that meet the goal for the response time.
    pub(super) fn goal(
        &self,
        outcome: &mut Outcome,
        standing: &Standing,
        demand: &[(NodeName, f64)],
        is_steady: bool,
        own: &mut RevisionMemory,
    ) -> Result<Option<GoalState>, ProblemError> {
        let (facts, now) = (&*self.inputs.facts, self.picture.now.monotonic);
        let settings = &facts.settings;
        let Some(p95) = settings.p95 else {
            own.goal = None;
            return Ok(None);
        };
        let memory = own.goal.get_or_insert_default();
        memory.learn(&self.inputs.demand.service_seconds);
        // Gateways that spread evenly lead no request to the nearest pod.
        let is_local = self.picture.network.model == CostModel::LocalFirst;
        let least = match outcome.goal {
            Goal::Pods(least) if least > 0 && is_steady && is_local && !facts.is_handing_back => least,
            _ => return Ok(None),
        };
        let question =
            Question { replicas: least, pod_target: settings.target, demand, is_steady, requests_per_second: None, ways: None };
        let asked = (p95.as_secs_f64(), least, settings.max_scale);
        let state = place::fewest(self.key, self.picture, standing, memory, &question, asked)?;
        let pods = memory.hold(now, settings.stable_window, state.pods).min(settings.max_scale.unwrap_or(u32::MAX)).max(least);
        outcome.goal = Goal::Pods(pods);
        outcome.want = Some(pods);
        Ok(Some(state))
    }

    /// Who is likely to ask first, of the nodes that there are.
    pub(super) fn outlook(&self, profile: &Profile) -> Outlook {
        let mut outlook = profile.outlook(wall_seconds(self.picture.now));
        outlook.retain(|node, _| self.nodes.binary_search(node).is_ok());
        outlook
    }

    /// Adds what is likely to come to the demand that pods are placed by: alone where there is
    /// none, and as a small part where there are more pods than demand asks for.
    pub(super) fn with_outlook(
        &self,
        outlook: &Outlook,
        count: &Count,
        mut demand: Vec<(NodeName, f64)>,
        is_steady: bool,
    ) -> (Vec<(NodeName, f64)>, bool) {
        let total: f64 = demand.iter().map(|(_, demand)| demand).sum();
        let has_spare = count.asked.is_none_or(|asked| count.want.is_some_and(|want| want > asked));
        let is_alone = demand.is_empty();
        if outlook.is_empty() || !is_alone && !has_spare {
            return (demand, is_steady);
        }
        let amount = if is_alone { LIKELY_OF_TARGET * self.inputs.facts.settings.target } else { LIKELY_OF_DEMAND * total };
        for (node, share) in outlook {
            match demand.binary_search_by(|(other, _)| other.cmp(node)) {
                Ok(position) => demand[position].1 += amount * share,
                Err(position) => demand.insert(position, (node.clone(), amount * share)),
            }
        }
        (demand, is_alone || is_steady)
    }
}
