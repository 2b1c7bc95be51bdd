//! Metrics of this daemon.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::xds::ResourceKind;

/// All metrics of this daemon. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Time from a change to a gateway's ACK, in seconds.
    pub change_to_ack_seconds: Histogram,
    /// Time from the first sight of a generation to Ready, in seconds.
    pub ingress_ready_seconds: Histogram,
    /// Ingresses of our class.
    pub ingresses: Gauge,
    /// Ingresses of our class that cannot be served.
    pub ingresses_refused: Gauge,
    /// Probes that were not answered with the expected version.
    pub failed_probes: Counter,
    /// Changed TLS files or Secrets that could not be used.
    pub tls_failures: Counter,
    /// 1 while the stream of routes is connected, else 0.
    pub plan_connected: Gauge,
    /// When the stream of routes last delivered a line (Unix time); 0 before the first.
    pub plan_heard_timestamp_seconds: Gauge<f64, AtomicU64>,
    /// Revisions that have routes.
    pub planned_revisions: Gauge,
    /// Other replicas whose demand is followed.
    pub peers_connected: Gauge,
    /// 1 on the replica that writes statuses, else 0.
    pub leading: Gauge,
    pushes: Family<KindLabel, Counter>,
    pushed_resources: Family<KindLabel, Counter>,
    nacks: Family<KindLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            change_to_ack_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            ingress_ready_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 12)),
            ingresses: Gauge::default(),
            ingresses_refused: Gauge::default(),
            failed_probes: Counter::default(),
            tls_failures: Counter::default(),
            plan_connected: Gauge::default(),
            plan_heard_timestamp_seconds: Gauge::default(),
            planned_revisions: Gauge::default(),
            peers_connected: Gauge::default(),
            leading: Gauge::default(),
            pushes: Family::default(),
            pushed_resources: Family::default(),
            nacks: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("kantai_locality_ingress");
        registry.register(
            "change_to_ack_seconds",
            "Time from a change to its ACK by a gateway",
            metrics.change_to_ack_seconds.clone(),
        );
        registry.register(
            "ingress_ready_seconds",
            "Time from the first sight of a generation of an Ingress to Ready",
            metrics.ingress_ready_seconds.clone(),
        );
        registry.register("ingresses", "Ingresses of our class", metrics.ingresses.clone());
        registry.register("ingresses_refused", "Ingresses of our class that cannot be served", metrics.ingresses_refused.clone());
        registry.register(
            "failed_probes",
            "Readiness probes that were not answered with the expected version",
            metrics.failed_probes.clone(),
        );
        registry.register("tls_failures", "Changed TLS files or Secrets that could not be used", metrics.tls_failures.clone());
        registry.register("plan_connected", "1 while the stream of routes is connected", metrics.plan_connected.clone());
        registry.register(
            "plan_heard_timestamp_seconds",
            "When the stream of routes last delivered a line",
            metrics.plan_heard_timestamp_seconds.clone(),
        );
        registry.register("planned_revisions", "Revisions that have routes", metrics.planned_revisions.clone());
        registry.register(
            "peers_connected",
            "Other replicas whose stream of demand is connected",
            metrics.peers_connected.clone(),
        );
        registry.register("leading", "1 on the replica that writes statuses", metrics.leading.clone());
        registry.register("xds_pushes", "Responses sent to gateways", metrics.pushes.clone());
        registry.register("xds_pushed_resources", "Resources sent to gateways", metrics.pushed_resources.clone());
        registry.register("xds_nacks", "Responses that a gateway refused (NACK)", metrics.nacks.clone());
        for kind in ResourceKind::ALL {
            // Rates and alerts see the first increase only of a counter that was exported at 0.
            let _ = metrics.nacks.get_or_create(&KindLabel { kind: kind.label() });
        }
        metrics
    }

    /// Records that the stream of routes has just delivered something.
    pub(crate) fn record_plan_heard(&self) {
        self.plan_connected.set(1);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.plan_heard_timestamp_seconds.set(since_1970.as_secs_f64());
    }

    pub(crate) fn count_push(&self, kind: ResourceKind, resources: usize) {
        let label = KindLabel { kind: kind.label() };
        self.pushes.get_or_create(&label).inc();
        self.pushed_resources.get_or_create(&label).inc_by(resources.try_into().unwrap_or(u64::MAX));
    }

    pub(crate) fn count_nack(&self, kind: ResourceKind) {
        self.nacks.get_or_create(&KindLabel { kind: kind.label() }).inc();
    }
}
