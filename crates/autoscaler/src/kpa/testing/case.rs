//! Generated settings and demand.

use std::collections::BTreeMap;
use std::fmt::Display;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::kpa::SourceDemand;

/// A value that a revision's annotation and the cluster's ConfigMap can both set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Either<T> {
    pub(super) annotation: Option<T>,
    pub(super) cluster: Option<T>,
}

/// Settings, and what happens under them.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) rps: bool,
    pub(super) exponential: bool,
    pub(super) container_concurrency: u32,
    pub(super) target: Option<f64>,
    pub(super) concurrency_default: Option<f64>,
    pub(super) rps_default: Option<f64>,
    /// In percent.
    pub(super) utilization: Option<f64>,
    /// In percent, or as a share up to one.
    pub(super) utilization_default: Option<f64>,
    /// In seconds.
    pub(super) window: Either<u64>,
    /// In percent.
    pub(super) panic_window: Either<f64>,
    /// In percent.
    pub(super) threshold: Either<f64>,
    pub(super) burst: Either<f64>,
    /// In seconds.
    pub(super) delay: Either<u64>,
    pub(super) min: Either<u32>,
    /// 0 is no limit.
    pub(super) max: Either<u32>,
    pub(super) initial: Either<u32>,
    pub(super) activation: Option<u32>,
    pub(super) up: Option<f64>,
    pub(super) down: Option<f64>,
    pub(super) activator_capacity: Option<f64>,
    /// The second that it starts in.
    pub(super) start: u64,
    /// Pods that are ready then.
    pub(super) ready: u32,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The same demand for so many seconds.
    Load { seconds: u64, sources: Sources, pods: Pods },
    /// Another demand in each second.
    Noise { seconds: Vec<Sources>, pods: Pods },
    /// No demand, and no pods as soon as none is wanted.
    Sleep { seconds: u64 },
    /// A Route leads here, or none does.
    Reach(bool),
}

/// How many pods get ready.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pods {
    AsWanted,
    Same,
    Exactly(u32),
}

pub(super) type Sources = BTreeMap<u8, SourceDemand>;

impl Case {
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = Texts { prefix: "autoscaling.knative.dev/", texts: BTreeMap::new() };
        annotations.set("metric", self.rps.then_some("rps"));
        annotations.set("metric-aggregation-algorithm", self.exponential.then_some("weighted-exponential"));
        annotations.set("target", self.target);
        annotations.set("target-utilization-percentage", self.utilization);
        annotations.set("window", self.window.annotation.map(seconds));
        annotations.set("panic-window-percentage", self.panic_window.annotation);
        annotations.set("panic-threshold-percentage", self.threshold.annotation);
        annotations.set("target-burst-capacity", self.burst.annotation);
        annotations.set("scale-down-delay", self.delay.annotation.map(seconds));
        annotations.set("min-scale", self.min.annotation);
        annotations.set("max-scale", self.max.annotation);
        annotations.set("initial-scale", self.initial.annotation);
        annotations.set("activation-scale", self.activation);
        annotations.texts
    }

    pub(super) fn config_map(&self) -> BTreeMap<String, String> {
        let mut map = Texts { prefix: "", texts: BTreeMap::new() };
        map.set("container-concurrency-target-default", self.concurrency_default);
        map.set("requests-per-second-target-default", self.rps_default);
        map.set("container-concurrency-target-percentage", self.utilization_default);
        map.set("stable-window", self.window.cluster.map(seconds));
        map.set("panic-window-percentage", self.panic_window.cluster);
        map.set("panic-threshold-percentage", self.threshold.cluster);
        map.set("target-burst-capacity", self.burst.cluster);
        map.set("scale-down-delay", self.delay.cluster.map(seconds));
        map.set("min-scale", self.min.cluster);
        map.set("max-scale", self.max.cluster);
        map.set("initial-scale", self.initial.cluster);
        map.set("max-scale-up-rate", self.up);
        map.set("max-scale-down-rate", self.down);
        map.set("activator-capacity", self.activator_capacity);
        map.texts
    }
}

struct Texts {
    prefix: &'static str,
    texts: BTreeMap<String, String>,
}

