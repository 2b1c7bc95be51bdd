//! The decision about one revision: from what was observed to what is to be. Pure.
//!
//! how many ([`autoscaler`](crate::autoscaler), [`lifecycle`]) -> where ([`placement::Problem`]) -> in which order
//! ([`rollout`]) -> which way ([`placement::WeightMatrix`]) -> what Knative is told ([`status`])

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use placement::{
    CostMatrix, CostModel, CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, Plan, Problem, ProblemError, WeightMatrix,
};
use gateway_link::RevisionKey;

use crate::autoscaler::{DemandHistory, Observed, ScaleMemory, SourceDemand, locality, serving_mode};
use crate::knative::{
    ConditionStatus, PodAutoscaler, PodAutoscalerStatus, Reachability, ServerlessService, ServerlessServiceStatus, ServingMode,
};
use crate::lifecycle::{self, Goal, Situation};
use crate::rollout::{self, Counts, Maker, Pod, Present, Step};
use crate::settings::{Aggregation, Metric, RevisionSettings};
use crate::status;

/// One instant on two clocks: what conditions record, and what windows are measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since some fixed instant; never jumps.
    pub monotonic: Duration,
}

impl Now {
    /// The second that demand is recorded under.
    #[must_use]
    pub fn second(self) -> u64 {
        self.monotonic.as_secs()
    }
}

/// Everything that the decision about one revision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// When.
    pub now: Now,
    /// Which revision.
    pub key: &'a RevisionKey,
    /// What Knative asks.
    pub autoscaler: &'a PodAutoscaler,
    /// Its ServerlessService, once there is one.
    pub sks: Option<&'a ServerlessService>,
    /// Its settings.
    pub settings: &'a RevisionSettings,
    /// Its pods that are not going.
    pub pods: &'a [Pod],
    /// What its Seika is told.
    pub seika: &'a Counts,
    /// What its Deployment is told.
    pub deployment: u32,
    /// Its demand second by second.
    pub history: &'a DemandHistory,
    /// Requests in flight at this instant, per source node.
    pub held: &'a BTreeMap<NodeName, f64>,
    /// Whether some gateway's demand is unknown, or there is no gateway.
    pub demand_unknown: bool,
    /// What is known of the network, over all nodes.
    pub latency: &'a LatencyMatrix,
    /// Room per node.
    pub capacities: &'a [NodeCapacity],
    /// How gateways spread requests.
    pub model: CostModel,
    /// When source nodes earn replicas of their own; `None` never.
    pub locality: Option<&'a locality::Policy>,
}

/// What one decision leaves for the next. Lost without harm: a program that starts anew shrinks nothing for a stable window.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    scale: Option<ScaleMemory>,
    earned: BTreeSet<NodeName>,
    withdrawn_since: BTreeMap<NodeName, Duration>,
}

/// What is to be.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Where the public Service is to lead.
    pub mode: ServingMode,
    /// What Knative is told.
    pub status: PodAutoscalerStatus,
    /// What Seika and Deployment are told; `None` leaves both as they are.
    pub step: Option<Step>,
    /// Pods per node that this leads to.
    pub target: Counts,
    /// Which way each node's requests go; `None` while no pod is ready.
    pub weights: Option<WeightMatrix>,
    /// Replicas that found no node, and why.
    pub unplaced: Option<placement::Unplaced>,
    /// Demand over the stable window, in the metric's unit, where known.
    pub stable_demand: Option<f64>,
    /// Whether the short window rules.
    pub panicking: bool,
}

/// A replica moves for a gain of at least this much mean response time: noise of the network must not move pods.
const MOVE_SECONDS: f64 = 0.0005;
/// More than any move gains.
const NO_MOVE_SECONDS: f64 = 60.0;
/// Gateways have taken up new routes, and sent the last request along the old ones, after this.
const ROUTES_SETTLE: Duration = Duration::from_secs(1);

