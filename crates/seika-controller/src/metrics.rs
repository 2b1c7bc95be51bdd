//! The controller's own metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of a counter of errors.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// What failed.
    pub reason: &'static str,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteOutcome {
    /// Accepted by the API server.
    Done,
    /// Refused by the API server.
    Refused,
    /// Not known: the response was lost.
    Unknown,
}

/// Labels of a counter of writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How they ended.
    pub outcome: WriteOutcome,
}

/// The controller's own metrics. Cheap to clone; clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) reconcile_seconds: Histogram,
    pub(crate) queue_seconds: Histogram,
    pub(crate) stale_passes: Counter,
    pub(crate) reconcile_errors: Family<ErrorLabels, Counter>,
    pub(crate) pod_creates: Family<OutcomeLabels, Counter>,
    pub(crate) pod_deletes: Family<OutcomeLabels, Counter>,
    pub(crate) status_writes: Counter,
    pub(crate) names_taken: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) watch_errors: Counter,
    pub(crate) leading: Gauge,
}

impl Metrics {
    /// Registers all of them, under `kantai_seika_controller_`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconcile_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            queue_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            stale_passes: Counter::default(),
            reconcile_errors: Family::default(),
            pod_creates: Family::default(),
            pod_deletes: Family::default(),
            status_writes: Counter::default(),
            names_taken: Counter::default(),
            events_dropped: Counter::default(),
            watch_errors: Counter::default(),
            leading: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("kantai_seika_controller");
        let time = metrics.reconcile_seconds.clone();
        registry.register_with_unit(
            "reconcile",
            "Time from the start of a reconciliation to its status being written",
            Unit::Seconds,
            time,
        );
        let time = metrics.queue_seconds.clone();
        registry.register_with_unit(
            "queue",
            "Time from the event that requests a reconciliation to its start",
            Unit::Seconds,
            time,
        );
        // A controller that waits until the watch shows its own writes would have skipped these.
        let stale = "Reconciliations that counted own writes which the watch did not show yet";
        registry.register("stale_passes", stale, metrics.stale_passes.clone());
        registry.register("reconcile_errors", "Reconciliations that failed and are retried", metrics.reconcile_errors.clone());
        registry.register("pod_creates", "Requests to create a pod, by outcome", metrics.pod_creates.clone());
        registry.register("pod_deletes", "Requests to delete a pod, by outcome", metrics.pod_deletes.clone());
        registry.register("status_writes", "Status updates written", metrics.status_writes.clone());
        let name_taken = "Creations refused because a pod of that name exists: ours from before, or a foreign one";
        registry.register("pod_names_taken", name_taken, metrics.names_taken.clone());
        registry.register("events_dropped", "Events not published because too many waited", metrics.events_dropped.clone());
        registry.register("watch_errors", "Watches that failed and were restarted", metrics.watch_errors.clone());
        registry.register("leading", "1 while this process is the leader, else 0", metrics.leading.clone());
        metrics
    }

    /// Records whether this process is the leader.
    pub fn leads(&self, leads: bool) {
        self.leading.set(leads.into());
    }

    pub(crate) fn created(&self, outcome: WriteOutcome) {
        self.pod_creates.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn deleted(&self, outcome: WriteOutcome) {
        self.pod_deletes.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}
