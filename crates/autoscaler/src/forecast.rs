//! What a change would bring: the decisions of the coming seconds, made on a picture that obeys
//! them at once.
//!
//! Demand stays as it was last measured, pods are ready in the second after they were asked for,
//! and Knative's networking follows without delay. So a forecast says where things end, and nothing
//! about how long that takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use jiff::{SignedDuration, Timestamp};
use k8s_api::{ConditionStatus, ServerlessServiceStatus, ServingMode, set_condition};
use latency_matrix::NodeName;
use placement::CostMatrix;

use crate::decide::{Decision, decide};
use crate::memory::Memory;
use crate::picture::{ActivatorProbe, Facts, Inputs, Network, ObservedDemand, Picture, ServerlessFacts};
use crate::rollout::{Counts, Maker, Pod};
use crate::room::{Admission, NodeRoom, admission};

/// A change that is not made.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The node takes no new pods, and those on it are evicted.
    Drain(NodeName),
    /// What lies between two nodes, both ways, costs this many seconds.
    Link {
        /// One end.
        one: NodeName,
        /// The other end.
        other: NodeName,
        /// The cost of a request between the two, in seconds.
        seconds: f64,
    },
}

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    /// A node of the change is not there.
    #[error("failed to find node {0}")]
    NoNode(NodeName),
    /// The cost of a link is negative or no number.
    #[error("failed to use {0} s as the cost of a link")]
    NoCost(f64),
    /// A revision could not be placed.
    #[error(transparent)]
    Decide(#[from] crate::decide::DecideError),
}

/// Ready pods per node now, and where they end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Now.
    pub before: Counts,
    /// After the change.
    pub after: Counts,
    /// Pods that found no node.
    pub unplaced: u32,
}

/// Where the pods of all revisions end within `seconds` of a change, or without one.
///
/// # Errors
/// [`ForecastError`] where the change names what is not there, or a revision cannot be placed.
pub fn forecast(
    picture: &Picture,
    memory: &Memory,
    change: Option<&Change>,
    seconds: u32,
) -> Result<BTreeMap<RevisionKey, Forecast>, ForecastError> {
    let (mut picture, mut memory) = (picture.clone(), memory.clone());
    let mut forecasts: BTreeMap<RevisionKey, Forecast> = BTreeMap::new();
    let mut steady = BTreeMap::new();
    for (key, inputs) in &picture.revisions {
        forecasts.entry(key.clone()).or_default().before = pods_per_node(&inputs.facts);
        let last = inputs.demand.seconds.iter().rev().find_map(|(_, sources)| sources.clone());
        steady.insert(key.clone(), last);
    }
    if let Some(change) = change {
        make(change, &mut picture)?;
    }
    for _ in 0..seconds {
        pass_a_second(&mut picture, &steady);
        for decision in decide(&picture, &mut memory) {
            let decision = decision?;
            if let Some(forecast) = forecasts.get_mut(&decision.key) {
                forecast.unplaced = decision.target.unplaced.as_ref().map_or(0, |unplaced| unplaced.replicas);
            }
            obey(&mut picture, &decision);
        }
    }
    for (key, inputs) in &picture.revisions {
        forecasts.entry(key.clone()).or_default().after = pods_per_node(&inputs.facts);
    }
    Ok(forecasts)
}

fn pods_per_node(facts: &Facts) -> Counts {
    let mut counts = Counts::new();
    for node in facts.pods.iter().filter(|pod| pod.is_ready).filter_map(|pod| pod.node.as_ref()) {
        *counts.entry(node.clone()).or_default() += 1;
    }
    counts
}

fn make(change: &Change, picture: &mut Picture) -> Result<(), ForecastError> {
    match change {
        Change::Drain(node) => {
            let rooms = Arc::make_mut(&mut picture.room);
            let room = rooms.iter_mut().find(|room| room.node == *node).ok_or_else(|| ForecastError::NoNode(node.clone()))?;
            room.is_cordoned = true;
            for inputs in picture.revisions.values_mut() {
                let facts = Arc::make_mut(&mut inputs.facts);
                let evicted: Vec<Pod> = facts.pods.extract_if(.., |pod| pod.place() == Some(node)).collect();
                // Its owner makes another for each; the decisions say where the Seika's go.
                for pod in &evicted {
                    take(rooms, facts, pod, -1);
                }
                let deployed = evicted.iter().filter(|pod| pod.maker == Maker::Deployment).count();
                for number in 0..deployed {
                    add_deployed(rooms, facts, number);
                }
            }
            Ok(())
        }
        Change::Link { one, other, seconds } => {
            if !seconds.is_finite() || *seconds < 0.0 {
                return Err(ForecastError::NoCost(*seconds));
            }
            let costs = &picture.network.costs;
            let find = |node: &NodeName| costs.position(node).ok_or_else(|| ForecastError::NoNode(node.clone()));
            let (one, other) = (find(one)?, find(other)?);
            let count = costs.nodes().len();
            let cost = |from: usize, to: usize| {
                if (from, to) == (one, other) || (from, to) == (other, one) { *seconds } else { costs.at(from, to) }
            };
            let flat =
                (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).map(|(from, to)| cost(from, to)).collect();
            let costs = CostMatrix::from_row_major(costs.nodes().to_vec(), flat);
            let Network { version, model, .. } = *picture.network;
            picture.network = Arc::new(Network { version: version + 1, costs, model });
            Ok(())
        }
    }
}

/// Takes a pod's share of its node, or gives it back.
fn take(rooms: &mut [NodeRoom], facts: &Facts, pod: &Pod, count: i32) {
    let Some(room) = rooms.iter_mut().find(|room| Some(&room.node) == pod.node.as_ref()) else { return };
    if count > 0 {
        room.taken += &facts.each;
    } else {
        room.taken -= &facts.each;
    }
}

