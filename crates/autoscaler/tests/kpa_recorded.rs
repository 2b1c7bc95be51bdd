//! Decisions of the real stock autoscaler, replayed.
//!
//! `golden/kpa-1.15.2.jsonl` was recorded from knative.dev/serving v0.42.2 (Knative 1.15.2) itself,
//! called as a library on amd64: settings through its `NewConfigFromMap`, `MakeDecider` and
//! `MakeMetric`, demand through its buckets, and one decision per second of its `Scale`.
//! `golden/record.go` does it again.

use std::collections::BTreeMap;
use std::time::Duration;

use autoscaler::kpa::{DemandHistory, Observed, ScaleMemory, SourceDemand};
use autoscaler::settings::{ClusterSettings, Metric, RevisionSettings};
use latency_matrix::NodeName;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Trace {
    annotations: BTreeMap<String, String>,
    config_map: BTreeMap<String, String>,
    container_concurrency: u32,
    reachable: bool,
    /// The second of the first sample.
    start: u64,
    /// Those of all samples, counted from it. While there were no pods and no requests, nobody
    /// reported.
    second: Vec<u64>,
    /// Pods ready at each second.
    ready: Vec<u32>,
    demand: Vec<f64>,
    /// The averages that stock came to.
    stable: Vec<f64>,
    panic: Vec<f64>,
    /// Pods that stock wanted.
    want: Vec<u32>,
    /// Excess burst capacity.
    excess: Vec<i32>,
}

fn traces() -> impl Iterator<Item = Trace> {
    let recorded = include_str!("golden/kpa-1.15.2.jsonl");
    recorded.lines().map(|line| serde_json::from_str(line).expect("the recording is well-formed"))
}

#[test]
fn decisions_are_those_that_stock_took() {
    let (mut seconds, mut pauses) = (0, 0);
    for (at, trace) in traces().enumerate() {
        let cluster = ClusterSettings::read(&trace.config_map, &BTreeMap::new());
        let settings = RevisionSettings::read(&trace.annotations, trace.container_concurrency, trace.reachable, &cluster);
        assert_eq!(settings.problems, Vec::<String>::new());
        pauses += trace.second.windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
        let mut history = DemandHistory::default();
        let mut memory = ScaleMemory::resumed(Duration::from_secs(trace.start), trace.ready[0]);
        for (index, &demand) in trace.demand.iter().enumerate() {
            let now = trace.start + trace.second[index];
            history.set_windows(settings.stable_window, settings.panic_window, Duration::ZERO);
            // How much there is of the metric that is not counted must not matter.
            let other = demand.min(1.0);
            let source = match settings.metric {
                Metric::Concurrency => SourceDemand { concurrency: demand, requests_per_second: other },
                Metric::Rps => SourceDemand { concurrency: other, requests_per_second: demand },
            };
            history.record(now, BTreeMap::from([(NodeName::from("node1"), source)]));
            let average = |window| {
                let total = history.totals(now, window, settings.aggregation).unwrap();
                if settings.metric == Metric::Rps { total.requests_per_second } else { total.concurrency }
            };
            let (stable, panic) = (average(settings.stable_window), average(settings.panic_window));
            let place = format!("trace {at}, second {index}, {settings:?}");
            assert_eq!((stable, panic), (trace.stable[index], trace.panic[index]), "averages in {place}");
            let observed = Observed { stable, panic, ready: trace.ready[index], asked_before: 0, reachable: trace.reachable };
            let scale = memory.scale(Duration::from_secs(now), observed, &settings);
            assert_eq!(scale.want, trace.want[index], "want in {place}");
            assert_eq!(scale.excess_burst_capacity, f64::from(trace.excess[index]), "excess burst capacity in {place}");
            seconds += 1;
        }
    }
    assert!(seconds > 1000 && pauses > 10, "{seconds} seconds, {pauses} pauses");
}
