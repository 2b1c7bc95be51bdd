//! Only the holder of a Lease acts.

use std::time::{Duration, Instant};

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const LEASE_SECONDS: u64 = 15;
/// The lease is renewed this long before it ends.
const GRACE_SECONDS: u64 = 5;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The Lease that is held.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who we are in it; another process must have another name.
    pub identity: String,
}

/// Runs `act` whenever the lease is ours, until `stop`; calls `ready` once the lease can be read. The token that `act` gets is `stop`; `act` is
/// then waited for and the lease given back, so that another can take over at once. When the lease is lost, `act` is dropped where it stands.
pub async fn act_while_leading<F, A>(
    client: Client,
    settings: LeaseSettings,
    metrics: Metrics,
    stop: CancellationToken,
    ready: impl Fn(),
    act: F,
) where
    F: Fn(CancellationToken) -> A,
    A: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let session = async {
            // Anew for each term: what an earlier one believed of the lease may be wrong by now.
            let manager = LeaseManagerBuilder::new(client.clone(), &settings.name)
                .with_namespace(&settings.namespace)
                .with_identity(&settings.identity)
                .with_duration(LEASE_SECONDS)
                .with_grace(GRACE_SECONDS)
                .build()
                .await?;
            ready();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                leads = async { while !manager.changed().await? {} Ok::<_, LeaseManagerError>(()) } => leads?,
            }
            tracing::info!("leading");
            metrics.leader.set(1);
            tokio::select! {
                () = act(stop.clone()) => {}
                () = lost(&manager) => tracing::warn!("no longer leading"),
            }
            metrics.leader.set(0);
            manager.release().await
        };
        if let Err(error) = session.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to hold the lease, trying again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }
}

/// Comes back when the lease is no longer ours, or may no longer be: where it could not be renewed in time, somebody else may hold it.
async fn lost(manager: &kube_lease_manager::LeaseManager) {
    let mut troubled_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        match manager.changed().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // An answer that took long to fail means that renewals went well until then.
                let since = match troubled_since {
                    Some(since) if asked.elapsed() < Duration::from_secs(GRACE_SECONDS) => since,
                    _ => Instant::now(),
                };
                troubled_since = Some(since);
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew the lease");
                if since.elapsed() >= Duration::from_secs(GRACE_SECONDS) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
