//! The KPA's decision from two window averages to a number of pods.
//!
//! Every formula is stock's (`pkg/autoscaler/scaling/autoscaler.go`), evaluated at every call.
//! Stock evaluates every two seconds, this class every second and whenever a request waits. At the
//! instants that both evaluate at they come to the same, with these consequences of the instants in
//! between: a burst is noticed up to a second earlier; the most that a panic came to includes them;
//! and a revision halves again as soon as the pods of the last step are gone, where stock may wait
//! a second more. The slots of the scale-down delay are two seconds for both.
//!
//! Added to stock is the hold after a restart, which keeps a single pod, too; see
//! [`ScaleMemory::resumed`].

use std::collections::VecDeque;
use std::time::Duration;

use k8s_api::ServingMode;
use serde::{Deserialize, Serialize};

use crate::settings::RevisionSettings;

/// What the decision starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Demand averaged over the stable window, in the metric's unit.
    pub stable: f64,
    /// Demand averaged over the panic window.
    pub panic: f64,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that were asked for before, ready or not yet: as many as earlier demand was worth. They
    /// count only where that demand is not known any more.
    pub asked_before: u32,
    /// Whether some Route leads here.
    pub reachable: bool,
}

/// What it comes to, before bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Pods wanted.
    pub want: u32,
    /// Whether the short window rules, and nothing shrinks.
    pub panicking: bool,
    /// Requests that the ready pods could take on top of a burst. Below zero, activators stay in
    /// the request path.
    pub excess_burst_capacity: f64,
}

/// What the decision remembers from one time to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScaleMemory {
    panic: Option<Panic>,
    hold: Option<Hold>,
    /// When it was last decided.
    decided: Option<Duration>,
    delayed: Delayed,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Panic {
    /// When the threshold was last passed.
    last: Duration,
    /// The most pods wanted since it began.
    most: u32,
}

/// Nothing shrinks until demand is known for a stable window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Hold {
    since: Duration,
    least: u32,
}

/// Decisions further apart than stock's have time between them in which demand was not known.
const KNOWN_TOGETHER: Duration = Duration::from_secs(2);

impl ScaleMemory {
    /// Memory of a revision that is met with so many pods already there or asked for, by a program
    /// that just started.
    ///
    /// Nothing shrinks until demand was known for a stable window. Stock starts in panic at the
    /// count of several pods, and so does this; stock lets a single pod go at once, and this does
    /// not. The same holds when nothing could be decided for a stable window, since all demand that
    /// was known before is gone by then.
    #[must_use]
    pub fn resumed(now: Duration, pods: u32) -> Self {
        Self {
            panic: (pods > 1).then_some(Panic { last: now, most: pods }),
            hold: Hold::new(now, pods),
            decided: Some(now),
            delayed: Delayed::default(),
        }
    }

    /// Decides. `now` counts from any fixed instant.
    pub fn scale(&mut self, now: Duration, observed: Observed, settings: &RevisionSettings) -> Scale {
        let ready = f64::from(observed.ready.max(1));
        // Both ends leave room for one pod of change, whatever the rates.
        let most = (settings.max_scale_up_rate * ready).ceil();
        let least = if observed.reachable { (ready / settings.max_scale_down_rate).floor() } else { 0.0 };
        let asked_stable = (observed.stable / settings.target).ceil();
        let asked_panic = (observed.panic / settings.target).ceil();
        let settle = |asked: f64| {
            // A number of pods: whole, not negative, and far below what u32 holds.
            let pods = asked.max(least).min(most) as u32;
            if asked > 0.0 { pods.max(settings.activation_scale) } else { pods }
        };
        let (stable, panic) = (settle(asked_stable), settle(asked_panic));

        if asked_panic / ready >= settings.panic_threshold {
            let most = self.panic.map_or(0, |panic| panic.most);
            self.panic = Some(Panic { last: now, most });
        } else if self.panic.is_some_and(|panic| now > panic.last + settings.stable_window) {
            self.panic = None;
        }
        let mut want = stable;
        if let Some(panicking) = &mut self.panic {
            panicking.most = panicking.most.max(stable).max(panic);
            want = panicking.most;
        }
        if observed.reachable && !settings.scale_down_delay.is_zero() {
            want = self.delayed.most(now, want, settings.scale_down_delay);
        }
        want = want.max(self.held(now, observed.ready.max(observed.asked_before), settings.stable_window));

        Scale {
            want,
            panicking: self.panic.is_some(),
            excess_burst_capacity: match settings.burst_capacity {
                None | Some(0.0) => 0.0,
                Some(spare) if spare > 0.0 => (f64::from(observed.ready) * settings.capacity - spare - observed.panic).floor(),
                Some(_) => -1.0,
            },
        }
    }

