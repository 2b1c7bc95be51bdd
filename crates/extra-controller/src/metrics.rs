//! What operators watch.

use gateway_link::RevisionKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cold_start::PhaseLabels;

/// Names one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RevisionLabels {
    namespace: String,
    revision: String,
}

impl From<&RevisionKey> for RevisionLabels {
    fn from(key: &RevisionKey) -> Self {
        Self { namespace: key.namespace.clone(), revision: key.revision.clone() }
    }
}

/// Names one kind of input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct InputLabels {
    input: &'static str,
}

impl InputLabels {
    /// Age of the last answer of any source of latency.
    pub(crate) const LATENCY: Self = Self { input: "latency" };
    /// Since the last second whose demand is known whole.
    pub(crate) const DEMAND: Self = Self { input: "demand" };
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Decisions made.
    pub(crate) decisions: Counter,
    /// Decisions or writes that failed.
    pub(crate) failures: Counter,
    /// How long one tick took, without writes.
    pub(crate) tick_seconds: Histogram,
    /// How long the writes of one decision took.
    pub(crate) write_seconds: Histogram,
    /// Revisions that were inactive and were woken.
    pub(crate) wakeups: Counter,
    /// Demand over the stable window.
    pub(crate) demand: Family<RevisionLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    /// Pods wanted.
    pub(crate) pods_wanted: Family<RevisionLabels, Gauge>,
    /// Pods ready.
    pub(crate) pods_ready: Family<RevisionLabels, Gauge>,
    /// Pairs of nodes whose latency is known.
    pub(crate) latency_pairs_known: Gauge,
    /// Pairs of nodes whose latency is not known.
    pub(crate) latency_pairs_unknown: Gauge,
    /// Seconds from when it was seen that requests wait for a revision at zero, by phase.
    pub(crate) cold_start_seconds: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    /// Decisions that moved pods.
    pub(crate) moves: Counter,
    /// Requests in flight at revisions without a ready pod.
    pub(crate) waiting_requests: Gauge,
    /// Nodes that are avoided, counted once per revision.
    pub(crate) nodes_avoided: Gauge,
    /// How old what decisions are made from is.
    pub(crate) input_age_seconds: Family<InputLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    /// Whether this instance decides.
    pub(crate) leading: Gauge,
}

impl Metrics {
    /// Registers all of them under `kantai_extra_controller_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            decisions: Counter::default(),
            failures: Counter::default(),
            tick_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            write_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            wakeups: Counter::default(),
            demand: Family::default(),
            pods_wanted: Family::default(),
            pods_ready: Family::default(),
            latency_pairs_known: Gauge::default(),
            latency_pairs_unknown: Gauge::default(),
            cold_start_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 18))),
            moves: Counter::default(),
            waiting_requests: Gauge::default(),
            nodes_avoided: Gauge::default(),
            input_age_seconds: Family::default(),
            leading: Gauge::default(),
        };
        let scope = registry.sub_registry_with_prefix("kantai_extra_controller");
        scope.register("decisions", "Decisions made about a revision", metrics.decisions.clone());
        scope.register("failures", "Decisions or their writes that failed", metrics.failures.clone());
        let seconds = |scope: &mut Registry, name, help, histogram: &Histogram| {
            scope.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        seconds(scope, "tick", "Time that gathering and deciding took in one tick", &metrics.tick_seconds);
        seconds(scope, "write", "Time that the writes of one decision took", &metrics.write_seconds);
        scope.register("wakeups", "Revisions that were inactive and were woken", metrics.wakeups.clone());
        scope.register("revision_demand", "Demand over the stable window, in the revision's metric", metrics.demand.clone());
        scope.register("revision_pods_wanted", "Pods wanted", metrics.pods_wanted.clone());
        scope.register("revision_pods_ready", "Pods ready", metrics.pods_ready.clone());
        scope.register("latency_pairs_known", "Ordered node pairs of known latency", metrics.latency_pairs_known.clone());
        scope.register("latency_pairs_unknown", "Ordered node pairs of unknown latency", metrics.latency_pairs_unknown.clone());
        scope.register_with_unit(
            "cold_start",
            "Time from when it was seen that requests wait for a revision at zero until it was decided on (seen), pods were \
             wanted (decided), existed (created), were ready, and a request was answered",
            Unit::Seconds,
            metrics.cold_start_seconds.clone(),
        );
        scope.register("moves", "Decisions that moved pods to other nodes", metrics.moves.clone());
        let waiting = "Requests in flight at revisions without a ready pod";
        scope.register("waiting_requests", waiting, metrics.waiting_requests.clone());
        let avoided = "Nodes that are avoided for a time because they refused pods, counted once per revision";
        scope.register("nodes_avoided", avoided, metrics.nodes_avoided.clone());
        let age = "Time since any source of latency answered, and since the last second with the demand of all gateways";
        scope.register_with_unit("input_age", age, Unit::Seconds, metrics.input_age_seconds.clone());
        scope.register("leading", "1 on the instance that decides", metrics.leading.clone());
        metrics
    }

    /// Forgets what there is of a revision that is not ours any more.
    pub(crate) fn forget(&self, key: &RevisionKey) {
        let labels = RevisionLabels::from(key);
        self.demand.remove(&labels);
        self.pods_wanted.remove(&labels);
        self.pods_ready.remove(&labels);
    }
}