/// Whether a scheduler would let one more pod run there.
fn is_open(room: &NodeRoom, facts: &Facts) -> bool {
    admission(room, &facts.template) == Admission::Open && room.offers.fit(&room.taken, &facts.each) > 0
}

/// A pod of the Deployment, on the first node that a scheduler could choose.
fn add_deployed(rooms: &mut [NodeRoom], facts: &mut Facts, number: usize) {
    let node = rooms.iter().find(|room| is_open(room, facts)).map(|room| room.node.clone());
    let mut pod = Pod::on(
        &format!("forecast-deployed-{number}-{}", facts.pods.len()),
        node.clone().unwrap_or_else(|| "".into()),
        Maker::Deployment,
    );
    if node.is_none() {
        (pod.node, pod.trouble) = (None, Some("Unschedulable".to_owned()));
    }
    take(rooms, facts, &pod, 1);
    facts.pods.push(pod);
}

/// A second later: pods that were asked for are ready, and demand is as it was.
fn pass_a_second(picture: &mut Picture, steady: &BTreeMap<RevisionKey, Option<BTreeMap<NodeName, crate::kpa::SourceDemand>>>) {
    picture.now.wall = picture.now.wall.checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX);
    picture.now.monotonic += Duration::from_secs(1);
    let second = picture.now.second();
    for (key, inputs) in &mut picture.revisions {
        let facts = Arc::make_mut(&mut inputs.facts);
        facts.is_seika_observed = true;
        for pod in facts.pods.iter_mut().filter(|pod| pod.node.is_some()) {
            (pod.is_ready, pod.trouble) = (true, None);
        }
        let (seconds, before) = (steady.get(key).cloned().flatten(), &inputs.demand);
        let demand = ObservedDemand {
            seconds: vec![(second, seconds)],
            in_flight: before.in_flight.clone(),
            service_seconds: before.service_seconds.clone(),
            is_unknown: before.is_unknown,
        };
        inputs.demand = Arc::new(demand);
    }
}

/// Does what was decided.
fn obey(picture: &mut Picture, decision: &Decision) {
    let now = picture.now;
    let rooms = Arc::make_mut(&mut picture.room);
    let Some(Inputs { facts, activator, .. }) = picture.revisions.get_mut(&decision.key) else { return };
    let facts = Arc::make_mut(facts);
    facts.status = decision.status.clone();
    if let Some(step) = &decision.step {
        facts.seika = step.seika.clone();
        facts.deployment = step.deployment;
        let deployed = |facts: &Facts| facts.pods.iter().filter(|pod| pod.maker == Maker::Deployment).count();
        while deployed(facts) > step.deployment as usize {
            let among = facts.pods.iter().enumerate().filter(|(_, pod)| pod.maker == Maker::Deployment);
            // The named ones first, then those that are not ready, as Kubernetes chooses.
            let victim =
                among.min_by_key(|(_, pod)| (!step.victims.contains(&pod.name), pod.is_ready)).map(|(position, _)| position);
            let Some(position) = victim else { break };
            let pod = facts.pods.remove(position);
            take(rooms, facts, &pod, -1);
        }
        let mut number = 0;
        while deployed(facts) < step.deployment as usize {
            add_deployed(rooms, facts, number);
            number += 1;
        }
        keep_counts(rooms, facts);
    }
    let any_ready = facts.pods.iter().any(|pod| pod.is_ready);
    let is_held = !any_ready || decision.mode == ServingMode::Proxy;
    let mut sks = facts.sks.take().unwrap_or_else(|| ServerlessFacts {
        name: decision.key.revision.clone(),
        is_owned: true,
        generation: 1,
        mode: ServingMode::Serve,
        status: None,
    });
    sks.mode = decision.mode;
    let mut status = sks.status.take().unwrap_or_default();
    status.observed_generation = sks.generation;
    let state = |is| if is { ConditionStatus::True } else { ConditionStatus::False };
    set_condition(&mut status.conditions, ServerlessServiceStatus::READY, state(any_ready), None, now.wall);
    set_condition(&mut status.conditions, ServerlessServiceStatus::ACTIVATORS, state(is_held), None, now.wall);
    sks.status = Some(status);
    facts.sks = Some(sks);
    if decision.probe_activator {
        *activator = Some(ActivatorProbe { at: now.monotonic, is_activator: is_held });
    }
}

/// Makes and removes the Seika's pods until each node has its count.
fn keep_counts(rooms: &mut [NodeRoom], facts: &mut Facts) {
    let nodes: Vec<NodeName> = rooms.iter().map(|room| room.node.clone()).collect();
    for node in nodes {
        let is_here = |pod: &Pod| pod.maker == Maker::Seika && pod.place() == Some(&node);
        let wanted = facts.seika.get(&node).copied().unwrap_or(0) as usize;
        let mut there = facts.pods.iter().filter(|pod| is_here(pod)).count();
        while there < wanted {
            let mut pod = Pod::on(&format!("forecast-{node}-{there}"), node.clone(), Maker::Seika);
            if rooms.iter().any(|room| room.node == node && is_open(room, facts)) {
                take(rooms, facts, &pod, 1);
            } else {
                (pod.node, pod.trouble) = (None, Some("Unschedulable".to_owned()));
            }
            facts.pods.push(pod);
            there += 1;
        }
        while there > wanted {
            let unready = facts.pods.iter().position(|pod| is_here(pod) && !pod.is_ready);
            let Some(position) = unready.or_else(|| facts.pods.iter().rposition(is_here)) else { break };
            let pod = facts.pods.remove(position);
            take(rooms, facts, &pod, -1);
            there -= 1;
        }
    }
}
