//! Latency straight from the probers: each serves its own row of the matrix.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use latency_matrix::{Measurement, NodeName, Row};

use crate::{LatencyError, RowSource};

/// Where a prober serves its row.
const ROW_PATH: &str = "/v1/row";
/// Longest row that is read: 10,000 peers at some 400 bytes.
const ROW_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 16;

/// All probers that there are now.
pub struct Probers {
    http: reqwest::Client,
    addresses: Arc<dyn Fn() -> Vec<(NodeName, SocketAddr)> + Send + Sync>,
}

impl Probers {
    /// The probers that `addresses` names, with their nodes, whenever it is asked.
    pub fn new(http: reqwest::Client, addresses: impl Fn() -> Vec<(NodeName, SocketAddr)> + Send + Sync + 'static) -> Self {
        Self { http, addresses: Arc::new(addresses) }
    }

    async fn row(&self, node: NodeName, address: SocketAddr) -> Result<Vec<Measurement>, LatencyError> {
        let failed = |source| LatencyError::Row { node: node.clone(), source };
        let body = self.body(address).await.map_err(failed)?;
        measurements(&node, &body).map_err(failed)
    }

    async fn body(&self, address: SocketAddr) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let mut response = self.http.get(format!("http://{address}{ROW_PATH}")).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ROW_MAX_BYTES {
                return Err(format!("it is longer than {ROW_MAX_BYTES} bytes").into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// What a row says. A prober may speak for its own node only.
fn measurements(node: &NodeName, body: &[u8]) -> Result<Vec<Measurement>, Box<dyn std::error::Error + Send + Sync>> {
    let row: Row = serde_json::from_slice(body)?;
    if row.from != *node {
        return Err(format!("it is that of {}", row.from).into());
    }
    Ok(row.measurements().collect())
}

impl RowSource for Probers {
    async fn read(&self, nodes: &[NodeName], take: &mut (dyn FnMut(Vec<Measurement>) + Send)) -> Result<(), LatencyError> {
        let wanted: BTreeSet<&NodeName> = nodes.iter().collect();
        let asked: Vec<_> = (self.addresses)().into_iter().filter(|(node, _)| wanted.contains(node)).collect();
        let probers = asked.len();
        let mut rows = stream::iter(asked).map(|(node, address)| self.row(node, address)).buffer_unordered(ROWS_AT_ONCE);
        let (mut has_answer, mut last_error) = (false, None);
        while let Some(row) = rows.next().await {
            match row {
                Ok(row) => {
                    has_answer = true;
                    take(row);
                }
                Err(error) => last_error = Some(Box::new(error)),
            }
        }
        if has_answer { Ok(()) } else { Err(LatencyError::NoProber { probers, source: last_error }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prober_speaks_for_its_own_node_only() {
        let row = br#"{"from":"node1","peers":[{"to":"node2","state":"unreachable"}]}"#;
        assert_eq!(measurements(&"node1".into(), row).unwrap().len(), 1);
        assert_eq!(measurements(&"node2".into(), row).unwrap_err().to_string(), "it is that of node1");
        assert!(measurements(&"node1".into(), b"<html>").is_err());
    }

    async fn serve(body: String) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Streamed: without a content-length.
        let answer = move || {
            let chunks: Vec<Result<String, std::io::Error>> =
                body.as_bytes().chunks(1 << 16).map(|chunk| Ok(String::from_utf8_lossy(chunk).into_owned())).collect();
            std::future::ready(axum::body::Body::from_stream(stream::iter(chunks)))
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route(ROW_PATH, axum::routing::get(answer))).await });
        address
    }

    #[tokio::test]
    async fn rows_are_read_from_those_asked_and_one_without_an_end_is_refused() {
        let row = r#"{"from":"node1","peers":[{"to":"node2","state":"unreachable"}]}"#.to_owned();
        let endless = serve(format!("{row}{}", " ".repeat(ROW_MAX_BYTES))).await;
        let addresses = vec![("node1".into(), serve(row).await), ("node2".into(), endless)];
        let probers = Probers::new(reqwest::Client::builder().no_proxy().build().unwrap(), move || addresses.clone());
        let mut taken = Vec::new();
        probers.read(&["node1".into(), "node2".into()], &mut |row| taken.push(row)).await.unwrap();
        assert_eq!((taken.len(), taken[0][0].from.as_str()), (1, "node1"));
        let refused = probers.read(&["node2".into()], &mut |_| ()).await.unwrap_err();
        let LatencyError::NoProber { probers: 1, source: Some(source) } = &refused else { panic!("{refused:?}") };
        assert!(matches!(&**source, LatencyError::Row { source, .. } if source.to_string().contains("longer than")));
    }
}
