//! One revision's own settings: its annotations over the cluster's defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ClusterSettings;
use super::limits::{BURST_RULE, LEAST_TARGET, WINDOW, WINDOW_RULE, is_burst_capacity};
use super::reader::{Reader, is_whole_seconds};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// Requests in flight.
    Concurrency,
    /// Requests per second.
    Rps,
}

/// How a window's seconds become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregation {
    /// All alike.
    Linear,
    /// Recent ones weigh more.
    WeightedExponential,
}

/// Everything that scaling one revision depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionSettings {
    /// What is counted.
    pub metric: Metric,
    /// How a window is averaged.
    pub aggregation: Aggregation,
    /// Target demand of one pod, after utilisation.
    pub target: f64,
    /// What one pod can carry.
    pub capacity: f64,
    /// `target-burst-capacity` in the metric's unit: spare capacity below which activators stay in
    /// the request path. 0 removes them as soon as a pod is ready, -1 keeps them always.
    ///
    /// `None` where neither the revision nor the operator sets it. Stock's default (211) would keep
    /// the activators' hop until there are several pods, and undo nearness. Here calm requests then
    /// go to the pods, and what overflows their `containerConcurrency` to the activators.
    pub burst_capacity: Option<f64>,
    /// Requests that one activator is counted on to hold.
    pub activator_capacity: f64,
    /// Over how long demand is averaged.
    pub stable_window: Duration,
    /// The short window that notices bursts.
    pub panic_window: Duration,
    /// Panic when the short window asks for this many times the ready pods.
    pub panic_threshold: f64,
    /// At most this many times the ready pods at once.
    pub max_scale_up_rate: f64,
    /// At least the ready pods divided by this.
    pub max_scale_down_rate: f64,
    /// How long a lower count must have been wanted.
    pub scale_down_delay: Duration,
    /// Whether the last pod may go.
    pub scale_to_zero: bool,
    /// How long activators get to come into the way.
    pub scale_to_zero_grace: Duration,
    /// How long the last pod stays at least.
    pub scale_to_zero_retention: Duration,
    /// Pods to start with. Until it was reached once it is the least, where it is more than one.
    pub initial_scale: u32,
    /// Pods at least, warm ones included.
    pub min_scale: u32,
    /// Pods at most; `None` is no limit.
    pub max_scale: Option<u32>,
    /// Pods at least when there are any.
    pub activation_scale: u32,
    /// How long the first pod may take.
    pub progress_deadline: Duration,
    /// Whether source nodes may earn replicas of their own, where the revision says so itself.
    pub locality_replicas: Option<bool>,
    /// The goal for the 95th percentile of the response time, network included.
    pub p95: Option<Duration>,
    /// Ready pods to keep where demand is most likely to come first.
    pub warm: u32,
    /// Zones to spread over, where there are as many pods.
    pub zones: u32,
    /// The largest share of the pods that one node may have, above 0, at most 1.
    pub node_share: Option<f64>,
    /// Problems of the annotations, as messages.
    pub problems: Vec<String>,
}

/// Knative's default of `target-burst-capacity`.
const STOCK_BURST_CAPACITY: f64 = 211.0;
/// Knative puts no fewer activators before a revision.
const LEAST_ACTIVATORS: f64 = 2.0;

impl RevisionSettings {
    /// Annotation that says, for one revision, whether source nodes may earn replicas of their own.
    pub const LOCALITY_ANNOTATION: &'static str = "bonavadeur.io/locality-replicas";
    /// Annotation of [`Self::p95`]: a duration such as `80ms`.
    pub const P95_ANNOTATION: &'static str = "placement.kantai.dev/p95";
    /// Annotation of [`Self::warm`]: a number of pods.
    pub const WARM_ANNOTATION: &'static str = "placement.kantai.dev/warm";
    /// Annotation of [`Self::zones`]: a number of zones.
    pub const ZONES_ANNOTATION: &'static str = "placement.kantai.dev/zones";
    /// Annotation of [`Self::node_share`]: a number such as `0.5`.
    pub const NODE_SHARE_ANNOTATION: &'static str = "placement.kantai.dev/node-share";

