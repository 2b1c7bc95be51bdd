use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn one(node: &str, concurrency: f64) -> BTreeMap<NodeName, SourceDemand> {
    BTreeMap::from([(NodeName::from(node), SourceDemand { concurrency, requests_per_second: concurrency })])
}

fn total(averages: Option<BTreeMap<NodeName, SourceDemand>>) -> Option<f64> {
    averages.map(|sources| sources.values().map(|demand| demand.concurrency).sum())
}

/// With a stable and a panic window of so many seconds.
fn history(stable: u64, panic: u64) -> DemandHistory {
    let mut history = DemandHistory::default();
    history.set_windows(Duration::from_secs(stable), Duration::from_secs(panic), Duration::ZERO);
    history
}

fn concurrency(history: &DemandHistory, now: u64, window: u64, aggregation: Aggregation) -> f64 {
    history.totals(now, Duration::from_secs(window), aggregation).unwrap().concurrency
}

fn heap_bytes(history: &DemandHistory) -> usize {
    history.totals.capacity() * size_of::<SourceDemand>()
        + history.sources.capacity() * size_of::<SourceHistory>()
        + history.sources.iter().map(SourceHistory::heap_bytes).sum::<usize>()
}

const TWELVE: Duration = Duration::from_secs(12);

#[test]
fn a_partial_window_averages_what_there_is() {
    let mut history = DemandHistory::default();
    assert_eq!(history.average(100, TWELVE, Aggregation::Linear), None);
    history.record(100, one("node1", 4.0));
    history.record(101, one("node3", 8.0));
    assert_eq!(total(history.average(101, TWELVE, Aggregation::Linear)), Some(6.0));
    for second in 102..=111 {
        history.record(second, BTreeMap::new());
    }
    assert_eq!(total(history.average(111, TWELVE, Aggregation::Linear)), Some(1.0));
    history.record(112, BTreeMap::new());
    assert!((total(history.average(112, TWELVE, Aggregation::Linear)).unwrap() - 8.0 / 12.0).abs() < 1e-12);
    assert_eq!(total(history.average(112, Duration::from_secs(2), Aggregation::Linear)), Some(0.0));
}

#[test]
fn missing_seconds_are_not_zero_and_stale_ones_no_data() {
    let mut history = DemandHistory::default();
    history.record(100, one("node1", 4.0));
    history.record(104, one("node1", 4.0));
    assert_eq!(total(history.average(104, TWELVE, Aggregation::Linear)), Some(4.0));
    assert_eq!(history.average(110, TWELVE, Aggregation::Linear), None);
    assert_eq!(history.totals(110, TWELVE, Aggregation::Linear), None);
}

#[test]
fn the_share_of_active_seconds_is_of_the_whole_window() {
    let mut history = DemandHistory::default();
    history.record(100, one("node1", 4.0));
    history.record(101, one("node1", 4.0));
    assert_eq!(history.active_share(101, Duration::from_secs(4))[&NodeName::from("node1")], 0.5);
}

/// Windows of these lengths used to come out as 7.000000000000001, which asks for one pod more.
#[test]
fn a_constant_load_averages_to_itself_in_every_window() {
    for length in 1..=300 {
        let mut history = history(length, 1);
        for second in 0..2 * length {
            history.record(second, one("node1", 7.0));
            assert_eq!(concurrency(&history, second, length, Aggregation::Linear), 7.0, "{length} s, at {second}");
        }
    }
}

#[test]
fn a_linear_average_is_cut_to_six_digits() {
    let mut history = history(6, 1);
    for (second, value) in [2.0, 0.0, 0.0].into_iter().enumerate() {
        history.record(second as u64, one("node1", value));
    }
    assert_eq!(concurrency(&history, 2, 6, Aggregation::Linear), 0.666_666);
}

/// Stock's averages of a constant 10 after so many seconds of a window of 60.
#[rstest]
#[case(1, 2.0)]
#[case(2, 3.6)]
#[case(3, 4.88)]
#[case(5, 6.7232)]
fn an_exponential_average_begins_low(#[case] seconds: u64, #[case] expected: f64) {
    let mut history = history(60, 6);
    for second in 0..seconds {
        history.record(second, one("node1", 10.0));
    }
    let average = concurrency(&history, seconds - 1, 60, Aggregation::WeightedExponential);
    assert!((average - expected).abs() < 1e-12, "{average}");
    let share = total(history.average(seconds - 1, Duration::from_secs(60), Aggregation::WeightedExponential)).unwrap();
    assert!((share - expected).abs() < 1e-6, "{share}");
}

