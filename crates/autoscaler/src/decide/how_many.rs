//! How many pods measured demand asks for, and what that means for the revision.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_api::{PodAutoscalerStatus, Reachability, ServingMode};
use latency_matrix::NodeName;
use placement::problem::CostModel;

use super::windows::{Windows, amount};
use super::{Count, Deciding, active};
use crate::earned;
use crate::kpa::{Observed, Scale, ScaleMemory, serving_mode};
use crate::lifecycle::{self, Lasting, Outcome, Situation};
use crate::memory::RevisionMemory;
use crate::place::Standing;
use crate::rollout;
use crate::settings::{Aggregation, Metric, RevisionSettings};

impl Deciding<'_> {
    /// The number of pods that measured demand asks for.
    pub(super) fn how_many(
        &self,
        windows: &Windows,
        ready: u32,
        standing: &Standing,
        own: &mut RevisionMemory,
    ) -> (Option<Scale>, Count) {
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

    pub(super) fn outcome(&self, count: &Count, scale: Option<&Scale>, standing: &Standing, own: &mut RevisionMemory) -> Outcome {
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

    pub(super) fn activator_answers(&self, own: &RevisionMemory) -> bool {
        let probe = self.inputs.activator.as_ref().filter(|probe| probe.is_activator);
        probe.zip(own.hidden_since).is_some_and(|(probe, since)| probe.at >= since)
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