/// Decides.
///
/// # Errors
/// Where the placement library refuses the numbers.
pub fn decide(observation: &Observation<'_>, memory: &mut Memory) -> Result<Decision, ProblemError> {
    let Observation { now, settings, pods, .. } = *observation;
    let before = observation.autoscaler.status.clone().unwrap_or_default();
    let initialized = before.is_initialized();
    let ready = count(pods.iter().filter(|pod| pod.ready));
    let reachable = observation.autoscaler.spec.reachability != Reachability::Unreachable;

    // How many.
    let average = |window, aggregation| observation.history.average(now.second(), window, aggregation);
    let stable = average(settings.stable_window, settings.aggregation);
    let panic = average(settings.panic_window, settings.aggregation);
    let scale_memory = memory.scale.get_or_insert_with(|| ScaleMemory::resumed(now.monotonic, ready));
    let sum = |demand: &BTreeMap<NodeName, SourceDemand>| demand.values().map(|source| of(settings.metric, source)).sum::<f64>();
    let stable_demand = stable.as_ref().map(sum);
    let scale = stable_demand
        .zip(panic.as_ref().map(sum))
        .map(|(stable, panic)| scale_memory.scale(now.monotonic, Observed { stable, panic, ready, reachable }, settings));
    let earned = match (observation.locality, &stable) {
        (Some(policy), Some(stable)) => earned(observation, stable, policy, &memory.earned),
        _ => BTreeMap::new(),
    };
    memory.earned = earned.keys().cloned().collect();
    let asked = scale.map(|scale| scale.want.max(earned.values().sum()));
    let told_mode = observation.sks.map_or(ServingMode::Proxy, |sks| sks.spec.mode);
    let active = before.condition(PodAutoscalerStatus::ACTIVE);
    let outcome = lifecycle::decide(
        &Situation {
            now: now.wall,
            active: active.map_or(ConditionStatus::Unknown, |condition| condition.status),
            active_since: active
                .and_then(|condition| condition.last_transition_time)
                .or(observation.autoscaler.metadata.creation_timestamp.as_ref().map(|time| time.0))
                .unwrap_or(now.wall),
            initialized,
            pods: count(pods.iter()),
            asked,
            mode: match scale {
                // With nobody ready the activators are in the way whatever is written.
                _ if ready == 0 => ServingMode::Proxy,
                Some(scale) => serving_mode(1, scale.excess_burst_capacity),
                None => told_mode,
            },
            held: !observation.held.is_empty(),
            demand_unknown: observation.demand_unknown,
            activators_since: observation
                .sks
                .and_then(|sks| sks.status.as_ref()?.holds(ServerlessServiceStatus::ACTIVATORS)?.last_transition_time),
        },
        settings,
    );

    // Where.
    let costs = CostPolicy::default().costs(observation.latency);
    let (demand, move_seconds) =
        demand_to_place(observation, stable.as_ref(), panic.as_ref().filter(|_| scale.is_some_and(|s| s.panicking)));
    let running = running(observation);
    let solve = |replicas| {
        Problem::new(observation.key.to_string(), costs.clone(), replicas, settings.target)
            .with_demand(demand.clone())
            .with_capacities(observation.capacities.iter().cloned())
            .with_running(running.clone())
            .with_model(observation.model)
            .with_move_seconds(move_seconds)
            .solve()
            .map(|plan| (plan.replicas, plan.unplaced))
    };
    let (target, unplaced) = match outcome.goal {
        Goal::Pods(0) => (Counts::new(), None),
        Goal::Pods(replicas) => solve(replicas)?,
        Goal::AtLeast(replicas) if missing(observation, &running, replicas) > 0 => {
            let (mut target, unplaced) = solve(running.values().sum::<u32>() + missing(observation, &running, replicas))?;
            for (node, count) in &running {
                let planned = target.entry(node.clone()).or_default();
                *planned = (*planned).max(*count);
            }
            (target, unplaced)
        }
        Goal::Keep | Goal::AtLeast(_) => (running.clone(), None),
    };

    // Which way, and in which order. Requests are led away from a node before its last pod goes.
    let weights = weights(observation, &target, &costs, &demand)?;
    note_withdrawn(&mut memory.withdrawn_since, &running, weights.as_ref(), now.monotonic);
    let settled = |since: &Duration| target.is_empty() || now.monotonic.saturating_sub(*since) >= ROUTES_SETTLE;
    let withdrawn: BTreeSet<NodeName> = if target.is_empty() {
        running.keys().cloned().collect()
    } else {
        memory.withdrawn_since.iter().filter(|(_, since)| settled(since)).map(|(node, _)| node.clone()).collect()
    };
    let present = Present { pods, seika: observation.seika, deployment: observation.deployment, withdrawn: &withdrawn };
    let step = match outcome.goal {
        Goal::Keep => None,
        Goal::Pods(_) => Some(rollout::step(&target, &present)),
        Goal::AtLeast(_) => {
            let seika = rollout::step(&target, &present).seika;
            Some(Step { seika, deployment: observation.deployment, victims: Vec::new() })
        }
    };

    let facts = status::Facts {
        now: now.wall,
        generation: observation.autoscaler.metadata.generation.unwrap_or_default(),
        sks: observation.sks,
        ready,
        want: outcome.want,
        threshold: settings.activation_threshold(initialized),
    };
    let status = status::next(&before, &facts, settings.activation_threshold(true));
    Ok(Decision {
        mode: outcome.mode,
        status,
        step,
        target,
        weights,
        unplaced,
        stable_demand,
        panicking: scale.is_some_and(|scale| scale.panicking),
    })
}

