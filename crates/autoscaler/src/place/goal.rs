//! The fewest pods that answer most requests within the goal of a revision.
//!
//! The time of a request is the round trip to the pod plus the recent mean serving time there; its
//! variance is ignored. Unknown values are no reason to add a pod: an unknown round trip counts as
//! short, an unknown serving time as zero.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway_link::RevisionKey;
use latency_matrix::{NodeName, Rtt};
use placement::CostMatrix;
use placement::problem::{Blocker, ProblemError, ServiceLevel, ServingCurve};
use serde::{Deserialize, Serialize};

use super::candidates::candidates;
use super::{Question, Standing, is_like, pose};
use crate::picture::{Network, Picture};

/// The share of the requests that the goal is about.
const SHARE: f64 = 0.95;
/// What a way costs on top that is too long, seconds: pods go where fewer requests are late, before
/// they go where the mean is less.
const LATE_SECONDS: f64 = 1.0;
/// Serving times that differ by less than this share are alike.
const SAME_SERVICE: f64 = 0.2;
/// Without a max-scale, at most this many pods are tried beyond the count for the demand.
const MOST_MORE: u32 = 64;

/// Whether the goal can be met, and what blocks it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalState {
    /// The goal: 95 % of the requests are answered within this time, seconds.
    pub seconds: f64,
    /// The fewest pods that meet it, or that come nearest.
    pub pods: u32,
    /// Whether they meet it.
    pub is_met: bool,
    /// The share of the demand that they answer in time.
    pub share_within: f64,
    /// Mean serving time of the fastest pods, seconds; `None` if unknown.
    pub serving_seconds: Option<f64>,
    /// Why the goal is missed.
    pub blockers: Vec<Blocker>,
}

/// What is kept of a goal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GoalMemory {
    /// What requests took at the pods of each node, when that was last known.
    service: BTreeMap<NodeName, f64>,
    planned: Option<Planned>,
    /// Pods asked for in the last stable window, as far as a later, greater number does not hide
    /// them.
    pods: VecDeque<(Duration, u32)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Planned {
    seconds: f64,
    range: (u32, u32),
    demand: Vec<(NodeName, f64)>,
    service: BTreeMap<NodeName, f64>,
    network_version: u64,
    state: GoalState,
}

impl GoalMemory {
    /// Records serving times.
    pub(crate) fn learn(&mut self, service: &BTreeMap<NodeName, f64>) {
        if !service.is_empty() {
            self.service.clone_from(service);
        }
    }

    /// Fewer pods only when fewer were enough for a whole `window`.
    pub(crate) fn hold(&mut self, now: Duration, window: Duration, pods: u32) -> u32 {
        self.pods.retain(|(at, _)| *at + window > now);
        while self.pods.back().is_some_and(|(_, last)| *last <= pods) {
            self.pods.pop_back();
        }
        self.pods.push_back((now, pods));
        self.pods.front().map_or(pods, |(_, most)| *most)
    }

    pub(crate) fn ways(&self, seconds: f64) -> GoalCosts<'_> {
        GoalCosts { seconds, service: &self.service }
    }
}

/// What a way costs a revision with a goal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoalCosts<'a> {
    seconds: f64,
    service: &'a BTreeMap<NodeName, f64>,
}

impl GoalCosts<'_> {
    /// What requests take at the pods of each node, where known.
    pub(super) fn service(&self) -> &BTreeMap<NodeName, f64> {
        self.service
    }

    /// Whether so long serving times lead to the same plan.
    pub(super) fn are_like(&self, service: &BTreeMap<NodeName, f64>) -> bool {
        are_like(self.service, service)
    }

    /// What requests take at the fastest pods.
    fn fastest(&self) -> Option<f64> {
        self.service.values().copied().min_by(f64::total_cmp)
    }

    /// Round trips from `sources` to `nodes`, and how much longer requests take on slower nodes.
    /// What is late costs more, where `is_late_dear` says so. A source goes by another name than
    /// its node, since the way from a node to itself costs nothing, however slow it is.
    pub(super) fn costs<'n>(
        &self,
        network: &Network,
        sources: impl Iterator<Item = &'n NodeName>,
        nodes: &[NodeName],
        is_late_dear: bool,
    ) -> CostMatrix {
        let fastest = self.fastest().unwrap_or(0.0);
        let sources: Vec<&NodeName> = sources.collect();
        let size = sources.len() + nodes.len();
        let mut seconds = vec![0.0; size * size];
        for (row, from) in sources.iter().enumerate() {
            for (column, to) in nodes.iter().enumerate() {
                let way = network.costs.seconds(from, to);
                let slower = self.service.get(to).map_or(0.0, |service| (service - fastest).max(0.0));
                let is_unknown = way.is_finite() && way >= Rtt::ABSURD.seconds();
                let is_late = !is_unknown && way + slower + fastest > self.seconds;
                seconds[row * size + sources.len() + column] = match (is_late_dear, is_unknown) {
                    (true, _) => way + slower + if is_late { LATE_SECONDS } else { 0.0 },
                    (false, true) => slower,
                    (false, false) => way + slower,
                };
            }
        }
        let names = sources.into_iter().map(source_name).chain(nodes.iter().cloned());
        CostMatrix::from_row_major(names.collect(), seconds)
    }
}

