//! The server without a cluster around it, for measurements.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use placement::CostMatrix;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::network::Network;
use crate::report::Reporter;
use crate::server::Server;
use crate::verbs::Verbs;

/// Serves the verbs on `listener` for nodes with these costs and Services with these endpoints,
/// until `stop` is cancelled. Events are not written.
pub async fn serve(listener: TcpListener, costs: CostMatrix, slices: &[EndpointSlice], stop: CancellationToken) {
    let verbs = Verbs::new(false, 0.005);
    verbs.set_network(Network::new(costs, [], |_| Default::default()));
    if let Ok(mut services) = verbs.services.write() {
        slices.iter().for_each(|slice| services.apply(slice));
    }
    verbs.is_warm.store(true, Ordering::Release);
    let reporter = Reporter::new(None, Metrics::register(&mut Registry::default()));
    Arc::new(Server { verbs: Arc::new(verbs), reporter }).serve(listener, stop).await;
}