#[test]
fn in_an_exponential_average_the_newest_seconds_weigh_most() {
    let mut history = history(60, 6);
    for (second, value) in [30.0, 0.0, 0.0].into_iter().enumerate() {
        history.record(second as u64, one("node1", value));
    }
    assert!((concurrency(&history, 2, 60, Aggregation::WeightedExponential) - 3.84).abs() < 1e-12);
    let panic = concurrency(&history, 2, 6, Aggregation::WeightedExponential);
    let decay = 1.0 - 0.0001_f64.powf(1.0 / 6.0);
    assert!((panic - 30.0 * decay * (1.0 - decay).powi(2)).abs() < 1e-12, "{panic}");
}

/// A revision at zero has no pod that could be asked, so stock has no buckets either.
#[test]
fn a_burst_after_silence_is_not_diluted() {
    let mut history = history(60, 6);
    for second in 0..100 {
        history.record(second, BTreeMap::new());
    }
    assert!(history.is_silent(100));
    let mut soon = history.clone();
    soon.record(120, one("node1", 50.0));
    // Twenty seconds empty the panic window and not the stable one.
    assert_eq!(concurrency(&soon, 120, 6, Aggregation::Linear), 50.0);
    assert_eq!(concurrency(&soon, 120, 60, Aggregation::Linear), 0.833_333);
    // The last sample was at 99: a whole window later it has left.
    for (second, average) in [(158, 0.833_333), (159, 50.0), (160, 50.0)] {
        let mut late = history.clone();
        late.record(second, one("node1", 50.0));
        assert_eq!(concurrency(&late, second, 60, Aggregation::Linear), average, "at {second}");
    }
}

/// A gateway that could not be read for nearly a minute under constant load.
#[test]
fn unknown_seconds_lower_nothing() {
    for (linear, unknown) in [(true, 3), (true, 45), (false, 45), (true, 59), (true, 60), (true, 3600)] {
        let mut history = history(60, 6);
        for second in 0..100 {
            history.record(second, one("node3", 50.0));
        }
        let aggregation = if linear { Aggregation::Linear } else { Aggregation::WeightedExponential };
        let least = if linear { 50.0 } else { 49.99 };
        for second in 100 + unknown..106 + unknown {
            history.record(second, one("node3", 50.0));
            for window in [6, 60] {
                let average = concurrency(&history, second, window, aggregation);
                assert!(average >= least, "{average} over {window} s after {unknown} unknown ones");
            }
        }
    }
}

#[test]
fn what_is_unknown_for_too_long_is_forgotten() {
    let mut history = history(60, 6);
    history.record(0, one("node1", 500.0));
    assert!(!history.is_silent(59) && history.is_silent(60));
    history.record(60, one("node1", 5.0));
    assert_eq!(concurrency(&history, 60, 60, Aggregation::Linear), 5.0);
    assert_eq!(history.sampled_seconds(60, TWELVE), 1);
}

#[test]
fn other_windows_are_averaged_afresh() {
    let mut history = history(60, 6);
    for second in 0..20 {
        history.record(second, one("node1", second as f64));
    }
    assert_eq!(concurrency(&history, 19, 3, Aggregation::Linear), 18.0);
    assert_eq!(history.sampled_seconds(19, Duration::from_secs(3)), 3);
}

#[test]
fn a_window_that_changes_keeps_what_is_known() {
    let mut history = history(60, 6);
    for second in 0..100 {
        history.record(second, one("node1", second as f64));
    }
    history.set_windows(TWELVE, Duration::from_secs(6), Duration::ZERO);
    assert_eq!(concurrency(&history, 99, 12, Aggregation::Linear), 93.5);
    history.record(100, one("node1", 100.0));
    assert_eq!(concurrency(&history, 100, 12, Aggregation::Linear), 94.5);
    history.set_windows(Duration::from_secs(60), Duration::from_secs(6), Duration::ZERO);
    // Of the longer window only twelve seconds are still there.
    assert_eq!(concurrency(&history, 100, 60, Aggregation::Linear), 94.5);
    assert_eq!(concurrency(&history, 100, 6, Aggregation::Linear), 97.5);
}

#[test]
fn a_revision_without_demand_takes_hardly_any_memory() {
    let mut history = history(3600, 360);
    for second in 0..10_000 {
        history.record(second, BTreeMap::new());
    }
    assert!(size_of::<DemandHistory>() + heap_bytes(&history) < 500);
    for second in 10_000..10_100 {
        history.record(second, one(&format!("node{second}"), 1.0));
    }
    assert!(heap_bytes(&history) > 500);
    for second in 10_100..13_700 {
        history.record(second, BTreeMap::new());
    }
    assert!(history.is_silent(13_700) && heap_bytes(&history) == 0);
}