fn count<'a>(pods: impl Iterator<Item = &'a Pod>) -> u32 {
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}

fn of(metric: Metric, source: &SourceDemand) -> f64 {
    match metric {
        Metric::Concurrency => source.concurrency,
        Metric::Rps => source.requests_per_second,
    }
}

/// Pods per node that there are or are told to be.
fn running(observation: &Observation<'_>) -> Counts {
    let mut running = observation.seika.clone();
    for pod in observation.pods.iter().filter(|pod| pod.maker == Maker::Deployment) {
        if let Some(node) = &pod.node {
            *running.entry(node.clone()).or_default() += 1;
        }
    }
    running.retain(|_, count| *count > 0);
    running
}

/// How many pods are missing to `least`, beside those that run and those that the Deployment has still to start or place.
fn missing(observation: &Observation<'_>, running: &Counts, least: u32) -> u32 {
    let placed = observation.pods.iter().filter(|pod| pod.maker == Maker::Deployment && pod.node.is_some());
    let on_their_way = observation.deployment.saturating_sub(count(placed));
    least.saturating_sub(running.values().sum::<u32>() + on_their_way)
}

fn earned(
    observation: &Observation<'_>,
    stable: &BTreeMap<NodeName, SourceDemand>,
    policy: &locality::Policy,
    held: &BTreeSet<NodeName>,
) -> BTreeMap<NodeName, u32> {
    let Observation { now, settings, history, .. } = *observation;
    let recent = history.average(now.second(), policy.gain_window, Aggregation::Linear).unwrap_or_default();
    let recent_shares = history.active_share(now.second(), policy.gain_window);
    let stable_shares = history.active_share(now.second(), settings.stable_window);
    let share = |shares: &BTreeMap<NodeName, f64>, node| shares.get(node).copied().unwrap_or(0.0);
    let sources = stable
        .iter()
        .map(|(node, demand)| {
            let source = locality::Source {
                requests_per_second: recent.get(node).copied().unwrap_or_default().requests_per_second,
                replicas_worth: of(settings.metric, demand) / settings.target,
                recent_share: share(&recent_shares, node),
                stable_share: share(&stable_shares, node),
            };
            (node.clone(), source)
        })
        .collect();
    locality::earned(&sources, held, policy, |from, to| observation.latency.state(from, to).stats().map(|stats| stats.p50))
}

