//! The load reports of one gateway, at the level of the protocol: what it is asked for, when it is
//! asked for it, compressed as the deployed bootstrap has it.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::{Extension, Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::{Service as _, ServiceExt as _};

use crate::reports::BUSY;

const URI: &str = "http://ingress/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
/// Each revision with traffic has it at one of ten gateways.
const GATEWAYS_PER_SOURCE: u32 = 10;

/// What the gateway was asked for last.
#[derive(Clone, Default)]
struct Selection {
    /// `None`: all clusters.
    clusters: Option<Vec<String>>,
    interval: Option<Duration>,
}

/// Reports until the server goes; adds the bytes of the reports to `sent`. `all` are the clusters.
pub(crate) async fn report(endpoint: Endpoint, number: u32, all: Arc<Vec<String>>, sent: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut channel = endpoint.connect().await?;
    let (chunks, body) = mpsc::channel::<Bytes>(8);
    let frames = ReceiverStream::new(body).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let request = http::Request::post(URI)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("content-encoding", "br")
        .body(Body::new(StreamBody::new(frames)))?;
    let response = channel.ready().await?.call(request).await?;
    let (selected, mut selection) = watch::channel(Selection::default());
    let asked = tokio::spawn(read_selections(response.into_body(), selected));
    let mut compressor = brotli::CompressorWriter::new(Vec::new(), 4096, 2, 18);
    let extensions = (0..500_u64).map(|one| Extension {
        name: format!("envoy.filters.http.extension_{one:03}_{:x}", one.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        category: "envoy.filters.http".to_owned(),
        ..Extension::default()
    });
    let node = Node { id: format!("node{number}"), extensions: extensions.collect(), ..Node::default() };
    loop {
        let Selection { clusters, interval } = selection.borrow_and_update().clone();
        let names = clusters.as_deref().unwrap_or(&all);
        let stats = if interval.is_some() { names.iter().map(|name| cluster_stats(name, number)).collect() } else { Vec::new() };
        let message = LoadStatsRequest { node: Some(node.clone()), cluster_stats: stats };
        compressor.write_all(&framed(&message))?;
        compressor.flush()?;
        let chunk = std::mem::take(compressor.get_mut());
        sent.fetch_add(u64::try_from(chunk.len())?, Ordering::Relaxed);
        if chunks.send(chunk.into()).await.is_err() || asked.is_finished() {
            return Ok(());
        }
        match interval {
            Some(interval) => tokio::time::sleep(interval).await,
            None => selection.changed().await?,
        }
    }
}

/// What Envoy says of a cluster: the serving node only while there is traffic.
fn cluster_stats(name: &str, number: u32) -> ClusterStats {
    // default/service-00042-00001/80
    let service: u32 = name.split('-').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX);
    let is_busy = service < BUSY && service % GATEWAYS_PER_SOURCE == number % GATEWAYS_PER_SOURCE;
    let locality = Some(Locality { sub_zone: format!("node{number}"), ..Locality::default() });
    let stats = UpstreamLocalityStats {
        locality,
        total_requests_in_progress: 1,
        total_issued_requests: 1,
        total_successful_requests: 1,
        ..UpstreamLocalityStats::default()
    };
    let upstream_locality_stats = if is_busy { vec![stats] } else { Vec::new() };
    ClusterStats { cluster_name: name.to_owned(), upstream_locality_stats, ..ClusterStats::default() }
}

fn framed(message: &LoadStatsRequest) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

async fn read_selections(mut body: Body, selected: watch::Sender<Selection>) -> anyhow::Result<()> {
    const PREFIX: usize = 5;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { break };
        rest.extend_from_slice(&data);
        while let Some(prefix) = rest.first_chunk::<PREFIX>() {
            let length = usize::try_from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]))?;
            if rest.len() < PREFIX + length {
                break;
            }
            let message = rest.split_to(PREFIX + length);
            let response = LoadStatsResponse::decode(&message[PREFIX..])?;
            let interval = response.load_reporting_interval.context("no interval")?;
            let interval = Duration::new(interval.seconds.try_into()?, interval.nanos.try_into()?);
            let clusters = (!response.send_all_clusters).then_some(response.clusters);
            selected.send_replace(Selection { clusters, interval: Some(interval) });
        }
    }
    Ok(())
}
