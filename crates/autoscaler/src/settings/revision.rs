//! One revision's own settings: its annotations over the cluster's defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ClusterSettings, duration, number, value};

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
    /// What one pod is to carry, after utilisation.
    pub target: f64,
    /// What one pod can carry.
    pub capacity: f64,
    /// Spare capacity to keep before activators leave the way; -1 keeps them in always.
    pub burst_capacity: f64,
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
    /// Pods to start with.
    pub initial_scale: u32,
    /// Pods at least.
    pub min_scale: u32,
    /// Pods at most; `None` is no limit.
    pub max_scale: Option<u32>,
    /// Pods at least when there are any.
    pub activation_scale: u32,
    /// How long the first pod may take.
    pub progress_deadline: Duration,
    /// Whether source nodes may earn replicas of their own.
    pub earns_locality: bool,
}

/// Shortest and longest window that Knative allows.
const WINDOW: std::ops::RangeInclusive<Duration> = Duration::from_secs(6)..=Duration::from_secs(3600);
/// No pod is asked to carry less than this.
const LEAST_TARGET: f64 = 0.01;

impl RevisionSettings {
    /// Annotation that says, for one revision, whether source nodes may earn replicas of their own.
    pub const LOCALITY_ANNOTATION: &'static str = "bonavadeur.io/locality-replicas";

    /// Reads a revision's annotations over `cluster`. `container_concurrency` is the revision's hard limit, 0 for none;
    /// `reachable` is false once no Route leads to it any more, when it is only to finish what is in flight.
    #[must_use]
    pub fn read(
        annotations: &BTreeMap<String, String>,
        container_concurrency: u32,
        reachable: bool,
        cluster: &ClusterSettings,
    ) -> Self {
        let own = Own(annotations);
        let metric = if own.text("metric") == Some("rps") { Metric::Rps } else { Metric::Concurrency };
        let hard_limit = f64::from(container_concurrency);
        // Knative knows no utilisation per cluster for rps: 70 % it is.
        let (mut capacity, cluster_utilization) = match metric {
            Metric::Concurrency if container_concurrency > 0 => (hard_limit, cluster.target_utilization),
            Metric::Concurrency => (cluster.concurrency_target, cluster.target_utilization),
            Metric::Rps => (cluster.rps_target, 0.7),
        };
        if let Some(asked) = own.number("target", LEAST_TARGET) {
            // Only a metric that is named lets the hard limit bound the target; an unnamed one is concurrency all the same here.
            capacity = if metric == Metric::Concurrency && container_concurrency > 0 { asked.min(hard_limit) } else { asked };
        }
        let utilization = own.percent("target-utilization-percentage", 1.0).unwrap_or(cluster_utilization).min(1.0);
        let stable_window = own
            .duration("window")
            .filter(|window| WINDOW.contains(window))
            .unwrap_or(cluster.stable_window)
            .clamp(*WINDOW.start(), *WINDOW.end());
        let panic_share = own.percent("panic-window-percentage", 1.0).unwrap_or(cluster.panic_window_share).clamp(0.01, 1.0);
        let panic_window = Duration::from_secs_f64((stable_window.as_secs_f64() * panic_share).round().max(1.0));
        let min_scale = own.value("min-scale").unwrap_or(cluster.min_scale);
        let max_scale = own.value("max-scale").or(cluster.max_scale).filter(|&max: &u32| max > 0);
        let initial_scale = own
            .value("initial-scale")
            .filter(|&scale: &u32| scale > 0 || cluster.allow_zero_initial_scale)
            .unwrap_or(cluster.initial_scale);
        Self {
            metric,
            aggregation: match own.text("metric-aggregation-algorithm") {
                Some("weighted-exponential" | "weightedExponential") => Aggregation::WeightedExponential,
                _ => Aggregation::Linear,
            },
            target: (capacity * utilization).max(LEAST_TARGET),
            capacity: capacity.max(LEAST_TARGET),
            burst_capacity: own.number("target-burst-capacity", -1.0).or(cluster.burst_capacity).unwrap_or(0.0),
            stable_window,
            panic_window,
            panic_threshold: own.percent("panic-threshold-percentage", 110.0).unwrap_or(cluster.panic_threshold),
            max_scale_up_rate: cluster.max_scale_up_rate,
            max_scale_down_rate: cluster.max_scale_down_rate,
            scale_down_delay: if reachable {
                own.duration("scale-down-delay").unwrap_or(cluster.scale_down_delay)
            } else {
                Duration::ZERO
            },
            scale_to_zero: cluster.scale_to_zero,
            scale_to_zero_grace: cluster.scale_to_zero_grace,
            scale_to_zero_retention: if reachable {
                own.duration("scale-to-zero-pod-retention-period").unwrap_or(cluster.scale_to_zero_retention)
            } else {
                Duration::ZERO
            },
            initial_scale: if reachable { initial_scale } else { initial_scale.min(1) },
            min_scale: if reachable { min_scale } else { 0 },
            max_scale,
            activation_scale: own.value("activation-scale").unwrap_or(1).max(1),
            progress_deadline: duration(annotations, "serving.knative.dev/progress-deadline")
                .unwrap_or(cluster.progress_deadline),
            earns_locality: value(annotations, Self::LOCALITY_ANNOTATION).unwrap_or(cluster.earns_locality),
        }
    }

