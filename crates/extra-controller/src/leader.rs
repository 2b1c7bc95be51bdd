//! One of several instances decides: the holder of the Lease.

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Name of the Lease, in the program's own namespace.
pub const LEASE: &str = "extra-controller";
/// A leader that is gone without a word is followed after this.
const DURATION_SECONDS: u64 = 10;
/// It renews so long before.
const GRACE_SECONDS: u64 = 5;

/// A hold on the Lease, or a wait for it.
pub struct Leadership {
    leading: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Tries for the Lease in `namespace` as `identity`, until [`Self::resign`].
    ///
    /// # Errors
    /// Where the Lease can neither be read nor made.
    pub async fn run_for(client: Client, namespace: &str, identity: &str) -> Result<Self, LeaseManagerError> {
        let manager = LeaseManagerBuilder::new(client, LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            .with_field_manager(format!("{LEASE}-{identity}"))
            .build()
            .await?;
        let (leading, manager) = manager.watch().await;
        let task = tokio::spawn(async move {
            match manager.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "lease was not released"),
                Err(error) => tracing::warn!(%error, "lease keeper ended"),
            }
        });
        Ok(Self { leading, task })
    }

    /// Waits until this instance leads, or does not any more. False where the Lease is given up for good: then it does not lead either.
    pub async fn wait_until(&mut self, leading: bool) -> bool {
        self.leading.wait_for(|is| *is == leading).await.is_ok()
    }

    /// Releases the Lease, so that another instance leads at once.
    pub async fn resign(self) {
        drop(self.leading);
        // The keeper logs what went wrong; a Lease that is not released runs out.
        let _ = self.task.await;
    }
}
