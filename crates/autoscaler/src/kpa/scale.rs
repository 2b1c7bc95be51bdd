//! The KPA's decision from two window averages to a number of pods.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_api::ServingMode;

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
    /// Requests that the ready pods could take on top of a burst; below zero activators are to stay in the way.
    pub excess_burst_capacity: f64,
}

/// What the decision remembers from one time to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScaleMemory {
    panic: Option<Panic>,
    /// Counts wanted, highest per slot, for the scale-down delay.
    delayed: VecDeque<(Duration, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Panic {
    /// When the threshold was last passed.
    last: Duration,
    /// The most pods wanted since it began.
    most: u32,
}

/// One entry of the scale-down delay covers so much time.
const DELAY_SLOT: Duration = Duration::from_secs(2);

impl ScaleMemory {
    /// Memory of a revision that is met with pods already there, by a program that just started: as if it panicked at that count, so that
    /// nothing shrinks for a stable window, by when demand is known.
    #[must_use]
    pub fn resumed(now: Duration, ready: u32) -> Self {
        Self { panic: (ready > 1).then_some(Panic { last: now, most: ready }), delayed: VecDeque::new() }
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
        want = self.delay(now, want, settings.scale_down_delay);

        Scale {
            want,
            panicking: self.panic.is_some(),
            excess_burst_capacity: match settings.burst_capacity {
                None | Some(0.0) => 0.0,
                Some(spare) if spare > 0.0 => (f64::from(observed.ready) * settings.capacity - spare - observed.panic).floor(),
                _ => -1.0,
            },
        }
    }

    /// The highest count wanted within `delay`.
    fn delay(&mut self, now: Duration, want: u32, delay: Duration) -> u32 {
        if delay.is_zero() {
            self.delayed.clear();
            return want;
        }
        self.delayed.retain(|&(slot, _)| slot + delay > now);
        match self.delayed.back_mut() {
            Some((slot, most)) if now < *slot + DELAY_SLOT => *most = want.max(*most),
            _ => self.delayed.push_back((now, want)),
        }
        self.delayed.iter().map(|&(_, most)| most).max().unwrap_or(want)
    }
}

/// `want` within the revision's bounds. Until the revision was `initialized`, its initial scale is the least.
#[must_use]
pub fn within_bounds(want: u32, initialized: bool, settings: &RevisionSettings) -> u32 {
    let least = if initialized { settings.min_scale } else { settings.min_scale.max(settings.initial_scale) };
    let want = want.max(least);
    settings.max_scale.map_or(want, |most| want.min(most))
}

/// Whether activators are to be in the way of requests.
#[must_use]
pub fn serving_mode(want: u32, excess_burst_capacity: f64) -> ServingMode {
    if want > 0 && excess_burst_capacity >= 0.0 { ServingMode::Serve } else { ServingMode::Proxy }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::settings::ClusterSettings;

    /// Target 7 of 10 over 12 s, as in the demo.
    fn demo() -> RevisionSettings {
        let own = [("target", "10"), ("window", "12s")].map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
        RevisionSettings::read(&BTreeMap::from(own), 0, true, &ClusterSettings::default())
    }

    fn at(stable: f64, panic: f64, ready: u32) -> Observed {
        Observed { stable, panic, ready, reachable: true }
    }

    const START: Duration = Duration::from_secs(1000);

    #[rstest]
    #[case::nothing_asked(at(0.0, 0.0, 1), 0, false)]
    #[case::one_pod_is_enough(at(7.0, 7.0, 1), 1, false)]
    #[case::just_over_one(at(7.1, 7.1, 2), 2, false)]
    #[case::the_burst_rules(at(1.0, 14.1, 1), 3, true)]
    #[case::exactly_twice_panics(at(1.0, 14.0, 1), 2, true)]
    #[case::half_at_once_is_the_most_to_go(at(0.0, 0.0, 9), 4, false)]
    #[case::no_pod_counts_as_one(at(21.0, 21.0, 0), 3, true)]
    fn worked_examples(#[case] observed: Observed, #[case] want: u32, #[case] panicking: bool) {
        let scale = ScaleMemory::default().scale(START, observed, &demo());
        assert_eq!((scale.want, scale.panicking), (want, panicking));
    }

    #[test]
    fn an_unreachable_revision_falls_at_once() {
        let observed = Observed { reachable: false, ..at(0.0, 0.0, 9) };
        assert_eq!(ScaleMemory::default().scale(START, observed, &demo()).want, 0);
    }

    #[test]
    fn panic_holds_its_highest_count_for_a_stable_window() {
        let mut memory = ScaleMemory::default();
        let second = Duration::from_secs(1);
        assert_eq!(memory.scale(START, at(3.0, 35.0, 1), &demo()).want, 5);
        assert_eq!(memory.scale(START + second * 2, at(3.0, 1.0, 5), &demo()).want, 5);
        assert!(memory.scale(START + second * 12, at(0.0, 0.0, 5), &demo()).panicking);
        let after = memory.scale(START + second * 13, at(0.0, 0.0, 5), &demo());
        assert_eq!((after.want, after.panicking), (2, false));
    }

    #[test]
    fn a_restart_shrinks_nothing_for_a_stable_window() {
        let mut memory = ScaleMemory::resumed(START, 6);
        assert_eq!(memory.scale(START + Duration::from_secs(12), at(0.0, 0.0, 6), &demo()).want, 6);
        assert_eq!(memory.scale(START + Duration::from_secs(13), at(0.0, 0.0, 6), &demo()).want, 3);
    }

    #[test]
    fn a_delay_keeps_the_highest_of_its_span() {
        let mut settings = demo();
        settings.scale_down_delay = Duration::from_secs(10);
        let mut memory = ScaleMemory::default();
        let want = |memory: &mut ScaleMemory, second, stable| {
            memory.scale(START + Duration::from_secs(second), at(stable, 0.0, 3), &settings).want
        };
        assert_eq!(want(&mut memory, 0, 21.0), 3);
        assert_eq!(want(&mut memory, 4, 7.0), 3);
        assert_eq!(want(&mut memory, 9, 7.0), 3);
        assert_eq!(want(&mut memory, 10, 7.0), 1);
    }

    #[test]
    fn activation_scale_raises_what_is_not_zero() {
        let mut settings = demo();
        settings.activation_scale = 5;
        assert_eq!(ScaleMemory::default().scale(START, at(1.0, 1.0, 0), &settings).want, 5);
        assert_eq!(ScaleMemory::default().scale(START, at(0.0, 0.0, 0), &settings).want, 0);
    }

    #[rstest]
    #[case::default_zero(0.0, 1, 0.0, ServingMode::Serve)]
    #[case::always(-1.0, 50, -1.0, ServingMode::Proxy)]
    #[case::short_of_spare(10.0, 1, -3.0, ServingMode::Proxy)]
    #[case::enough_spare(10.0, 2, 7.0, ServingMode::Serve)]
    fn burst_capacity_keeps_activators_in(
        #[case] spare: f64,
        #[case] ready: u32,
        #[case] excess: f64,
        #[case] mode: ServingMode,
    ) {
        let mut settings = demo();
        settings.burst_capacity = Some(spare);
        let scale = ScaleMemory::default().scale(START, at(2.5, 2.5, ready), &settings);
        assert_eq!(scale.excess_burst_capacity, excess);
        assert_eq!(serving_mode(scale.want, scale.excess_burst_capacity), mode);
    }

    #[test]
    fn bounds_are_initial_until_initialized() {
        let mut settings = demo();
        (settings.initial_scale, settings.max_scale) = (3, Some(4));
        assert_eq!((within_bounds(0, false, &settings), within_bounds(0, true, &settings)), (3, 0));
        assert_eq!(within_bounds(9, true, &settings), 4);
    }

    proptest! {
        /// Whatever the demand, the count stays between half and a thousand times the ready pods, and grows with demand.
        #[test]
        fn rates_bound_every_step(stable in 0.0..1e7, panic in 0.0..1e7, ready in 0_u32..5000, more in 0.0..1e6) {
            let settings = demo();
            let scale = ScaleMemory::default().scale(START, at(stable, panic, ready), &settings);
            prop_assert!(scale.want >= ready / 2 || ready <= 1);
            prop_assert!(u64::from(scale.want) <= 1000 * u64::from(ready.max(1)));
            let higher = ScaleMemory::default().scale(START, at(stable + more, panic + more, ready), &settings);
            prop_assert!(higher.want >= scale.want);
        }
    }
}
