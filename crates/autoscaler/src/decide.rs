//! The decision: from the picture to the desired state of each revision.
//!
//! how many ([`kpa`](crate::kpa), [`earned`](crate::earned), [`lifecycle`](crate::lifecycle)) ->
//! where (`place`) -> which way ([`routes`](crate::routes)) -> in which order
//! ([`rollout`](crate::rollout)) -> status for Knative ([`status`](crate::status))

mod beyond;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use k8s_api::{ConditionStatus, PodAutoscalerStatus, Reachability, ServerlessServiceStatus, ServingMode};
use latency_matrix::NodeName;
use placement::plan::Verdict;
use placement::problem::{CostModel, ProblemError};
use serde::Serialize;

use self::beyond::{keep_profile, review, wall_seconds};
use crate::earned;
use crate::handback::{self, BackStep};
use crate::kpa::{DemandHistory, Observed, Scale, ScaleMemory, SourceDemand, serving_mode};
use crate::lifecycle::{self, Goal, Lasting, Outcome, Situation};
use crate::memory::{HandingBack, Memory, RevisionMemory, Settled};
use crate::picture::{Facts, Inputs, Picture};
use crate::place::{self, GoalState, Question, RevisionPlacement, Standing};
use crate::rollout::{self, Counts, Maker, RolloutInputs, Step};
use crate::routes::{self, Routes};
use crate::settings::{Aggregation, Metric, RevisionSettings};
use crate::status;
use crate::warm::Outlook;

/// The desired state of one revision.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The revision.
    pub key: RevisionKey,
    /// UID of its PodAutoscaler.
    pub uid: String,
    /// The Knative Service that it belongs to.
    pub service: String,
    /// Desired mode of the ServerlessService: through the activators, or to the pods.
    pub mode: ServingMode,
    /// The next status of the PodAutoscaler.
    pub status: PodAutoscalerStatus,
    /// Desired counts of Seika and Deployment; `None` leaves both as they are.
    pub step: Option<Step>,
    /// The next step of the hand-back to the stock class, where that is under way.
    pub back: Option<BackStep>,
    /// Desired pods per node, and pods that found no node.
    pub target: RevisionPlacement,
    /// The demand that they were placed by, per source node in name order.
    pub demand: Arc<[(NodeName, f64)]>,
    /// Which way each node's requests go; `None` while no pod is ready.
    pub routes: Option<Arc<Routes>>,
    /// Whether to probe the public Service for an activator.
    pub probe_activator: bool,
    /// How the number of pods came about.
    pub count: Count,
    /// Where the next request is likely to come from, of a revision that asks for warm pods; empty
    /// where nothing is known of earlier demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// Whether the goal for the response time can be met; `None` without a goal or steady demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<GoalState>,
}

/// How the number of pods came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Count {
    /// Desired pods; `None` if unknown.
    pub want: Option<u32>,
    /// Pods that are ready.
    pub ready: u32,
    /// Demand over the stable window, in the metric's unit, where known.
    pub stable_demand: Option<f64>,
    /// Demand over the panic window, in the metric's unit, where known.
    pub panic_demand: Option<f64>,
    /// The result of the KPA's formulae before bounds; `None` without data.
    pub asked: Option<u32>,
    /// Pods that source nodes have earned ([`earned`](crate::earned)).
    pub earned: BTreeMap<NodeName, u32>,
    /// Whether the panic window rules.
    pub is_panicking: bool,
}

/// A decision that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to place revision {key}")]
pub struct DecideError {
    /// The revision.
    pub key: RevisionKey,
    /// Why.
    #[source]
    pub source: ProblemError,
}

/// After this time gateways use new routes and have sent the last request along the old ones.
const ROUTES_SETTLE: Duration = Duration::from_secs(1);
/// How long a hand-back waits for a pod to become ready before it continues without it.
const BACK_PATIENCE: Duration = Duration::from_secs(60);

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

