//! Cluster-wide defaults: ConfigMaps `config-autoscaler` and `config-deployment`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{duration, number, value};

/// The keys of `config-autoscaler` (and one of `config-deployment`) that decisions depend on, with Knative's own defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// Share of a pod's concurrency to aim at, 0..1.
    pub target_utilization: f64,
    /// Concurrent requests per pod where nothing else says.
    pub concurrency_target: f64,
    /// Requests per second per pod where nothing else says.
    pub rps_target: f64,
    /// Spare capacity below which activators stay in the way of requests.
    ///
    /// `None` where the operator did not set it: Knative's default (211) would keep the activator's hop until there are three pods,
    /// and this class's default is 0, which takes it out of the way as soon as one pod is ready.
    pub burst_capacity: Option<f64>,
    /// Over how long demand is averaged.
    pub stable_window: Duration,
    /// The panic window as a share of the stable one, 0..1.
    pub panic_window_share: f64,
    /// Panic when the short window asks for this many times the ready pods.
    pub panic_threshold: f64,
    /// At most this many times the ready pods at once.
    pub max_scale_up_rate: f64,
    /// At least the ready pods divided by this.
    pub max_scale_down_rate: f64,
    /// How long a lower count must have been wanted.
    pub scale_down_delay: Duration,
    /// Whether the last pod may go at all.
    pub scale_to_zero: bool,
    /// How long activators get to come into the way before the last pod goes.
    pub scale_to_zero_grace: Duration,
    /// How long the last pod stays at least.
    pub scale_to_zero_retention: Duration,
    /// Pods a new revision starts with.
    pub initial_scale: u32,
    /// Whether that may be none.
    pub allow_zero_initial_scale: bool,
    /// Pods at least.
    pub min_scale: u32,
    /// Pods at most; `None` is no limit.
    pub max_scale: Option<u32>,
    /// How long a revision may take to get its first pod ready.
    pub progress_deadline: Duration,
    /// Whether source nodes may earn replicas of their own, where the revision does not say.
    pub earns_locality: bool,
}

impl ClusterSettings {
    /// Name of the ConfigMap, in Knative's own namespace.
    pub const AUTOSCALER: &'static str = "config-autoscaler";
    /// Name of the other.
    pub const DEPLOYMENT: &'static str = "config-deployment";

    /// Reads both ConfigMaps' data.
    #[must_use]
    pub fn read(autoscaler: &BTreeMap<String, String>, deployment: &BTreeMap<String, String>) -> Self {
        let percent = |key, least| number(autoscaler, key, least).map(|percent| percent / 100.0);
        Self {
            // Knative accepts both 0.7 and 70.
            target_utilization: number(autoscaler, "container-concurrency-target-percentage", 0.0)
                .filter(|&share| share > 0.0)
                .map_or(0.7, |share| if share <= 1.0 { share } else { share / 100.0 }),
            concurrency_target: number(autoscaler, "container-concurrency-target-default", 0.01).unwrap_or(100.0),
            rps_target: number(autoscaler, "requests-per-second-target-default", 0.01).unwrap_or(200.0),
            burst_capacity: number(autoscaler, "target-burst-capacity", -1.0),
            stable_window: duration(autoscaler, "stable-window").unwrap_or(Duration::from_secs(60)),
            panic_window_share: percent("panic-window-percentage", 1.0).unwrap_or(0.1),
            panic_threshold: percent("panic-threshold-percentage", 110.0).unwrap_or(2.0),
            max_scale_up_rate: number(autoscaler, "max-scale-up-rate", 1.0).unwrap_or(1000.0),
            max_scale_down_rate: number(autoscaler, "max-scale-down-rate", 1.0).unwrap_or(2.0),
            scale_down_delay: duration(autoscaler, "scale-down-delay").unwrap_or_default(),
            scale_to_zero: value(autoscaler, "enable-scale-to-zero").unwrap_or(true),
            scale_to_zero_grace: duration(autoscaler, "scale-to-zero-grace-period").unwrap_or(Duration::from_secs(30)),
            scale_to_zero_retention: duration(autoscaler, "scale-to-zero-pod-retention-period").unwrap_or_default(),
            initial_scale: value(autoscaler, "initial-scale").unwrap_or(1),
            allow_zero_initial_scale: value(autoscaler, "allow-zero-initial-scale").unwrap_or(false),
            min_scale: value(autoscaler, "min-scale").unwrap_or(0),
            max_scale: value(autoscaler, "max-scale").filter(|&max| max > 0),
            progress_deadline: duration(deployment, "progress-deadline").unwrap_or(Duration::from_secs(600)),
            earns_locality: true,
        }
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self::read(&BTreeMap::new(), &BTreeMap::new())
    }
}
