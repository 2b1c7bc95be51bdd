//! The decision: from the picture to the desired state of each revision.
//!
//! how many ([`kpa`](crate::kpa), [`earned`](crate::earned), [`lifecycle`](crate::lifecycle)) ->
//! where (`place`) -> which way ([`routes`](crate::routes)) -> in which order
//! ([`rollout`](crate::rollout)) -> status for Knative ([`status`](crate::status))

mod beyond;
mod decision;
mod how_many;
mod placing;
mod settling;
mod steps;
mod windows;

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_link::RevisionKey;
use k8s_api::{ConditionStatus, PodAutoscalerStatus, ServerlessServiceStatus, ServingMode};
use latency_matrix::NodeName;
use placement::problem::ProblemError;

use self::beyond::{keep_profile, wall_seconds};
use self::placing::{ToPlace, note_withdrawn};
use self::settling::is_unchanged;
use self::windows::Windows;
use crate::memory::{Memory, RevisionMemory};
use crate::picture::{Facts, Inputs, Picture};
use crate::place::{self, GoalState, RevisionPlacement};
use crate::rollout::{self, Maker};
use crate::status;

pub use self::decision::{Count, DecideError, Decision};

/// Decides on every revision of `picture` whose inputs changed since the last tick or that time
/// alone may change. A revision without a result stays as it is.
pub fn decide(picture: &Picture, memory: &mut Memory) -> Vec<Result<Decision, DecideError>> {
    memory.prune(picture);
    decide_on(picture, picture.revisions.iter(), memory)
}

/// Decides on these revisions alone, at once, between two ticks.
pub fn decide_some(
    picture: &Picture,
    revisions: &BTreeSet<RevisionKey>,
    memory: &mut Memory,
) -> Vec<Result<Decision, DecideError>> {
    decide_on(picture, revisions.iter().filter_map(|key| picture.revisions.get_key_value(key)), memory)
}

fn decide_on<'a>(
    picture: &Picture,
    revisions: impl Iterator<Item = (&'a RevisionKey, &'a Inputs)>,
    memory: &mut Memory,
) -> Vec<Result<Decision, DecideError>> {
    let nodes = memory.share(picture.network.nodes());
    let mut decisions = Vec::new();
    for (key, inputs) in revisions {
        let mut own = memory.take(key, &inputs.facts.uid);
        keep_profile(picture, key, inputs, memory, &mut own);
        observe(picture, inputs, &mut own);
        if !is_unchanged(picture, inputs, &own) {
            let decided = Deciding { picture, key, inputs, nodes: &nodes }.decide(memory, &mut own);
            decisions.push(decided.map_err(|source| DecideError { key: key.clone(), source }));
        }
        memory.put_back(key, own);
    }
    decisions
}

/// Records demand without deciding, for a replica that does not lead. When it leads, it knows the
/// demand of the last window.
pub fn follow(picture: &Picture, memory: &mut Memory) {
    memory.prune(picture);
    for (key, inputs) in &picture.revisions {
        let mut own = memory.take(key, &inputs.facts.uid);
        keep_profile(picture, key, inputs, memory, &mut own);
        observe(picture, inputs, &mut own);
        memory.put_back(key, own);
    }
}

/// Records demand and refusals, and whether the revision is hidden.
fn observe(picture: &Picture, inputs: &Inputs, own: &mut RevisionMemory) {
    let (now, facts) = (picture.now.monotonic, &inputs.facts);
    let settings = &facts.settings;
    let longest = settings.stable_window.max(settings.scale_down_delay);
    own.history.set_windows(settings.stable_window, settings.panic_window, longest);
    for (second, sources) in &inputs.demand.seconds {
        let Some(sources) = sources else { continue };
        if let Some(profile) = &mut own.profile {
            profile.record(wall_seconds(picture.now).saturating_sub(now.as_secs().saturating_sub(*second)), sources);
        }
        // Stock has no samples of a revision at zero without requests either. Zeros would make its
        // next burst look weaker than it is.
        let is_at_rest = facts.pods.is_empty() && sources.is_empty() && own.history.is_silent(now.as_secs());
        if !is_at_rest {
            own.history.record(*second, sources.clone());
        }
    }
    own.refusals.observe(now, &facts.pods, &facts.seika, facts.is_seika_observed);
    let leads_to_activators = |sks: &crate::picture::ServerlessFacts| {
        let status = sks.status.as_ref();
        sks.mode == ServingMode::Proxy
            && status.is_some_and(|status| {
                status.observed_generation == sks.generation && status.holds(ServerlessServiceStatus::ACTIVATORS).is_some()
            })
    };
    let is_inactive = active(facts) == ConditionStatus::False;
    if is_inactive && facts.sks.as_ref().is_some_and(leads_to_activators) {
        own.hidden_since.get_or_insert(now);
    } else {
        own.hidden_since = None;
    }
}

fn active(facts: &Facts) -> ConditionStatus {
    facts.status.condition(PodAutoscalerStatus::ACTIVE).map_or(ConditionStatus::Unknown, |condition| condition.status)
}

