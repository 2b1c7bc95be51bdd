//! Where the pods go, and which way requests go to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::NodeName;
use placement::problem::ProblemError;

use super::Deciding;
use super::windows::{Windows, amount};
use crate::kpa::Scale;
use crate::lifecycle::{Goal, Outcome};
use crate::memory::RevisionMemory;
use crate::place::{self, Question, RevisionPlacement, Standing};
use crate::rollout::{self, Counts, Maker};
use crate::routes::{self, Routes};

/// The demand that pods are placed by.
#[derive(Clone, Copy)]
pub(super) struct ToPlace<'a> {
    pub(super) demand: &'a [(NodeName, f64)],
    /// Whether pods may move for it.
    pub(super) is_steady: bool,
    /// How many requests per second it is; `None` where some of it is expected only.
    pub(super) requests_per_second: Option<f64>,
}

impl Deciding<'_> {
    pub(super) fn place(
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
    pub(super) fn demand_to_place(&self, windows: &Windows, scale: Option<&Scale>) -> (Vec<(NodeName, f64)>, bool) {
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
    pub(super) fn rate(&self, windows: &Windows, demand: &[(NodeName, f64)], own: &RevisionMemory) -> f64 {
        let window = self.inputs.facts.settings.stable_window;
        let sampled_seconds = own.history.sampled_seconds(self.picture.now.second(), window) as f64;
        let of = |node| windows.stable.as_ref()?.get(node).map(|source| source.requests_per_second);
        let rate: f64 = demand.iter().filter_map(|(node, _)| of(node)).sum();
        rate * sampled_seconds / window.as_secs_f64().max(1.0)
    }

    /// Routes to the ready pods. Pods that will be removed get no requests once the others can
    /// carry all demand.
    pub(super) fn route(
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
}

/// Records, per node with pods, since when no request is routed there.
pub(super) fn note_withdrawn(own: &mut RevisionMemory, existing: &Counts, routes: Option<&Routes>, now: Duration) {
    let serving: BTreeSet<&NodeName> = routes.map(Routes::serving).unwrap_or_default();
    own.withdrawn_since.retain(|node, _| existing.contains_key(node) && !serving.contains(node));
    for node in existing.keys().filter(|node| !serving.contains(node)) {
        own.withdrawn_since.entry(node.clone()).or_insert(now);
    }
}
