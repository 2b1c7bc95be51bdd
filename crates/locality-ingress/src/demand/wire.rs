//! Envoy's load reporting service on the wire; only the used part of a report is decoded.
//!
//! With each report a gateway repeats its identity: 61 kB, mostly the names of more than 500
//! extensions. Gateways therefore compress reports (see deploy/kantai-gateway/envoy.yaml), where
//! repetition costs tens of bytes, and this decoder skips it.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterStats;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use futures::{Stream, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder, Streaming};

use super::unbrotli::Unbrotli;

/// The service.
pub(super) const SERVICE: &str = "envoy.service.load_stats.v3.LoadReportingService";
/// Its only method.
const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
/// A report of 10,000 clusters is far smaller.
const MOST_REPORT_BYTES: usize = 4 * 1024 * 1024;

/// The responses to a gateway.
pub(super) type Answers = mpsc::Sender<Result<LoadStatsResponse, Status>>;

/// A report, and its sender if the message names it.
pub(super) struct Received {
    pub(super) node: Option<String>,
    pub(super) report: LoadStatsRequest,
}

/// Serves a stream of reports: `follow` reads reports and sends what to report next.
pub(super) fn answer<F>(
    request: http::Request<Body>,
    follow: impl FnOnce(Streaming<Received>, Answers) -> F,
) -> http::Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    if request.uri().path() != METHOD {
        return Status::unimplemented("only StreamLoadStats is served").into_http();
    }
    let limit = Some(MOST_REPORT_BYTES);
    let encoding = request.headers().get(http::header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_vec());
    let reports = match encoding.as_deref() {
        None => Streaming::new_request(ReportDecoder, request.into_body(), None, limit),
        Some(b"br") => Streaming::new_request(ReportDecoder, Body::new(Unbrotli::new(request.into_body())), None, limit),
        Some(_) => return Status::unimplemented("reports come compressed with br, or not at all").into_http(),
    };
    let (answers, outgoing) = mpsc::channel(2);
    tokio::spawn(follow(reports, answers));
    let mut response = http::Response::new(Body::new(StreamBody::new(frames(outgoing))));
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

fn frames(answers: mpsc::Receiver<Result<LoadStatsResponse, Status>>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let frame = |answer: Result<LoadStatsResponse, Status>| match answer {
        Ok(answer) => Frame::data(message(&answer)),
        Err(status) => end(&status),
    };
    // Nothing after the first end is read.
    let end = stream::once(async { end(&Status::ok("")) });
    ReceiverStream::new(answers).map(frame).chain(end).map(Ok)
}

/// A length-prefixed message.
fn message(answer: &LoadStatsResponse) -> Bytes {
    let length = answer.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows as needed.
    let _ = answer.encode(&mut bytes);
    bytes.freeze()
}

fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    // A message that is no valid header value is left out.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

/// A `LoadStatsRequest` without most of its node.
#[derive(Clone, PartialEq, Message)]
struct Slim {
    #[prost(message, optional, tag = "1")]
    node: Option<SlimNode>,
    #[prost(message, repeated, tag = "2")]
    cluster_stats: Vec<ClusterStats>,
}

#[derive(Clone, PartialEq, Message)]
struct SlimNode {
    #[prost(string, tag = "1")]
    id: String,
}

pub(super) struct ReportDecoder;

impl Decoder for ReportDecoder {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let slim = Slim::decode(from).map_err(|error| Status::invalid_argument(format!("not a report: {error}")))?;
        let node = slim.node.map(|node| node.id).filter(|id| !id.is_empty());
        Ok(Some(Received { node, report: LoadStatsRequest { node: None, cluster_stats: slim.cluster_stats } }))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Extension, Node};

    use super::*;

    #[test]
    fn a_report_is_read_without_what_a_gateway_tells_of_itself() {
        let extensions = vec![Extension { name: "envoy.filters.http.router".into(), ..Extension::default() }; 500];
        let cluster_stats = vec![ClusterStats { cluster_name: "ns/a/80".into(), ..ClusterStats::default() }];
        let node = Some(Node { id: "node3".into(), extensions, ..Node::default() });
        let whole = LoadStatsRequest { node, cluster_stats: cluster_stats.clone() }.encode_to_vec();
        let slim = Slim::decode(&*whole).unwrap();
        assert_eq!(slim.node.unwrap().id, "node3");
        assert_eq!(slim.cluster_stats, cluster_stats);
    }
}