struct Deciding<'a> {
    picture: &'a Picture,
    key: &'a RevisionKey,
    inputs: &'a Inputs,
    nodes: &'a Arc<[NodeName]>,
}

impl Deciding<'_> {
    fn decide(&self, all: &mut Memory, own: &mut RevisionMemory) -> Result<Decision, ProblemError> {
        let (facts, now) = (&*self.inputs.facts, self.picture.now);
        let settings = &facts.settings;
        if let Some(sks) = facts.sks.as_ref().filter(|sks| !sks.is_owned) {
            return Ok(self.not_owned(&sks.name, own));
        }
        let ready = rollout::as_count(facts.pods.iter().filter(|pod| pod.is_ready).count());
        let mut standing = place::stand(self.picture, facts, all, own);

        let windows = Windows::of(&own.history, now.second(), settings);
        let (scale, mut count) = self.how_many(&windows, ready, &standing, own);
        let mut outcome = self.outcome(&count, scale.as_ref(), &standing, own);

        let outlook = own.profile.as_deref().map(|profile| self.outlook(profile));
        let (demand, is_steady) = self.demand_to_place(&windows, scale.as_ref());
        let requests_per_second = (is_steady && outlook.is_none()).then(|| self.rate(&windows, &demand, own));
        let goal = self.goal(&mut outcome, &standing, &demand, is_steady, own)?;
        count.want = outcome.want;
        let (demand, is_steady) = match &outlook {
            Some(outlook) => self.with_outlook(outlook, &count, demand, is_steady),
            None => (demand, is_steady),
        };
        let to_place = ToPlace { demand: &demand, is_steady, requests_per_second };
        let target = self.place(&outcome, &mut standing, to_place, own)?;
        all.reserve(own, &target.pods, &standing.bound, &facts.each);

        let routes = self.route(&target, &standing, &demand, own)?;
        note_withdrawn(own, &standing.existing, routes.as_deref(), now.monotonic);
        let step = self.step(&outcome, &target, own);
        if !facts.is_handing_back {
            own.handing_back = None;
        }
        let back = facts.is_handing_back.then(|| self.hand_back(&outcome, standing.may_serve, own));

        let is_initialized = facts.status.is_initialized();
        let blocked = goal.as_ref().and_then(GoalState::blocked_by);
        let status_facts = status::StatusInputs {
            now: now.wall,
            generation: facts.generation,
            sks: facts.sks.as_ref(),
            ready,
            want: outcome.want,
            threshold: settings.activation_threshold(is_initialized),
            goal: match (&goal, &blocked) {
                _ if settings.p95.is_none() => status::GoalStatus::None,
                (None, _) => status::GoalStatus::Unknown,
                (Some(_), None) => status::GoalStatus::Met,
                (Some(_), Some(why)) => status::GoalStatus::Blocked(why),
            },
        };
        let status = status::next(&facts.status, &status_facts, settings.activation_threshold(true));
        let decision = Decision {
            key: self.key.clone(),
            uid: facts.uid.clone(),
            service: facts.service.clone(),
            mode: outcome.mode,
            probe_activator: own.hidden_since.is_some() && self.has_pods() && !self.activator_answers(own),
            status,
            step: step.filter(|_| !facts.is_handing_back),
            back,
            target,
            demand: demand.into(),
            routes,
            count,
            outlook,
            goal,
        };
        own.settled = self.settles(&decision, own).then(|| self.settled());
        Ok(decision)
    }

    /// The decision where the name of the revision's ServerlessService is taken by an object of
    /// another owner: only the status reports it.
    fn not_owned(&self, name: &str, own: &mut RevisionMemory) -> Decision {
        let facts = &*self.inputs.facts;
        own.settled = Some(self.settled());
        Decision {
            key: self.key.clone(),
            uid: facts.uid.clone(),
            service: facts.service.clone(),
            mode: facts.sks.as_ref().map_or(ServingMode::Proxy, |sks| sks.mode),
            status: status::not_owned(&facts.status, facts.generation, name, self.picture.now.wall),
            step: None,
            back: None,
            target: RevisionPlacement::default(),
            demand: Arc::default(),
            routes: own.routes.clone(),
            probe_activator: false,
            count: Count::default(),
            outlook: None,
            goal: None,
        }
    }

    /// Whether there are pods, as far as anybody knows.
    fn has_pods(&self) -> bool {
        !self.inputs.facts.pods.is_empty() || self.unseen() > 0
    }

    /// Pods that were asked for and are not known yet, so that nobody knows whether they serve.
    fn unseen(&self) -> u32 {
        let facts = &*self.inputs.facts;
        let seen = |is: &dyn Fn(&rollout::Pod) -> bool| rollout::as_count(facts.pods.iter().filter(|pod| is(pod)).count());
        let of_seika = |node: &NodeName| seen(&|pod| pod.maker == Maker::Seika && pod.place() == Some(node));
        let made: u32 = facts.seika.iter().map(|(node, told)| told.saturating_sub(of_seika(node))).sum();
        made + facts.deployment.saturating_sub(seen(&|pod| pod.maker == Maker::Deployment))
    }
}

#[cfg(test)]
mod tests;
