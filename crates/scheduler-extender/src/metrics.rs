//! What operators watch.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A verb, and what became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: &'static str,
    pub(crate) outcome: &'static str,
}

/// A verb.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct VerbLabels {
    pub(crate) verb: &'static str,
}

/// A fault of the scheduler's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FaultLabels {
    pub(crate) fault: &'static str,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) request_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    /// 1 for each fault that was noticed.
    pub(crate) configuration_faults: Family<FaultLabels, Gauge>,
    pub(crate) latency_pairs_known: Gauge,
    pub(crate) latency_pairs_unknown: Gauge,
    pub(crate) latency_age_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers all of them under `kantai_scheduler_extender_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_01, 2.0, 16))),
            configuration_faults: Family::default(),
            latency_pairs_known: Gauge::default(),
            latency_pairs_unknown: Gauge::default(),
            latency_age_seconds: Gauge::default(),
        };
        for fault in crate::configuration::Fault::ALL {
            metrics.configuration_faults.get_or_create(&FaultLabels { fault: fault.name() }).set(0);
        }
        let scope = registry.sub_registry_with_prefix("kantai_scheduler_extender");
        scope.register("requests", "Requests of the scheduler by what became of them", metrics.requests.clone());
        scope.register_with_unit(
            "request",
            "Time from having read a request to its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        let faults = "1 for a fault of the scheduler's configuration that its requests show";
        scope.register("configuration_faults", faults, metrics.configuration_faults.clone());
        scope.register("latency_pairs_known", "Ordered node pairs of known latency", metrics.latency_pairs_known.clone());
        scope.register("latency_pairs_unknown", "Ordered node pairs of unknown latency", metrics.latency_pairs_unknown.clone());
        let age = "Time since any source of latency answered";
        scope.register_with_unit("latency_age", age, Unit::Seconds, metrics.latency_age_seconds.clone());
        metrics
    }
}
