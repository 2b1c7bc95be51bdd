//! The gateways connected to this replica, and how far behind they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::store::StoreRevision;

/// The connected gateways by stream. As metrics: their number, and how long each has been behind.
#[derive(Clone, Debug)]
pub struct Connected {
    by_stream: Arc<watch::Sender<BTreeMap<u64, ConnectedGateway>>>,
    next_stream: Arc<AtomicU64>,
}

/// One connected gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedGateway {
    /// The node it is on.
    pub node: String,
    /// The last revision that it confirmed in full.
    pub in_sync_at: Option<StoreRevision>,
    /// Since when it has been behind.
    pub behind_since: Option<Instant>,
}

impl Default for Connected {
    fn default() -> Self {
        Self { by_stream: Arc::new(watch::Sender::new(BTreeMap::new())), next_stream: Arc::new(AtomicU64::new(0)) }
    }
}

impl Connected {
    /// A receiver of changes of this list.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<u64, ConnectedGateway>> {
        self.by_stream.subscribe()
    }

    /// The revision confirmed by the gateway on `node`; `None` if it is not connected to this
    /// replica.
    #[must_use]
    pub fn in_sync_at(&self, node: &str) -> Option<StoreRevision> {
        // After a reconnect the old stream may remain for a moment; the newer one counts.
        let gateways = self.by_stream.borrow();
        gateways.values().rev().find(|gateway| gateway.node == node).map(|gateway| gateway.in_sync_at.unwrap_or(0))
    }

    /// Adds a gateway on `node`, which has confirmed nothing. Returns its stream.
    pub(super) fn join(&self, node: &str) -> u64 {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let gateway = ConnectedGateway { node: node.to_owned(), in_sync_at: None, behind_since: Some(Instant::now()) };
        self.by_stream.send_modify(|all| {
            all.insert(stream, gateway);
        });
        stream
    }

    pub(super) fn leave(&self, stream: u64) {
        self.by_stream.send_modify(|all| {
            all.remove(&stream);
        });
    }

    /// Records what a gateway has confirmed in full, out of `latest`; `None` while a response is in
    /// flight. Returns whether that changed, and wakes watchers only then.
    pub(super) fn report(&self, stream: u64, in_sync_at: Option<StoreRevision>, latest: StoreRevision) -> bool {
        self.by_stream.send_if_modified(|all| {
            let Some(gateway) = all.get_mut(&stream) else { return false };
            let lags = in_sync_at.unwrap_or(0) < latest;
            gateway.behind_since = lags.then(|| gateway.behind_since.unwrap_or_else(Instant::now));
            let news = in_sync_at.is_some() && in_sync_at != gateway.in_sync_at;
            if news {
                gateway.in_sync_at = in_sync_at;
            }
            news
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

impl Collector for Connected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // After a reconnect the old stream may remain for a moment; the newer one comes later and
        // counts.
        let (count, by_node): (usize, BTreeMap<String, f64>) = {
            let gateways = self.by_stream.borrow();
            let behind = |gateway: &ConnectedGateway| gateway.behind_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            (gateways.len(), gateways.values().map(|gateway| (gateway.node.clone(), behind(gateway))).collect())
        };
        let (name, help) = ("kantai_locality_ingress_connected_gateways", "Gateways connected to this replica");
        let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(gauge)?;
        let help = "For how long the gateway of a node has not confirmed all that there is; 0 where it has";
        let name = "kantai_locality_ingress_gateway_behind_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (node, behind) in by_node {
            ConstGauge::new(behind).encode(family.encode_family(&NodeLabel { node })?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_gateway_that_lags_is_told_of_until_it_follows() {
        let connected = Connected::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(connected.clone()));
        let page = || {
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
            page
        };
        assert!(!page().contains("node="));
        let stream = connected.join("node1");
        let since = connected.watch().borrow()[&stream].behind_since;
        assert!(since.is_some(), "who comes has nothing");
        assert!(!page().contains("{node=\"node1\"} 0.0\n"), "{}", page());
        assert!(page().contains("kantai_locality_ingress_connected_gateways 1\n"), "{}", page());
        assert!(!connected.report(stream, None, 7));
        assert_eq!(connected.watch().borrow()[&stream].behind_since, since, "it counts from the first change that is lacking");
        assert!(connected.report(stream, Some(7), 7));
        assert!(!connected.report(stream, Some(7), 7), "it was told before");
        assert!(page().contains("kantai_locality_ingress_gateway_behind_seconds{node=\"node1\"} 0.0\n"), "{}", page());
        assert_eq!(connected.in_sync_at("node1"), Some(7));
        connected.leave(stream);
        assert_eq!(connected.in_sync_at("node1"), None);
        assert!(!page().contains("node="));
    }
}