    /// Pods that must be ready before the revision counts as active (`initialized` is whether it ever was).
    #[must_use]
    pub fn activation_threshold(&self, initialized: bool) -> u32 {
        self.min_scale.max(if initialized { 1 } else { self.initial_scale })
    }
}

/// The annotations under `autoscaling.knative.dev/`, by their hyphenated name or Knative's older camel-case one.
struct Own<'a>(&'a BTreeMap<String, String>);

impl Own<'_> {
    fn key(&self, name: &str) -> Option<String> {
        let hyphenated = format!("autoscaling.knative.dev/{name}");
        if self.0.contains_key(&hyphenated) {
            return Some(hyphenated);
        }
        let mut camel = String::from("autoscaling.knative.dev/");
        for (index, word) in name.split('-').enumerate() {
            let mut letters = word.chars();
            match letters.next() {
                Some(first) if index > 0 => camel.extend(first.to_uppercase().chain(letters)),
                _ => camel.push_str(word),
            }
        }
        self.0.contains_key(&camel).then_some(camel)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(&self.key(name)?).map(|text| text.trim())
    }

    fn value<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        value(self.0, &self.key(name)?)
    }

    fn number(&self, name: &str, least: f64) -> Option<f64> {
        number(self.0, &self.key(name)?, least)
    }

    fn percent(&self, name: &str, least: f64) -> Option<f64> {
        self.number(name, least).map(|percent| percent / 100.0)
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        duration(self.0, &self.key(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.into_iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), value.to_owned())).collect()
    }

    #[test]
    fn the_demo_has_a_target_of_seven_over_twelve_seconds() {
        let own = annotations([("target", "10"), ("window", "12s"), ("metric", "")]);
        let settings = RevisionSettings::read(&own, 0, true, &ClusterSettings::default());
        assert_eq!((settings.target, settings.capacity), (7.0, 10.0));
        assert_eq!((settings.stable_window, settings.panic_window), (Duration::from_secs(12), Duration::from_secs(1)));
        assert_eq!((settings.burst_capacity, settings.initial_scale, settings.max_scale), (0.0, 1, None));
    }

    #[test]
    fn older_spellings_and_the_hard_limit_are_honoured() {
        let own = annotations([("target", "10"), ("minScale", "2"), ("maxScale", "5"), ("targetUtilizationPercentage", "100")]);
        let settings = RevisionSettings::read(&own, 4, true, &ClusterSettings::default());
        assert_eq!((settings.target, settings.min_scale, settings.max_scale), (4.0, 2, Some(5)));
    }

    #[test]
    fn an_unreachable_revision_keeps_nothing() {
        let own = annotations([("min-scale", "3"), ("scale-down-delay", "1m"), ("scale-to-zero-pod-retention-period", "1m")]);
        let settings = RevisionSettings::read(&own, 0, false, &ClusterSettings::default());
        assert_eq!((settings.min_scale, settings.scale_down_delay), (0, Duration::ZERO));
        assert_eq!(settings.scale_to_zero_retention, Duration::ZERO);
    }

    #[test]
    fn nonsense_falls_back_to_the_defaults() {
        let own = annotations([("target", "NaN"), ("window", "1s"), ("min-scale", "-3"), ("target-burst-capacity", "-7")]);
        let settings = RevisionSettings::read(&own, 0, true, &ClusterSettings::default());
        assert_eq!(settings, RevisionSettings::read(&BTreeMap::new(), 0, true, &ClusterSettings::default()));
    }
}