impl Texts {
    fn set(&mut self, key: &str, value: Option<impl Display>) {
        self.texts.extend(value.map(|value| (format!("{}{key}", self.prefix), value.to_string())));
    }
}

fn seconds(seconds: u64) -> String {
    if seconds >= 60 { format!("{}m{}s", seconds / 60, seconds % 60) } else { format!("{seconds}s") }
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let window = prop_oneof![6_u64..20, 6_u64..70, Just(120_u64)];
    let load = (
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just(0_u32), 0_u32..20],
        option::of(target()),
        option::of(prop_oneof![1_u32..200].prop_map(f64::from)),
        option::of(prop_oneof![1_u32..400].prop_map(f64::from)),
        option::of(1.0..=100.0),
        option::of(prop_oneof![1_u32..=100, Just(70)].prop_map(f64::from)),
    );
    let windows = (
        either(window),
        either(prop_oneof![(1_u32..=100).prop_map(f64::from), 1.0..100.0]),
        either(110.0..400.0),
        either(prop_oneof![Just(0.0), Just(-1.0), (0_u32..300).prop_map(f64::from), 0.0..50.0]),
        either(prop_oneof![Just(0_u64), 0_u64..40]),
    );
    let pods = (
        either(0_u32..3),
        either(prop_oneof![Just(0_u32), 8_u32..30]),
        either(1_u32..8),
        option::of(2_u32..8),
        option::of(prop_oneof![1.01..3.0, Just(10.0)]),
        option::of(1.01..4.0),
        option::of(1.0..200.0),
    );
    let series = (10_000_u64..20_000, prop_oneof![Just(0_u32), 0_u32..3, 0_u32..20], vec(step(), 1..12));
    (load, windows, pods, series).prop_map(|(load, windows, pods, series)| {
        let (rps, exponential, container_concurrency, target, concurrency_default, rps_default, utilization, cluster) = load;
        let (window, panic_window, threshold, burst, delay) = windows;
        let (min, max, initial, activation, up, down, activator_capacity) = pods;
        let (start, ready, steps) = series;
        Case {
            rps,
            exponential,
            container_concurrency,
            target,
            concurrency_default,
            rps_default,
            utilization,
            utilization_default: cluster,
            window,
            panic_window,
            threshold,
            burst,
            delay,
            min,
            max,
            initial,
            activation,
            up,
            down,
            activator_capacity,
            start,
            ready,
            steps,
        }
    })
}

fn either<T: Clone + std::fmt::Debug>(value: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Either<T>> {
    (option::of(value.clone()), option::of(value)).prop_map(|(annotation, cluster)| Either { annotation, cluster })
}

fn target() -> impl Strategy<Value = f64> {
    prop_oneof![(1_u32..=100).prop_map(f64::from), Just(10.0), 0.01..50.0]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..40, sources(), pods()).prop_map(|(seconds, sources, pods)| Step::Load { seconds, sources, pods }),
        4 => (vec(sources(), 1..40), pods()).prop_map(|(seconds, pods)| Step::Noise { seconds, pods }),
        2 => (1_u64..200).prop_map(|seconds| Step::Sleep { seconds }),
        1 => any::<bool>().prop_map(Step::Reach),
    ]
}

fn pods() -> impl Strategy<Value = Pods> {
    prop_oneof![3 => Just(Pods::AsWanted), 2 => Just(Pods::Same), 1 => (0_u32..30).prop_map(Pods::Exactly)]
}

fn sources() -> impl Strategy<Value = Sources> {
    let demand =
        (value(), value()).prop_map(|(concurrency, requests_per_second)| SourceDemand { concurrency, requests_per_second });
    btree_map(0_u8..5, demand, 0..4)
}

/// Among others whole and decimal multiples of common targets, where the last digit decides.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => Just(0.0),
        3 => (0_u32..40).prop_map(f64::from),
        2 => (0_u32..40).prop_map(|count| f64::from(count) * 7.0),
        2 => (0_u32..100).prop_map(|count| f64::from(count) * 0.1),
        2 => 0.0..100.0,
        1 => 0.0..5000.0,
    ]
}
