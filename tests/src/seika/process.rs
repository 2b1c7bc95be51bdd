//! The controller's own binary, as a process.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;

use crate::daemon::Daemon;

/// A lease that was not released expires after eight seconds; the rest is for a busy machine.
const LEADING_WITHIN: Duration = Duration::from_secs(60);

/// How a process is started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The controller's binary.
    pub binary: &'a Path,
    /// Where the API server is and who asks.
    pub kubeconfig: &'a Path,
    /// The namespace that it looks after; all of them if there is none.
    pub namespace: Option<&'a str>,
    /// Where its Lease is.
    pub lease_namespace: &'a str,
    /// Its name in the Lease.
    pub identity: &'a str,
    /// What it says goes there, after what was said before.
    pub log: &'a Path,
}

impl Launch<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self) -> anyhow::Result<Daemon> {
        let mut arguments = vec!["--ops-listen=127.0.0.1:0".to_owned()];
        arguments.push(format!("--pod-namespace={}", self.lease_namespace));
        arguments.push(format!("--pod-name={}", self.identity));
        arguments.extend(self.namespace.map(|namespace| format!("--namespace={namespace}")));
        Daemon::start(self.binary, self.kubeconfig, &arguments, self.log)
    }

    /// Starts it and waits until it leads.
    ///
    /// # Errors
    /// Where it does not within a minute.
    pub async fn start_leading(&self, client: Client) -> anyhow::Result<Daemon> {
        let process = self.start()?;
        let leases: Api<Lease> = Api::namespaced(client, self.lease_namespace);
        let begun = Instant::now();
        loop {
            let lease = leases.get_opt("seika-controller").await?;
            if lease.and_then(|lease| lease.spec?.holder_identity).is_some_and(|holder| holder == self.identity) {
                return Ok(process);
            }
            anyhow::ensure!(begun.elapsed() < LEADING_WITHIN, "seika-controller does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
