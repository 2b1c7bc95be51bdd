//! Obtains the daemon's own certificates and renews them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use rustls::server::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::{TlsError, config_of};
use super::secrets::{Certificates, SERVER_SECRET, keep};
use crate::metrics::Metrics;

/// How often the Secrets are read. Certificates are renewed one month before they expire.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long to wait before retrying while there are no certificates.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The TLS configuration with the daemon's own certificates.
pub(crate) struct OwnCertificates {
    client: Client,
    namespace: String,
    certificates: Certificates,
    pub(crate) current: watch::Sender<Arc<ServerConfig>>,
}

impl OwnCertificates {
    /// Retries until there are certificates; `None` if the stop comes first.
    pub(crate) async fn obtain(client: &Client, namespace: &str, stop: &CancellationToken) -> Result<Option<Self>, TlsError> {
        loop {
            match keep(client, namespace, Timestamp::now()).await {
                Ok(certificates) => {
                    let current = watch::Sender::new(config(&certificates)?);
                    tracing::info!("gateways are served over TLS with certificates made by this daemon");
                    let (client, namespace) = (client.clone(), namespace.to_owned());
                    return Ok(Some(Self { client, namespace, certificates, current }));
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "gateways are not served yet, retrying"),
            }
            tokio::select! {
                () = tokio::time::sleep(TRY_AGAIN_AFTER) => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Renews due certificates, and loads those that another replica renewed, until the stop. A
    /// failure changes nothing.
    pub(crate) async fn follow(mut self, metrics: Metrics, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let failed: Box<dyn std::error::Error> = match keep(&self.client, &self.namespace, Timestamp::now()).await {
                Ok(certificates) if certificates == self.certificates => continue,
                Ok(certificates) => match config(&certificates) {
                    Ok(config) => {
                        self.current.send_replace(config);
                        self.certificates = certificates;
                        tracing::info!("loaded a new server certificate");
                        continue;
                    }
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            };
            metrics.tls_failures.inc();
            tracing::error!(error = &*failed, "failed to load a new server certificate, keeping the previous one");
        }
    }
}

fn config(certificates: &Certificates) -> Result<Arc<ServerConfig>, TlsError> {
    let Certificates { server, authority } = certificates;
    config_of(&format!("Secret {SERVER_SECRET}"), &server.certificate, &server.key, authority).map(Arc::new)
}