/// The demand that pods are placed by, and what a move costs: that of the stable window, of the panic window in a panic, and before there
/// is either, the requests that wait right now. Where no source is steady, pods are added and taken by the stray requests that there
/// are, and none moves.
fn demand_to_place(
    observation: &Observation<'_>,
    stable: Option<&BTreeMap<NodeName, SourceDemand>>,
    panic: Option<&BTreeMap<NodeName, SourceDemand>>,
) -> (Demand, f64) {
    let metric = observation.settings.metric;
    // The history holds finite numbers above zero only.
    let demand = |sources: &mut dyn Iterator<Item = (&NodeName, f64)>| {
        Demand::from_concurrency(sources.map(|(node, demand)| (node.clone(), demand))).unwrap_or_default()
    };
    let averaged = || panic.or(stable).into_iter().flatten().map(|(node, source)| (node, of(metric, source)));
    let steady_sources = steady_sources(observation);
    let steady = demand(&mut averaged().filter(|(node, _)| steady_sources.contains(*node)));
    if !steady.is_zero() {
        return (steady, MOVE_SECONDS);
    }
    let stray = demand(&mut averaged());
    if !stray.is_zero() {
        return (stray, NO_MOVE_SECONDS);
    }
    (demand(&mut observation.held.iter().map(|(node, held)| (node, *held))), NO_MOVE_SECONDS)
}

/// Sources as steady as those that earn a replica, or keep it: a stray request (somebody's check, every now and then) would draw pods to
/// it, and the next one away again.
fn steady_sources(observation: &Observation<'_>) -> BTreeSet<NodeName> {
    let Observation { now, settings, history, .. } = *observation;
    let policy = observation.locality.copied().unwrap_or_default();
    let steady = |(window, least)| {
        let shares = history.active_share(now.second(), window);
        shares.into_iter().filter(move |(_, share)| *share >= least).map(|(node, _)| node)
    };
    [(policy.gain_window, policy.steady_share), (settings.stable_window, policy.keep_share)]
        .into_iter()
        .flat_map(steady)
        .collect()
}

/// Weights over the pods that are ready, less those that are to go once the ones that stay can carry all.
fn weights(
    observation: &Observation<'_>,
    target: &Counts,
    costs: &CostMatrix,
    demand: &Demand,
) -> Result<Option<WeightMatrix>, ProblemError> {
    let mut ready = Counts::new();
    for node in observation.pods.iter().filter(|pod| pod.ready).filter_map(|pod| pod.node.as_ref()) {
        *ready.entry(node.clone()).or_default() += 1;
    }
    let staying: Counts =
        ready.iter().filter(|(node, _)| target.contains_key(*node)).map(|(node, n)| (node.clone(), *n)).collect();
    let enough = !staying.is_empty() && staying.values().sum::<u32>() >= target.values().sum();
    let serving = if enough { staying } else { ready };
    if serving.is_empty() {
        return Ok(None);
    }
    let plan = forced(observation, &serving, costs, demand)?;
    Ok(Some(WeightMatrix::assigned(observation.latency.nodes(), &plan, costs)))
}

/// The plan whose placement is given: only the flows are decided.
fn forced(observation: &Observation<'_>, serving: &Counts, costs: &CostMatrix, demand: &Demand) -> Result<Plan, ProblemError> {
    let replicas = serving.values().sum();
    Problem::new(observation.key.to_string(), costs.clone(), replicas, observation.settings.capacity)
        .with_demand(demand.clone())
        .with_capacities(serving.iter().map(|(node, count)| NodeCapacity::new(node.clone(), *count)))
        .with_running(serving.clone())
        .with_model(observation.model)
        .solve()
}

/// Keeps, per node that has pods, since when no requests are led there.
fn note_withdrawn(since: &mut BTreeMap<NodeName, Duration>, running: &Counts, weights: Option<&WeightMatrix>, now: Duration) {
    let led_to = |node: &NodeName| {
        weights.is_some_and(|weights| {
            let column = weights.nodes().iter().position(|other| other == node);
            column.is_some_and(|column| {
                weights.nodes().iter().filter_map(|source| weights.row(source)).any(|row| row.get(column).is_some_and(|&w| w > 0))
            })
        })
    };
    since.retain(|node, _| running.contains_key(node) && !led_to(node));
    for node in running.keys().filter(|node| !led_to(node)) {
        since.entry(node.clone()).or_insert(now);
    }
}

#[cfg(test)]
mod tests;
