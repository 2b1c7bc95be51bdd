//! Worked examples of how many pods a steady demand comes to, from annotations to count.

use std::collections::BTreeMap;
use std::time::Duration;

use autoscaler::kpa::{DemandHistory, Observed, ScaleMemory, SourceDemand};
use autoscaler::settings::{ClusterSettings, RevisionSettings};
use latency_matrix::NodeName;
use rstest::rstest;

fn settings(own: &[(&str, &str)]) -> RevisionSettings {
    let own = own.iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), (*value).to_owned())).collect();
    RevisionSettings::read(&own, 0, true, &ClusterSettings::default())
}

/// Pods wanted at the end of so many seconds of constant demand, that enters at two nodes, with as
/// many pods ready as are wanted.
fn want_after(seconds: u64, demand: f64, settings: &RevisionSettings) -> u32 {
    let (mut history, mut memory) = (DemandHistory::default(), ScaleMemory::default());
    history.set_windows(settings.stable_window, settings.panic_window, Duration::ZERO);
    let half = SourceDemand { concurrency: demand / 2.0, requests_per_second: 0.0 };
    let mut ready = 0;
    for second in 0..seconds {
        history.record(second, BTreeMap::from([(NodeName::from("node1"), half), (NodeName::from("node2"), half)]));
        let average = |window| history.totals(second, window, settings.aggregation).expect("the second was recorded").concurrency;
        let (stable, panic) = (average(settings.stable_window), average(settings.panic_window));
        let observed = Observed { stable, panic, ready, asked_before: 0, reachable: true };
        ready = memory.scale(Duration::from_secs(second), observed, settings).want;
    }
    ready
}

/// Stock's counts. Averages that are off in the last digit ask for another pod.
#[rstest]
#[case::target_70_window_30("100", "70", "30s", 70.0, 1)]
#[case::target_70_window_30("100", "70", "30s", 140.0, 2)]
#[case::target_70_window_30("100", "70", "30s", 280.0, 4)]
#[case::target_70_window_30("100", "70", "30s", 350.0, 5)]
#[case::target_70_window_60("100", "70", "60s", 490.0, 7)]
#[case::target_1_window_60("1", "100", "60s", 1.0, 1)]
#[case::target_1_window_60("1", "100", "60s", 2.0, 2)]
#[case::target_1_window_60("1", "100", "60s", 4.0, 4)]
// 70 % of 6 is a little less than 4.2 in binary, so 21 is a little more than five times as much.
#[case::target_just_below_4_2("6", "70", "30s", 21.0, 6)]
fn a_multiple_of_the_target_asks_for_that_many_pods(
    #[case] target: &str,
    #[case] utilization: &str,
    #[case] window: &str,
    #[case] demand: f64,
    #[case] pods: u32,
) {
    let own = [("target", target), ("target-utilization-percentage", utilization), ("window", window)];
    assert_eq!(want_after(90, demand, &settings(&own)), pods);
}

#[test]
fn the_target_itself_asks_for_one_pod_in_every_window() {
    for seconds in 6..300 {
        let window = format!("{seconds}s");
        let settings = settings(&[("target", "10"), ("window", &window)]);
        assert_eq!(want_after(seconds, 7.0, &settings), 1, "window {window}");
    }
}

/// A weighted-exponential average of 60 s begins at a fifth of the demand: 10 in flight at a target
/// of 2 are 1, 2, 3, 3, 4 pods after so many seconds, where a linear average is five at once. The
/// panic window's average begins higher, and decides here.
#[rstest]
#[case("1000", [1, 2, 3, 3, 4])]
#[case("110", [4, 5, 5, 5, 5])]
fn an_exponential_average_asks_for_pods_one_by_one(#[case] threshold: &str, #[case] pods: [u32; 5]) {
    let own = [
        ("target", "2"),
        ("target-utilization-percentage", "100"),
        ("metric-aggregation-algorithm", "weighted-exponential"),
        ("panic-threshold-percentage", threshold),
    ];
    for (seconds, pods) in (1..).zip(pods) {
        assert_eq!(want_after(seconds, 10.0, &settings(&own)), pods, "after {seconds} s");
    }
}