/// Whether neither the inputs nor time can change the last decision.
fn is_unchanged(picture: &Picture, inputs: &Inputs, own: &RevisionMemory) -> bool {
    let demand = &inputs.demand;
    own.settled.as_ref().is_some_and(|settled| {
        (Arc::ptr_eq(&settled.facts, &inputs.facts) || settled.facts == inputs.facts)
            && settled.network_version.is_none_or(|version| version == picture.network.version)
            && settled.review == review(picture, &inputs.facts)
    }) && demand.in_flight.is_empty()
        && demand.seconds.iter().all(|(_, sources)| sources.as_ref().is_some_and(BTreeMap::is_empty))
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

    /// The number of pods that measured demand asks for.
    fn how_many(&self, windows: &Windows, ready: u32, standing: &Standing, own: &mut RevisionMemory) -> (Option<Scale>, Count) {
        let (facts, now) = (&*self.inputs.facts, self.picture.now.monotonic);
        let settings = &facts.settings;
        let asked_before = self.asked_before();
        let memory = own.scale.get_or_insert_with(|| ScaleMemory::resumed(now, ready.max(asked_before)));
        let is_reachable = facts.reachability != Reachability::Unreachable;
        let observed = windows.totals(settings.metric);
        let scale = observed.map(|(stable, panic)| {
            memory.scale(now, Observed { stable, panic, ready, asked_before, reachable: is_reachable }, settings)
        });
        let earned = self.earned(windows, standing, own);
        own.earned = earned.keys().cloned().collect();
        let asked = scale.map(|scale| {
            let total = scale.want.max(earned.values().sum());
            hold(own, now, total, &scale, settings).max(self.held_in_flight(own))
        });
        let count = Count {
            want: None,
            ready,
            stable_demand: observed.map(|(stable, _)| stable),
            panic_demand: observed.map(|(_, panic)| panic),
            asked,
            earned,
            is_panicking: scale.is_some_and(|scale| scale.panicking),
        };
        (scale, count)
    }

    /// Pods, of those that there are, that the requests in flight are worth at this instant. They
    /// count until a whole stable window is known: an average over less may not show them yet.
    fn held_in_flight(&self, own: &RevisionMemory) -> u32 {
        let (facts, settings) = (&*self.inputs.facts, &self.inputs.facts.settings);
        let window = settings.stable_window;
        let is_known = own.history.sampled_seconds(self.picture.now.second(), window) >= window.as_secs();
        if is_known || settings.metric != Metric::Concurrency {
            return 0;
        }
        let in_flight: f64 = self.inputs.demand.in_flight.values().sum();
        // A number of pods: whole, not negative, and bounded by those that there are.
        let asked = (in_flight / settings.target).ceil() as u32;
        asked.min(rollout::as_count(facts.pods.len()) + self.unseen())
    }

    /// Pods that an earlier decision asked for. The first ones of a revision are Knative's own:
    /// that nobody asks for them is known once they are ready.
    fn asked_before(&self) -> u32 {
        let facts = &*self.inputs.facts;
        if facts.status.is_initialized() { facts.seika.values().sum::<u32>() + facts.deployment } else { 0 }
    }

    /// Pods that source nodes earn by the network time that a pod there saves.
    fn earned(&self, windows: &Windows, standing: &Standing, own: &RevisionMemory) -> BTreeMap<NodeName, u32> {
        let (facts, network) = (&*self.inputs.facts, &self.picture.network);
        // With gateways that spread evenly, a pod nearby saves no network time.
        if !facts.earns_locality || network.model != CostModel::LocalFirst {
            return BTreeMap::new();
        }
        let Some(stable) = &windows.stable else { return BTreeMap::new() };
        let policy = earned::Policy::default();
        let second = self.picture.now.second();
        let recent = own.history.average(second, policy.gain_window, Aggregation::Linear).unwrap_or_default();
        let share = |shares: &BTreeMap<NodeName, f64>, node| shares.get(node).copied().unwrap_or(0.0);
        let sources = stable
            .iter()
            .map(|(node, demand)| {
                let source = earned::EarningSource {
                    requests_per_second: recent.get(node).copied().unwrap_or_default().requests_per_second,
                    replicas_worth: amount(facts.settings.metric, demand) / facts.settings.target,
                    recent_share: share(&windows.recent_shares, node),
                    stable_share: share(&windows.stable_shares, node),
                    most: standing.limit(node),
                };
                (node.clone(), source)
            })
            .collect();
        let known = latency_matrix::Rtt::ABSURD.seconds();
        let positions: Vec<Option<usize>> = stable.keys().map(|node| network.costs.position(node)).collect();
        earned::earned(&sources, &own.earned, &policy, |from, to| {
            Some(network.costs.at(positions[from]?, positions[to]?)).filter(|seconds| *seconds < known)
        })
    }

    fn outcome(&self, count: &Count, scale: Option<&Scale>, standing: &Standing, own: &mut RevisionMemory) -> Outcome {
        let (facts, now) = (&*self.inputs.facts, self.picture.now);
        let changed = facts.status.condition(PodAutoscalerStatus::ACTIVE).and_then(|active| active.last_transition_time);
        let changed = changed.or(facts.created).unwrap_or(now.wall);
        let situation = Situation {
            active: active(facts),
            active_for: Lasting::see(&mut own.active, active(facts), changed, now),
            initialized: facts.status.is_initialized(),
            pods: rollout::as_count(facts.pods.len()) + self.unseen(),
            counted: standing.running.values().sum(),
            asked: count.asked,
            mode: match scale {
                // Without a ready pod, Knative routes through the activators in either mode.
                _ if count.ready == 0 => ServingMode::Proxy,
                Some(scale) => serving_mode(1, scale.excess_burst_capacity),
                None => facts.sks.as_ref().map_or(ServingMode::Proxy, |sks| sks.mode),
            },
            held: !self.inputs.demand.in_flight.is_empty(),
            demand_unknown: self.inputs.demand.is_unknown,
            hidden_for: own.hidden_since.map(|since| now.monotonic.saturating_sub(since)),
            activator_answers: self.activator_answers(own),
        };
        lifecycle::decide(&situation, &facts.settings)
    }

    fn activator_answers(&self, own: &RevisionMemory) -> bool {
        let probe = self.inputs.activator.as_ref().filter(|probe| probe.is_activator);
        probe.zip(own.hidden_since).is_some_and(|(probe, since)| probe.at >= since)
    }

    fn place(
        &self,
        outcome: &Outcome,
        standing: &mut Standing,
        to_place: ToPlace<'_>,
        own: &mut RevisionMemory,
    ) -> Result<RevisionPlacement, ProblemError> {
        let ToPlace { demand, is_steady, requests_per_second } = to_place;
        let facts = &*self.inputs.facts;
        let settings = &facts.settings;
        let goal = own.goal.clone();
        let ways =
            goal.as_deref().zip(settings.p95).filter(|_| !demand.is_empty()).map(|(goal, p95)| goal.ways(p95.as_secs_f64()));
        let question =
            |replicas| Question { replicas, pod_target: settings.target, demand, is_steady, requests_per_second, ways };
        match outcome.goal {
            Goal::Pods(0) => Ok(RevisionPlacement::default()),
            Goal::Pods(replicas) => place::place(self.key, self.picture, facts, standing, own, &question(replicas)),
            Goal::AtLeast(replicas) => {
                let running: u32 = standing.running.values().sum();
                let missing = replicas.saturating_sub(running + self.on_their_way());
                if missing == 0 {
                    return Ok(place::keep(standing));
                }
                let question = Question { is_steady: false, ..question(running + missing) };
                place::place(self.key, self.picture, facts, standing, own, &question)
            }
            Goal::Keep => Ok(place::keep(standing)),
        }
    }

    /// Pods that the Deployment has not created yet, or that the scheduler may still bind.
    fn on_their_way(&self) -> u32 {
        let facts = &*self.inputs.facts;
        let is_counted = |pod: &&rollout::Pod| pod.maker == Maker::Deployment && (pod.node.is_some() || pod.trouble.is_some());
        facts.deployment.saturating_sub(rollout::as_count(facts.pods.iter().filter(is_counted).count()))
    }

    /// The demand that pods are placed by, and whether they may move for it: that of the stable
    /// window, of the panic window in a panic, and before there is either, the requests that wait
    /// right now. Where no source is steady, pods are added and taken by the stray requests that
    /// there are, and none moves.
    fn demand_to_place(&self, windows: &Windows, scale: Option<&Scale>) -> (Vec<(NodeName, f64)>, bool) {
        let settings = &self.inputs.facts.settings;
        let panic = windows.panic.as_ref().filter(|_| scale.is_some_and(|scale| scale.panicking));
        let averaged = || {
            let sources = panic.or(windows.stable.as_ref()).into_iter().flatten();
            sources.map(|(node, source)| (node.clone(), amount(settings.metric, source))).filter(|(_, demand)| *demand > 0.0)
        };
        let steady: Vec<_> = averaged().filter(|(node, _)| windows.is_steady(node)).collect();
        if !steady.is_empty() {
            return (steady, true);
        }
        let stray: Vec<_> = averaged().collect();
        if !stray.is_empty() {
            return (stray, false);
        }
        (self.inputs.demand.in_flight.iter().map(|(node, held)| (node.clone(), *held)).collect(), false)
    }

    /// Requests per second from the sources of `demand`, averaged over a whole stable window, so
    /// that a few seconds of traffic count as few requests.
    fn rate(&self, windows: &Windows, demand: &[(NodeName, f64)], own: &RevisionMemory) -> f64 {
        let window = self.inputs.facts.settings.stable_window;
        let sampled_seconds = own.history.sampled_seconds(self.picture.now.second(), window) as f64;
        let of = |node| windows.stable.as_ref()?.get(node).map(|source| source.requests_per_second);
        let rate: f64 = demand.iter().filter_map(|(node, _)| of(node)).sum();
        rate * sampled_seconds / window.as_secs_f64().max(1.0)
    }

    /// Routes to the ready pods. Pods that will be removed get no requests once the others can
    /// carry all demand.
    fn route(
        &self,
        target: &RevisionPlacement,
        standing: &Standing,
        demand: &[(NodeName, f64)],
        own: &mut RevisionMemory,
    ) -> Result<Option<Arc<Routes>>, ProblemError> {
        let staying: Counts = standing
            .ready
            .iter()
            .filter(|(node, _)| target.pods.contains_key(*node))
            .map(|(node, count)| (node.clone(), *count))
            .collect();
        let placed: u32 = target.pods.iter().filter(|(node, _)| !target.kept.contains_key(*node)).map(|(_, count)| count).sum();
        let is_enough = !staying.is_empty() && staying.values().sum::<u32>() >= placed;
        let serving = if is_enough { &staying } else { &standing.ready };
        let capacity = self.inputs.facts.settings.capacity;
        let routes = routes::route(self.key, &self.picture.network, self.nodes, serving, demand, capacity)?;
        let routes = routes.map(|routes| match own.routes.take() {
            Some(before) if *before == routes => before,
            _ => Arc::new(routes),
        });
        own.routes.clone_from(&routes);
        Ok(routes)
    }

    fn step(&self, outcome: &Outcome, target: &RevisionPlacement, own: &RevisionMemory) -> Option<Step> {
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

    fn hand_back(&self, outcome: &Outcome, may_serve: u32, own: &mut RevisionMemory) -> BackStep {
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

    fn settled(&self) -> Settled {
        let facts = &self.inputs.facts;
        let is_anywhere = !facts.pods.is_empty() || !facts.seika.is_empty();
        let network_version = is_anywhere.then_some(self.picture.network.version);
        Settled { facts: facts.clone(), network_version, review: review(self.picture, facts) }
    }

    /// Whether this decision leaves everything as it is and time alone changes nothing of that.
    fn settles(&self, decision: &Decision, own: &RevisionMemory) -> bool {
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

/// The demand that pods are placed by.
#[derive(Clone, Copy)]
struct ToPlace<'a> {
    demand: &'a [(NodeName, f64)],
    /// Whether pods may move for it.
    is_steady: bool,
    /// How many requests per second it is; `None` where some of it is expected only.
    requests_per_second: Option<f64>,
}

/// Averages over the two windows, per source node.
struct Windows {
    stable: Option<BTreeMap<NodeName, SourceDemand>>,
    panic: Option<BTreeMap<NodeName, SourceDemand>>,
    totals: Option<(SourceDemand, SourceDemand)>,
    /// Shares of the seconds with demand, over the window by which sources earn pods and over the
    /// stable one.
    recent_shares: BTreeMap<NodeName, f64>,
    stable_shares: BTreeMap<NodeName, f64>,
}

impl Windows {
    fn of(history: &DemandHistory, second: u64, settings: &RevisionSettings) -> Self {
        let total = |window| history.totals(second, window, settings.aggregation);
        Self {
            stable: history.average(second, settings.stable_window, settings.aggregation),
            panic: history.average(second, settings.panic_window, settings.aggregation),
            totals: total(settings.stable_window).zip(total(settings.panic_window)),
            recent_shares: history.active_share(second, earned::Policy::default().gain_window),
            stable_shares: history.active_share(second, settings.stable_window),
        }
    }

    /// Whether a source's demand is as steady as that of sources that earn or keep a replica. Stray
    /// requests (an occasional check) must not move pods back and forth.
    fn is_steady(&self, node: &NodeName) -> bool {
        let policy = earned::Policy::default();
        let has = |shares: &BTreeMap<NodeName, f64>, least| shares.get(node).is_some_and(|share| *share >= least);
        has(&self.recent_shares, policy.steady_share) || has(&self.stable_shares, policy.keep_share)
    }

    /// Stable and panic demand, summed over the sources.
    fn totals(&self, metric: Metric) -> Option<(f64, f64)> {
        self.totals.as_ref().map(|(stable, panic)| (amount(metric, stable), amount(metric, panic)))
    }
}

fn amount(metric: Metric, source: &SourceDemand) -> f64 {
    match metric {
        Metric::Concurrency => source.concurrency,
        Metric::Rps => source.requests_per_second,
    }
}

/// Holds the total, with what sources earned, to what holds for the KPA's own count: nothing falls
/// in a panic, and a lower count waits for the scale-down delay.
fn hold(own: &mut RevisionMemory, now: Duration, total: u32, scale: &Scale, settings: &RevisionSettings) -> u32 {
    let total = if scale.panicking { total.max(own.most_in_panic.unwrap_or(0)) } else { total };
    own.most_in_panic = scale.panicking.then_some(total);
    if settings.scale_down_delay.is_zero() {
        own.totals.clear();
        return total;
    }
    own.totals.retain(|(at, _)| *at + settings.scale_down_delay > now);
    // Smaller counts before this one cannot be the maximum any more: the queue is descending.
    while own.totals.back().is_some_and(|(_, last)| *last <= total) {
        own.totals.pop_back();
    }
    own.totals.push_back((now, total));
    own.totals.front().map_or(total, |(_, most)| *most)
}

/// Records, per node with pods, since when no request is routed there.
fn note_withdrawn(own: &mut RevisionMemory, existing: &Counts, routes: Option<&Routes>, now: Duration) {
    let serving: BTreeSet<&NodeName> = routes.map(Routes::serving).unwrap_or_default();
    own.withdrawn_since.retain(|node, _| existing.contains_key(node) && !serving.contains(node));
    for node in existing.keys().filter(|node| !serving.contains(node)) {
        own.withdrawn_since.entry(node.clone()).or_insert(now);
    }
}

#[cfg(test)]
mod tests;
