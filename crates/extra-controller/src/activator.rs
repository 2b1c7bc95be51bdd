//! Asks a revision's public Service whether an activator answers there, before the last pod ends.
//!
//! Source: knative/serving `pkg/reconciler/autoscaling/kpa/scaler.go` (the probe) and
//! `pkg/activator/handler` (what answers it).

use std::net::SocketAddr;
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
pub(crate) fn over_http(client: Client) -> reqwest::Result<ActivatorProber> {
    let http = http_client()?;
    Ok(Arc::new(move |key| {
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
    }))
}

/// A connection for each probe: one that is kept leads to the pod that answered the last probe,
/// wherever the Service leads by now.
fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().connect_timeout(TIMEOUT).pool_max_idle_per_host(0).build()
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
    Ok(is_activator(http, SocketAddr::new(address, port), key).await?)
}

async fn is_activator(http: &reqwest::Client, address: SocketAddr, key: &RevisionKey) -> reqwest::Result<bool> {
    let url = format!("http://{address}/healthz");
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn key() -> RevisionKey {
        RevisionKey { namespace: "shop".to_owned(), revision: "greeter-00001".to_owned() }
    }

    #[tokio::test]
    async fn an_activator_is_known_by_what_it_answers() -> anyhow::Result<()> {
        let answer = |headers: HeaderMap| async move {
            let is_probe = headers.get(PROBE_HEADER).is_some_and(|value| value == ACTIVATOR);
            if is_probe && headers["host"] == "greeter-00001.shop" { ACTIVATOR } else { "queue" }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, Router::new().route("/healthz", get(answer))).await });
        assert!(is_activator(&http_client()?, address, &key()).await?);
        server.abort();
        Ok(())
    }

    /// The Service routes to the pod at the first probe and to an activator at the second.
    #[tokio::test]
    async fn a_probe_goes_where_the_service_leads_now() -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move {
                while let Ok((mut connection, _)) = listener.accept().await {
                    let body = if connections.fetch_add(1, Ordering::SeqCst) == 0 { "queue" } else { ACTIVATOR };
                    tokio::spawn(async move {
                        let mut request = [0; 1024];
                        while connection.read(&mut request).await.is_ok_and(|read| read > 0) {
                            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                            let _ = connection.write_all(answer.as_bytes()).await;
                        }
                    });
                }
            }
        });
        let http = http_client()?;
        assert!(!is_activator(&http, address, &key()).await?);
        assert!(is_activator(&http, address, &key()).await?);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        server.abort();
        Ok(())
    }
}
