//! Who writes statuses: the holder of a Lease.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A leader that is gone without a word is replaced after this many seconds.
const LEASE_SECONDS: u64 = 15;
/// A leader renews its Lease this many seconds before it ends.
const GRACE_SECONDS: u64 = 5;
/// How long after a broken election the next is tried.
const RETRY: Duration = Duration::from_secs(1);
/// How long giving the Lease back may hold up our own end.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);

/// Takes part in the election for the Lease `lease` in `namespace` as `identity` until the stop, and then gives the Lease back. Serving
/// gateways goes on without an election, so one that breaks is begun anew.
pub async fn elect(
    client: Client,
    lease: &str,
    namespace: &str,
    identity: &str,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        if let Err(error) = one_election(&client, lease, namespace, identity, &leading, &stop).await {
            tracing::warn!(lease, %error, "the election broke, trying again");
        }
        leading.send_replace(false);
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn one_election(
    client: &Client,
    lease: &str,
    namespace: &str,
    identity: &str,
    leading: &watch::Sender<bool>,
    stop: &CancellationToken,
) -> Result<(), LeaseManagerError> {
    let manager = LeaseManagerBuilder::new(client.clone(), lease)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await?;
    let (mut state, task) = manager.watch().await;
    loop {
        let leads = *state.borrow_and_update();
        if *leading.borrow() != leads {
            tracing::info!(lease, leads, "election");
            leading.send_replace(leads);
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    // With nobody listening any more the manager gives the Lease back and ends.
    drop(state);
    match tokio::time::timeout(RELEASE_WITHIN, task).await {
        Ok(Ok(ended)) => ended.map(|_| ()),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}