    /// Reads a revision's annotations over `cluster`. `container_concurrency` is the revision's
    /// hard limit, 0 for none; `reachable` is false once no Route leads to it any more, when it is
    /// only to finish what is in flight.
    ///
    /// A value that Knative's webhook would refuse is ignored, and named in [`Self::problems`].
    #[must_use]
    pub fn read(
        annotations: &BTreeMap<String, String>,
        container_concurrency: u32,
        reachable: bool,
        cluster: &ClusterSettings,
    ) -> Self {
        let mut own = Own(Reader::new(annotations));
        let load = own.load(container_concurrency, cluster);
        let stable_window = own
            .duration("window", |window| WINDOW.contains(&window) && is_whole_seconds(window), WINDOW_RULE)
            .unwrap_or(cluster.stable_window);
        let panic_percentage = own
            .float("panic-window-percentage", |percent| (1.0..=100.0).contains(&percent), "from 1 to 100")
            .unwrap_or(cluster.panic_window_percentage);
        let scale_down_delay =
            own.duration("scale-down-delay", |delay| delay <= *WINDOW.end() && is_whole_seconds(delay), "whole seconds up to 1h");
        let retention =
            own.duration("scale-to-zero-pod-retention-period", |period| period <= *WINDOW.end(), "a duration up to 1h");
        let initial_scale =
            own.count("initial-scale", u32::from(!cluster.allow_zero_initial_scale)).unwrap_or(cluster.initial_scale);
        let bounds = own.bounds(cluster);
        let warm = own.0.count(&[Self::WARM_ANNOTATION], 0).unwrap_or(0).min(bounds.max.unwrap_or(u32::MAX));
        let warm = if reachable { warm } else { 0 };
        Self {
            metric: load.metric,
            aggregation: own.aggregation(),
            target: load.target,
            capacity: load.capacity,
            burst_capacity: own.float("target-burst-capacity", is_burst_capacity, BURST_RULE).or(cluster.burst_capacity),
            activator_capacity: cluster.activator_capacity,
            stable_window,
            panic_window: panic_window(stable_window, panic_percentage),
            panic_threshold: own
                .float("panic-threshold-percentage", |percent| (110.0..=1000.0).contains(&percent), "from 110 to 1000")
                .map_or(cluster.panic_threshold, |percent| percent / 100.0),
            max_scale_up_rate: cluster.max_scale_up_rate,
            max_scale_down_rate: cluster.max_scale_down_rate,
            scale_down_delay: if reachable { scale_down_delay.unwrap_or(cluster.scale_down_delay) } else { Duration::ZERO },
            scale_to_zero: cluster.scale_to_zero,
            scale_to_zero_grace: cluster.scale_to_zero_grace,
            scale_to_zero_retention: if reachable {
                retention.unwrap_or(cluster.scale_to_zero_retention)
            } else {
                Duration::ZERO
            },
            // As later releases of Knative have it, unlike 1.15: a revision that is not reached any
            // more need not get to its initial scale.
            initial_scale: if reachable { initial_scale } else { initial_scale.min(1) },
            min_scale: if reachable { bounds.min.max(warm) } else { 0 },
            max_scale: bounds.max,
            activation_scale: bounds.activation,
            progress_deadline: own
                .0
                .duration(
                    &["serving.knative.dev/progress-deadline"],
                    |deadline| !deadline.is_zero() && is_whole_seconds(deadline),
                    "a duration above 0 in whole seconds",
                )
                .unwrap_or(cluster.progress_deadline),
            locality_replicas: own.0.bool(Self::LOCALITY_ANNOTATION),
            p95: own.0.duration(&[Self::P95_ANNOTATION], |goal| !goal.is_zero(), "a duration above 0"),
            warm,
            zones: own.0.count(&[Self::ZONES_ANNOTATION], 1).unwrap_or(1),
            node_share: own.0.float(&[Self::NODE_SHARE_ANNOTATION], |share| share > 0.0 && share <= 1.0, "above 0, at most 1"),
            problems: own.0.problems,
        }
    }

    /// Pods that must be ready before the revision counts as active (`initialized` is whether it
    /// ever was).
    #[must_use]
    pub fn activation_threshold(&self, initialized: bool) -> u32 {
        self.min_scale.max(if initialized { 1 } else { self.initial_scale })
    }

    /// The number of activators in the revision's subset with this many ready pods: enough for the
    /// capacity of the pods plus the burst.
    #[must_use]
    pub fn activators(&self, ready: u32) -> u32 {
        let burst = match self.burst_capacity {
            Some(0.0) => return LEAST_ACTIVATORS as u32,
            Some(burst) => burst.max(0.0),
            None => STOCK_BURST_CAPACITY,
        };
        let capacity = f64::from(ready) * self.capacity + burst;
        (capacity / self.activator_capacity).ceil().max(LEAST_ACTIVATORS) as u32
    }
}

fn panic_window(stable: Duration, percentage: f64) -> Duration {
    // Whole nanoseconds first, then whole seconds, as Go does.
    let nanoseconds = (stable.as_nanos() as f64 * percentage / 100.0) as u64;
    Duration::from_secs(((nanoseconds + 500_000_000) / 1_000_000_000).max(1))
}

/// The annotations under `autoscaling.knative.dev/`, by their hyphenated name or, where Knative
/// once had one, the older camel-case one.
struct Own<'a>(Reader<'a>);

/// The target of a pod.
struct PodTarget {
    metric: Metric,
    target: f64,
    capacity: f64,
}

struct Bounds {
    min: u32,
    max: Option<u32>,
    activation: u32,
}

const PREFIX: &str = "autoscaling.knative.dev/";

/// Annotations that also have a camel-case name.
const WITH_OLDER_NAME: [&str; 10] = [
    "initial-scale",
    "max-scale",
    "metric-aggregation-algorithm",
    "min-scale",
    "panic-threshold-percentage",
    "panic-window-percentage",
    "scale-down-delay",
    "scale-to-zero-pod-retention-period",
    "target-burst-capacity",
    "target-utilization-percentage",
];

