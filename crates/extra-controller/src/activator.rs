//! Asks a revision's public Service whether an activator answers there, before the last pod ends.
//!
//! Source: knative/serving `pkg/reconciler/autoscaling/kpa/scaler.go` (the probe) and
//! `pkg/activator/handler` (what answers it).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gateway_link::RevisionKey;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};

/// The header that makes a request a probe.
const PROBE_HEADER: &str = "K-Network-Probe";
/// Its value for activators, and the body that they answer.
const ACTIVATOR: &str = "activator";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest body that is looked at, in bytes.
const LONGEST_BODY: usize = 64;

/// Probes the public Service of a revision; whether an activator answered.
pub type ActivatorProber = Arc<dyn Fn(RevisionKey) -> BoxFuture<'static, bool> + Send + Sync>;

/// Probes by HTTP at the Service's cluster address.
#[must_use]
pub(crate) fn over_http(client: Client, http: reqwest::Client) -> ActivatorProber {
    Arc::new(move |key| {
        let (client, http) = (client.clone(), http.clone());
        Box::pin(async move {
            match tokio::time::timeout(TIMEOUT, probe(&client, &http, &key)).await {
                Ok(Ok(is_activator)) => is_activator,
                Ok(Err(error)) => {
                    tracing::debug!(revision = %key, error = &*error as &dyn std::error::Error, "failed to probe for an activator");
                    false
                }
                Err(_) => false,
            }
        })
    })
}

async fn probe(
    client: &Client,
    http: &reqwest::Client,
    key: &RevisionKey,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let spec = services.get(&key.revision).await?.spec.unwrap_or_default();
    let address = spec.cluster_ip.filter(|address| !address.is_empty() && address != "None");
    let Some(address) = address.and_then(|address| address.parse::<std::net::IpAddr>().ok()) else { return Ok(false) };
    let port = spec.ports.iter().flatten().find(|port| port.name.as_deref().is_some_and(|name| name.starts_with("http")));
    let port = port.and_then(|port| u16::try_from(port.port).ok()).unwrap_or(80);
    let url = format!("http://{}/healthz", std::net::SocketAddr::new(address, port));
    let request = http.get(url).header(PROBE_HEADER, ACTIVATOR).header("Host", format!("{}.{}", key.revision, key.namespace));
    let mut response = request.send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_BODY {
            return Ok(false);
        }
    }
    Ok(response.status().is_success() && body == ACTIVATOR.as_bytes())
}
