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
    Observed { stable, panic, ready, asked_before: 0, reachable: true }
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

/// The wants of every second up to `last`, without demand.
fn idle_seconds(memory: &mut ScaleMemory, seconds: std::ops::RangeInclusive<u64>, ready: u32) -> Vec<u32> {
    seconds.map(|second| memory.scale(START + Duration::from_secs(second), at(0.0, 0.0, ready), &demo()).want).collect()
}

#[test]
fn a_restart_shrinks_nothing_for_a_stable_window() {
    let mut memory = ScaleMemory::resumed(START, 6);
    assert_eq!(idle_seconds(&mut memory, 0..=12, 6), [6; 13]);
    assert_eq!(memory.scale(START + Duration::from_secs(13), at(0.0, 0.0, 6), &demo()).want, 3);
}

/// Stock lets it go at once. A service with a request every ten seconds would be cold after every
/// restart.
#[test]
fn a_restart_keeps_a_single_pod_for_a_stable_window() {
    let mut memory = ScaleMemory::resumed(START, 1);
    assert_eq!(idle_seconds(&mut memory, 0..=12, 1), [1; 13]);
    assert_eq!(idle_seconds(&mut memory, 13..=13, 1), [0]);
    assert_eq!(idle_seconds(&mut ScaleMemory::resumed(START, 0), 0..=0, 0), [0]);
}

#[test]
fn a_hold_is_no_limit() {
    let mut memory = ScaleMemory::resumed(START, 1);
    assert_eq!(memory.scale(START, at(35.0, 1.0, 1), &demo()).want, 5);
}

/// Seven seconds of the window's twelve were seen when demand got unknown.
#[test]
fn time_in_which_demand_is_unknown_does_not_end_a_hold() {
    let mut memory = ScaleMemory::resumed(START, 4);
    assert_eq!(idle_seconds(&mut memory, 0..=7, 4), [4; 8]);
    assert_eq!(idle_seconds(&mut memory, 17..=22, 4), [4; 6]);
    assert_eq!(idle_seconds(&mut memory, 23..=23, 4), [2]);
}

#[test]
fn when_nothing_was_known_for_a_stable_window_nothing_shrinks_for_another() {
    let mut memory = ScaleMemory::default();
    assert_eq!(memory.scale(START, at(28.0, 28.0, 4), &demo()).want, 4);
    assert_eq!(idle_seconds(&mut memory, 12..=24, 4), [4; 13]);
    assert_eq!(idle_seconds(&mut memory, 25..=25, 4), [2]);
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
fn burst_capacity_keeps_activators_in(#[case] spare: f64, #[case] ready: u32, #[case] excess: f64, #[case] mode: ServingMode) {
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

/// A revision that could not start, and was given up, is not started again before somebody asks for
/// it.
#[test]
fn an_initial_scale_of_one_is_no_bound() {
    let settings = demo();
    assert_eq!((settings.initial_scale, within_bounds(0, false, &settings)), (1, 0));
}

#[test]
fn where_bounds_cross_counts_from_the_least_on_become_the_most() {
    let mut settings = demo();
    (settings.initial_scale, settings.max_scale) = (5, Some(3));
    assert_eq!([1, 4, 5, 9].map(|want| within_bounds(want, false, &settings)), [5, 5, 3, 3]);
    assert_eq!(within_bounds(9, true, &settings), 3);
}

#[rstest]
#[case(None, 0.0)]
#[case(Some(0.0), 0.0)]
#[case(Some(-1.0), -1.0)]
#[case(Some(211.0), -201.0)]
#[case(Some(3.5), 6.0)]
fn before_anything_is_known_burst_capacity_is_that_of_the_first_pods(#[case] spare: Option<f64>, #[case] excess: f64) {
    let settings = RevisionSettings { burst_capacity: spare, ..demo() };
    assert_eq!(initial_burst_capacity(&settings), excess);
}

/// 200 requests per second are what a pod can take of that metric, whatever its concurrency.
#[test]
fn burst_capacity_is_counted_in_the_metrics_unit() {
    let own = [("metric", "rps"), ("target-burst-capacity", "150")]
        .map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
    let settings = RevisionSettings::read(&BTreeMap::from(own), 1, true, &ClusterSettings::default());
    assert_eq!(ScaleMemory::default().scale(START, at(20.0, 20.0, 1), &settings).excess_burst_capacity, 30.0);
    assert_eq!(ScaleMemory::default().scale(START, at(50.5, 50.5, 1), &settings).excess_burst_capacity, -1.0);
}

#[test]
fn where_nobody_set_a_burst_capacity_calm_requests_go_to_the_pods() {
    let settings = demo();
    assert_eq!(settings.burst_capacity, None);
    let scale = ScaleMemory::default().scale(START, at(7.0, 7.0, 1), &settings);
    assert_eq!(serving_mode(scale.want, scale.excess_burst_capacity), ServingMode::Serve);
}

proptest! {
    /// Whatever the demand, the count stays between half and a thousand times the ready pods, and
    /// grows with demand.
    #[test]
    fn rates_bound_every_step(stable in 0.0..1e7, panic in 0.0..1e7, ready in 0_u32..5000, more in 0.0..1e6) {
        let settings = demo();
        let scale = ScaleMemory::default().scale(START, at(stable, panic, ready), &settings);
        prop_assert!(scale.want >= ready / 2 || ready <= 1);
        prop_assert!(u64::from(scale.want) <= 1000 * u64::from(ready.max(1)));
        let higher = ScaleMemory::default().scale(START, at(stable + more, panic + more, ready), &settings);
        prop_assert!(higher.want >= scale.want);
    }

    /// Whatever is seen after a start, and however much of it is not seen: until demand was known
    /// for a stable window, what was ready stays.
    #[test]
    fn a_start_takes_nothing_away_before_a_stable_window_was_seen(
        ready in 0_u32..20,
        seconds in prop::collection::vec((prop_oneof![9 => Just(1_u64), 1 => 1_u64..40], 0.0..50.0), 1..40),
        reachable in any::<bool>(),
    ) {
        let mut memory = ScaleMemory::resumed(START, ready);
        let (mut now, mut known) = (START, Duration::ZERO);
        for (pause, demand) in seconds {
            let pause = Duration::from_secs(pause);
            now += pause;
            known += if pause <= KNOWN_TOGETHER { pause } else { Duration::ZERO };
            let want = memory.scale(now, Observed { reachable, ..at(demand, demand, ready) }, &demo()).want;
            prop_assert!(want >= ready || known > demo().stable_window, "{} < {} after {:?}", want, ready, known);
        }
    }

    /// The slots that are kept tell the same as all of them would.
    #[test]
    fn a_delay_is_the_maximum_of_its_slots(
        wants in prop::collection::vec((0_u64..6, 0_u32..20), 1..80),
        delay in 1_u64..30,
    ) {
        let mut delayed = Delayed::default();
        let mut all: BTreeMap<u64, u32> = BTreeMap::new();
        let mut second = 1000;
        for (pause, want) in wants {
            second += pause;
            let slot = all.entry(second / 2).or_default();
            *slot = want.max(*slot);
            let expected = all.range((second / 2 + 1).saturating_sub(delay.div_ceil(2))..).map(|(_, want)| *want).max();
            let most = delayed.most(Duration::from_secs(second), want, Duration::from_secs(delay));
            prop_assert_eq!(Some(most), expected);
            prop_assert!(delayed.slots.len() as u64 <= delay.div_ceil(2));
        }
    }
}