    /// The least that must stay for want of knowledge.
    fn held(&mut self, now: Duration, pods: u32, stable_window: Duration) -> u32 {
        let unknown = self.decided.map_or(Duration::ZERO, |decided| now.saturating_sub(decided));
        self.decided = Some(now);
        if unknown >= stable_window {
            self.hold = Hold::new(now, pods);
        } else if unknown > KNOWN_TOGETHER
            && let Some(hold) = &mut self.hold
        {
            hold.since += unknown;
        }
        self.hold = self.hold.filter(|hold| now <= hold.since + stable_window);
        self.hold.map_or(0, |hold| hold.least)
    }
}

impl Hold {
    fn new(since: Duration, least: u32) -> Option<Self> {
        (least > 0).then_some(Self { since, least })
    }
}

/// The highest counts wanted lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Delayed {
    /// Slots of time and the highest count in each, the oldest first. A slot that a later and no
    /// lower one makes pointless is dropped, so counts fall from one to the next.
    slots: VecDeque<(u64, u32)>,
}

/// How long one slot is: as long as stock has between two decisions.
const SLOT_SECONDS: u64 = 2;

impl Delayed {
    /// The highest count wanted in the slots that `delay` spans, this one among them.
    fn most(&mut self, now: Duration, want: u32, delay: Duration) -> u32 {
        let slot = now.as_secs() / SLOT_SECONDS;
        let spanned = delay.as_nanos().div_ceil(Duration::from_secs(SLOT_SECONDS).as_nanos());
        while self.slots.front().is_some_and(|&(first, _)| u128::from(slot.saturating_sub(first)) >= spanned) {
            self.slots.pop_front();
        }
        while self.slots.back().is_some_and(|&(_, count)| count <= want) {
            self.slots.pop_back();
        }
        if self.slots.back().is_none_or(|&(last, _)| last < slot) {
            self.slots.push_back((slot, want));
        }
        self.slots.front().map_or(want, |&(_, count)| count)
    }
}

/// `want` within the revision's bounds. Until the revision was `initialized`, an initial scale of
/// more than one is the least.
///
/// Where the bounds cross, counts below the least become the least and all others the most, as in
/// stock's `applyBounds`.
#[must_use]
pub fn within_bounds(want: u32, initialized: bool, settings: &RevisionSettings) -> u32 {
    // One pod is what Knative starts anyway, and a revision that could not start is not to be
    // started again and again.
    let initial = if !initialized && settings.initial_scale > 1 { settings.initial_scale } else { 0 };
    let least = settings.min_scale.max(initial);
    match settings.max_scale {
        _ if want < least => least,
        Some(most) => want.min(most),
        None => want,
    }
}

/// Whether activators should be in the request path.
#[must_use]
pub fn serving_mode(want: u32, excess_burst_capacity: f64) -> ServingMode {
    if want > 0 && excess_burst_capacity >= 0.0 { ServingMode::Serve } else { ServingMode::Proxy }
}

/// The excess burst capacity of a revision that nothing is known about yet: that of its initial
/// pods, idle.
#[must_use]
pub fn initial_burst_capacity(settings: &RevisionSettings) -> f64 {
    match settings.burst_capacity {
        None | Some(0.0) => 0.0,
        Some(spare) if spare > 0.0 => (f64::from(settings.initial_scale) * settings.capacity - spare).trunc(),
        Some(_) => -1.0,
    }
}

#[cfg(test)]
mod tests;