/// The annotation's full names, the one that wins first.
fn names(name: &str) -> Vec<String> {
    let mut names = vec![format!("{PREFIX}{name}")];
    if WITH_OLDER_NAME.contains(&name) {
        let mut older = PREFIX.to_owned();
        for (index, word) in name.split('-').enumerate() {
            let mut letters = word.chars();
            match letters.next() {
                Some(first) if index > 0 => older.extend(first.to_uppercase().chain(letters)),
                _ => older.push_str(word),
            }
        }
        names.push(older);
    }
    names
}

impl Own<'_> {
    fn with<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>, &[&str]) -> T) -> T {
        let names = names(name);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        read(&mut self.0, &names)
    }

    fn float(&mut self, name: &str, is_valid: impl Fn(f64) -> bool, rule: &str) -> Option<f64> {
        self.with(name, |reader, names| reader.float(names, is_valid, rule))
    }

    fn count(&mut self, name: &str, least: u32) -> Option<u32> {
        self.with(name, |reader, names| reader.count(names, least))
    }

    fn duration(&mut self, name: &str, is_valid: impl Fn(Duration) -> bool, rule: &str) -> Option<Duration> {
        self.with(name, |reader, names| reader.duration(names, is_valid, rule))
    }

    /// The parsed text; a problem is noted if `parse` does not know it. Empty text counts as not
    /// set.
    fn word<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>, rule: &str) -> Option<T> {
        self.with(name, |reader, names| {
            let (key, text) = reader.text(names).filter(|(_, text)| !text.is_empty())?;
            let word = parse(text);
            if word.is_none() {
                reader.refuse(key, text, rule);
            }
            word
        })
    }

    fn aggregation(&mut self) -> Aggregation {
        let parse = |text: &str| match text {
            "linear" => Some(Aggregation::Linear),
            "weighted-exponential" | "weightedExponential" => Some(Aggregation::WeightedExponential),
            _ => None,
        };
        self.word("metric-aggregation-algorithm", parse, "linear or weighted-exponential").unwrap_or(Aggregation::Linear)
    }

    fn load(&mut self, container_concurrency: u32, cluster: &ClusterSettings) -> PodTarget {
        let parse = |text: &str| match text {
            "concurrency" => Some(Metric::Concurrency),
            "rps" => Some(Metric::Rps),
            _ => None,
        };
        // Knative checks the metric of its own classes only, so that of another autoscaler comes
        // through.
        let known = self.0.problems.len();
        let metric = self.word("metric", parse, "concurrency or rps for this class; concurrency is counted");
        let metric_is_foreign = self.0.problems.len() > known;
        let metric = metric.unwrap_or(Metric::Concurrency);
        let hard_limit = f64::from(container_concurrency);
        // Knative knows no utilisation per cluster for rps: 70 % it is.
        let (mut capacity, cluster_utilization) = match metric {
            Metric::Concurrency if container_concurrency > 0 => (hard_limit, cluster.target_utilization),
            Metric::Concurrency => (cluster.concurrency_target, cluster.target_utilization),
            Metric::Rps => (cluster.rps_target, 0.7),
        };
        let target = self.float("target", |target| target >= LEAST_TARGET, "at least 0.01");
        match target {
            // Percent of a processor, or megabytes, or whatever that metric counts.
            Some(target) if metric_is_foreign => {
                self.0.refuse(&format!("{PREFIX}target"), target, "in the unit of a metric of this class");
            }
            Some(target) if metric == Metric::Concurrency && container_concurrency > 0 => capacity = target.min(hard_limit),
            Some(target) => capacity = target,
            None => {}
        }
        let utilization = self
            .float("target-utilization-percentage", |percent| (1.0..=100.0).contains(&percent), "from 1 to 100")
            .map_or(cluster_utilization, |percent| percent / 100.0);
        PodTarget { metric, target: (capacity * utilization).max(LEAST_TARGET), capacity }
    }

    fn bounds(&mut self, cluster: &ClusterSettings) -> Bounds {
        let min = self.count("min-scale", 0).unwrap_or(cluster.min_scale);
        let own_max = self.count("max-scale", 0);
        let max = own_max.or(cluster.max_scale).filter(|max| *max > 0);
        let activation = self.count("activation-scale", 2).unwrap_or(1);
        let mut remark = |name: &str, text| self.0.problems.push(format!("{PREFIX}{name}: {text}"));
        if let Some(limit) = cluster.max_scale_limit
            && own_max.is_some_and(|max| max == 0 || max > limit)
        {
            remark("max-scale", format!("beyond the cluster's max-scale-limit, {limit}, which new revisions must keep to"));
        }
        if let Some(max) = max.filter(|max| *max < min) {
            remark("min-scale", format!("{min} is more than max-scale, {max}: counts from min-scale on become max-scale"));
        }
        if let Some(max) = max.filter(|max| *max < activation) {
            remark("activation-scale", format!("{activation} is more than max-scale, {max}, which holds"));
        }
        Bounds { min, max, activation }
    }
}

#[cfg(test)]
mod tests;
