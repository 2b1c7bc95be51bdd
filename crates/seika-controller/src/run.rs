//! The daemon: how the parts are put together.

use std::sync::{Arc, OnceLock};

use kube::Client;
use lease_election::act_while_leading;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::controller::{self, NAME};
use crate::metrics::Metrics;
use crate::options::Options;

/// Runs until `stop` is cancelled.
///
/// # Errors
/// What keeps the daemon from going on; everything else is logged and retried.
pub async fn run(options: Options, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let readiness = ops_http::Readiness::waiting_for(["lease"]);
    let listener = ops_http::bind(options.ops.ops_listen).await?;
    let serving = ops_http::serve(listener, ops_http::router(Arc::new(registry), readiness.clone()), stop.clone());
    let ends = stop.clone().drop_guard();
    let endpoints = tokio::spawn(async move {
        // If it ends, the process ends: without health endpoints it should be restarted.
        let _ends = ends;
        serving.await
    });
    let own_pod = event_writer::pod(&options.pod.pod_namespace, &options.pod.pod_name);
    let failure = OnceLock::new();
    let act = async |stop: CancellationToken| {
        let (options, own_pod) = (options.controller.clone(), own_pod.clone());
        if let Err(ended) = controller::run(client.clone(), options, own_pod, metrics.clone(), stop.clone()).await {
            tracing::error!(error = &ended as &dyn std::error::Error, "giving up");
            let _ = failure.set(ended);
            // This process does not lead again.
            stop.cancel();
        }
    };
    // A candidate is ready too. Otherwise an update of the Deployment would wait for the lease that
    // the old pod holds.
    let ready = || readiness.reached("lease");
    let leads = |leads| metrics.leads(leads);
    act_while_leading(client.clone(), options.pod.lease(NAME), stop.clone(), ready, leads, act).await;
    stop.cancel();
    endpoints.await??;
    failure.into_inner().map_or(Ok(()), |ended| Err(ended.into()))
}