/// What stands before the name of a node where it sends requests.
const SOURCE: &str = "from ";

pub(super) fn source_name(node: &NodeName) -> NodeName {
    NodeName::new(format!("{SOURCE}{node}"))
}

/// The fewest of `least` pods or more, up to `most` where that is given.
pub(crate) fn fewest(
    key: &RevisionKey,
    picture: &Picture,
    standing: &Standing,
    memory: &mut GoalMemory,
    question: &Question<'_>,
    (seconds, least, most): (f64, u32, Option<u32>),
) -> Result<GoalState, ProblemError> {
    let sources = u32::try_from(question.demand.len()).unwrap_or(MOST_MORE);
    let range = (least, most.unwrap_or(least.saturating_add(least.max(sources).min(MOST_MORE))).max(least));
    if let Some(planned) = &memory.planned
        && (planned.seconds, planned.range, planned.network_version) == (seconds, range, picture.network.version)
        && is_like(&planned.demand, question.demand)
        && are_like(&planned.service, &memory.service)
    {
        return Ok(planned.state.clone());
    }
    let ways = memory.ways(seconds);
    let fastest = ways.fastest();
    let question = Question { replicas: range.1, ways: Some(ways), ..*question };
    let looked_at = candidates(&picture.network, standing, None, &question);
    let problem = pose(key, picture, standing, None, &question, &looked_at.nodes, false);
    let problem = match ServingCurve::flat(fastest.unwrap_or(0.0)) {
        Ok(curve) => problem.with_serving(curve),
        Err(_) => problem,
    };
    let level = problem.fewest_replicas(ServiceLevel { share: SHARE, seconds }, range.0..=range.1)?;
    let pods = if level.met {
        level.plan.total_replicas()
    } else if level.share_within > 0.0 {
        // Pods beyond those that come as near only cost.
        let nearest = ServiceLevel { share: level.share_within, seconds };
        problem.fewest_replicas(nearest, range.0..=range.1)?.plan.total_replicas()
    } else {
        least
    };
    let state = GoalState {
        seconds,
        pods: pods.max(least),
        is_met: level.met,
        share_within: level.share_within,
        serving_seconds: fastest,
        blockers: level.blockers.into_iter().map(with_node_name).collect(),
    };
    memory.planned = Some(Planned {
        seconds,
        range,
        demand: question.demand.to_vec(),
        service: memory.service.clone(),
        network_version: picture.network.version,
        state: state.clone(),
    });
    Ok(state)
}

fn with_node_name(blocker: Blocker) -> Blocker {
    match blocker {
        Blocker::TooFar { source, concurrency, seconds } => {
            let node = source.as_str().strip_prefix(SOURCE).map_or_else(|| source.clone(), NodeName::new);
            // Where no node may run a pod it is infinitely far, which JSON cannot say.
            Blocker::TooFar { source: node, concurrency, seconds: seconds.min(Rtt::ABSURD.seconds()) }
        }
        other => other,
    }
}

fn are_like(one: &BTreeMap<NodeName, f64>, other: &BTreeMap<NodeName, f64>) -> bool {
    let is_near = |a: f64, b: f64| (a - b).abs() <= SAME_SERVICE * a.max(b);
    one.len() == other.len() && one.iter().zip(other).all(|((a, x), (b, y))| a == b && is_near(*x, *y))
}

impl GoalState {
    /// What blocks the goal, in words that stay the same while the blocker does; `None` where it is
    /// met.
    #[must_use]
    pub fn blocked_by(&self) -> Option<String> {
        let text = |blocker: &Blocker| match blocker {
            Blocker::Serving { .. } => "serving alone takes longer".to_owned(),
            Blocker::TooFar { source, .. } => format!("{source} is too far from every node that may run a pod"),
            Blocker::Room { .. } => "the nodes near enough have no room for more pods".to_owned(),
            Blocker::Replicas { .. } => "max-scale allows no more pods".to_owned(),
        };
        // Where a source is too far or serving too slow, more pods would not help.
        let is_final = |blocker: &&Blocker| matches!(blocker, Blocker::Serving { .. } | Blocker::TooFar { .. });
        let mut words: Vec<String> = self.blockers.iter().filter(is_final).map(text).collect();
        if words.is_empty() {
            words = self.blockers.iter().map(text).collect();
        }
        words.truncate(super::MOST_REASONS);
        (!self.is_met).then(|| words.join("; "))
    }
}