/// Twenty sources over a minute: about 18 kB.
#[test]
fn memory_is_bounded_by_the_longest_window() {
    let mut history = history(60, 6);
    for second in 0..1000_u64 {
        let sources = (0..20).map(|node| {
            let demand = SourceDemand { concurrency: 1.5, requests_per_second: 3.0 };
            // Sources come and go: those that are gone take no memory.
            (NodeName::new(format!("node{}", second / 100 * 20 + node)), demand)
        });
        history.record(second, sources.collect());
        assert!(heap_bytes(&history) < 40_000, "{} at {second}", heap_bytes(&history));
    }
    assert_eq!(history.sources.len(), 20);
    assert!(heap_bytes(&history) < 20_000, "{}", heap_bytes(&history));
}

fn demand() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), (0_u32..50).prop_map(f64::from), 0.0..1000.0]
}

proptest! {
    /// Leaving out seconds is the same as not having lived them, however many are missing.
    #[test]
    fn time_that_is_unknown_does_not_pass(
        series in prop::collection::vec((demand(), 0_u64..11), 1..60),
        exponential in any::<bool>(),
    ) {
        let aggregation = if exponential { Aggregation::WeightedExponential } else { Aggregation::Linear };
        let (mut whole, mut holed) = (history(12, 2), history(12, 2));
        let mut second = 0;
        // With demand in the first second, and gaps shorter than the window, neither is ever
        // silent.
        for (at, (value, missing)) in [(1e-3, 0)].into_iter().chain(series).enumerate() {
            second += if holed.busy > 0 { missing } else { 0 };
            whole.record(at as u64, one("node1", value));
            holed.record(second, one("node1", value));
            for window in [TWELVE, Duration::from_secs(2), Duration::from_secs(5)] {
                prop_assert_eq!(
                    whole.totals(at as u64, window, aggregation),
                    holed.totals(second, window, aggregation)
                );
            }
            second += 1;
        }
    }

    /// The sources' shares sum to the total.
    #[test]
    fn shares_are_of_the_total(
        series in prop::collection::vec(prop::collection::btree_map(0_u8..5, demand(), 0..4), 1..80),
        exponential in any::<bool>(),
    ) {
        let aggregation = if exponential { Aggregation::WeightedExponential } else { Aggregation::Linear };
        let mut history = history(12, 2);
        for (second, sources) in series.into_iter().enumerate() {
            let named = |(node, concurrency)| {
                (NodeName::new(format!("node{node}")), SourceDemand { concurrency, requests_per_second: 0.0 })
            };
            history.record(second as u64, sources.into_iter().map(named).collect());
            for window in [TWELVE, Duration::from_secs(2), Duration::from_secs(5)] {
                let sum = total(history.average(second as u64, window, aggregation)).unwrap();
                let total = history.totals(second as u64, window, aggregation).unwrap().concurrency;
                prop_assert!((sum - total).abs() <= 2e-6 + sum * 1e-6, "{} {}", sum, total);
            }
        }
    }

    /// Running sums are those of the seconds that are there, also where windows change.
    #[test]
    fn shares_of_a_running_window_are_those_of_any(
        series in prop::collection::vec((prop::collection::btree_map(0_u8..5, demand(), 0..4), 0_u8..20), 1..80),
    ) {
        let mut history = history(12, 2);
        for (second, (sources, change)) in series.into_iter().enumerate() {
            let named = |(node, concurrency)| {
                (NodeName::new(format!("node{node}")), SourceDemand { concurrency, requests_per_second: 0.0 })
            };
            history.record(second as u64, sources.into_iter().map(named).collect());
            if change == 0 {
                history.set_windows(TWELVE + Duration::from_secs(second as u64 % 3), Duration::from_secs(3), Duration::ZERO);
            }
            for source in &history.sources {
                for (at, window) in history.windows.iter().enumerate() {
                    let (running, fresh) = (source.sum(Some(at), window.length), source.sum(None, window.length));
                    prop_assert!((running.concurrency - fresh.concurrency).abs() <= 1e-6, "{:?} {:?}", running, fresh);
                    prop_assert_eq!(
                        source.active_seconds(Some(at), window.length),
                        source.active_seconds(None, window.length)
                    );
                }
            }
        }
    }

    #[test]
    fn hostile_demand_never_panics(
        series in prop::collection::vec((any::<f64>(), any::<f64>(), any::<u64>()), 0..20),
        windows in any::<[Duration; 3]>(),
    ) {
        let mut history = DemandHistory::default();
        for (concurrency, requests_per_second, second) in series {
            let demand = SourceDemand { concurrency, requests_per_second };
            history.record(second, BTreeMap::from([(NodeName::from("node1"), demand)]));
            history.set_windows(windows[0], windows[1], windows[2]);
            let _ = history.average(second, windows[2], Aggregation::WeightedExponential);
            let total = history.totals(second, windows[0], Aggregation::Linear);
            prop_assert!(total.is_none_or(|total| total.concurrency.is_finite()));
        }
    }
}
