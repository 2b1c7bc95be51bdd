//! The ADS server: one task per gateway connects its stream with its [`XdsSession`].

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::value;
use futures::{Stream, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use rustls::server::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder, Streaming};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Status, codegen::Service};

use super::accept::{PeerAddress, connections};
use super::answer::DeltaResponse;
use super::connected::Connected;
use super::gateway_view::GatewayView;
use super::refusal::Nack;
use super::session::XdsSession;
use super::store::ConfigStore;
use crate::metrics::Metrics;

/// The node metadata key with the only address to listen on.
pub(crate) const LISTEN_ADDRESS_METADATA: &str = "listen_address";

/// The node metadata key with the addresses of the pod, separated by commas. They distinguish a
/// terminating gateway from its successor on the same node.
pub(crate) const POD_ADDRESSES_METADATA: &str = "pod_addresses";

/// The key of older gateways, with one address.
const OLD_POD_ADDRESS_METADATA: &str = "pod_address";

/// Responses that may wait for a slow gateway.
const OUTBOUND_DEPTH: usize = 8;

/// A NACK and its sender.
#[derive(Clone, Debug)]
pub struct NackReport {
    /// The node of the gateway.
    pub node: String,
    /// The NACK.
    pub nack: Nack,
}

/// The ADS service.
#[derive(Clone, Debug)]
pub struct Ads {
    store: Arc<ConfigStore>,
    connected: Connected,
    metrics: Metrics,
    nacks: mpsc::Sender<NackReport>,
    stop: CancellationToken,
}

impl Ads {
    /// Serves `store`. NACKs go to `nacks`; if that is full they are only counted and logged.
    #[must_use]
    pub fn new(
        store: Arc<ConfigStore>,
        connected: Connected,
        metrics: Metrics,
        nacks: mpsc::Sender<NackReport>,
        stop: CancellationToken,
    ) -> Self {
        Self { store, connected, metrics, nacks, stop }
    }

    /// Serves on `listener` until the stop, over TLS if `tls` is given, together with the services
    /// in `others`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        others: Routes,
    ) -> Result<(), tonic::transport::Error> {
        let stop = self.stop.clone();
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .max_concurrent_streams(Some(STREAMS))
            .add_routes(others)
            .add_service(self)
            .serve_with_incoming_shutdown(connections(listener, tls), async move { stop.cancelled().await })
            .await
    }

    async fn follow(
        self,
        (mut session, peer): (XdsSession, Option<IpAddr>),
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        answers: mpsc::Sender<Result<DeltaResponse, Status>>,
    ) {
        let node = session.view().node.clone();
        let stream = self.connected.join(&node);
        tracing::info!(node, stream, "gateway connected");
        let mut revision = self.store.watch();
        let mut was_in_sync = false;
        let mut request = Some(first);
        loop {
            if let Some(nack) = request.take().and_then(|request| session.on_request(request, &self.store)) {
                self.refused(&node, nack);
            }
            // A client at the address of a known gateway must be that gateway. Other addresses are
            // unknown: some networks hide them.
            if let Some(its) = peer.and_then(|address| self.store.node_of_gateway(address)).filter(|its| *its != node) {
                tracing::warn!(node, stream, ?peer, its, "refused a gateway: its address belongs to another node's gateway");
                let _ = answers.send(Err(Status::permission_denied("this is the address of another node's gateway"))).await;
                break;
            }
            if session.exceeds_limits(&self.store) {
                tracing::warn!(node, stream, "refused a gateway: it subscribes to too many resources");
                let _ = answers.send(Err(Status::resource_exhausted("too many resources are subscribed"))).await;
                break;
            }
            for answer in session.answers(&self.store, Instant::now()) {
                self.metrics.count_push(answer.kind, answer.resources.len());
                if answers.send(Ok(answer)).await.is_err() {
                    break;
                }
            }
            self.report(&session, stream, &mut was_in_sync);
            let wake_at = session.wake_at().map(tokio::time::Instant::from_std);
            tokio::select! {
                next = requests.next() => match next {
                    Some(Ok(next)) => request = Some(next),
                    Some(Err(status)) => {
                        tracing::info!(node, stream, %status, "lost a gateway's xDS stream");
                        break;
                    }
                    None => break,
                },
                changed = revision.changed() => if changed.is_err() { break },
                () = async { tokio::time::sleep_until(wake_at.unwrap_or_else(tokio::time::Instant::now)).await }, if wake_at.is_some() => {}
                () = answers.closed() => break,
                () = self.stop.cancelled() => break,
            }
        }
        self.connected.leave(stream);
        tracing::info!(node, stream, "gateway disconnected");
    }

    fn refused(&self, node: &str, nack: Nack) {
        tracing::error!(node, kind = nack.kind.label(), names = ?nack.names, message = nack.message, "gateway refused an update (NACK)");
        self.metrics.count_nack(nack.kind);
        // A full channel means that NACKs come faster than they can be handled; the count and the
        // log remain.
        let _ = self.nacks.try_send(NackReport { node: node.to_owned(), nack });
    }

    fn report(&self, session: &XdsSession, stream: u64, was_in_sync: &mut bool) {
        let (latest, published) = self.store.revision();
        let in_sync_at = session.in_sync_at();
        let news = self.connected.report(stream, in_sync_at, latest);
        // The time until a new gateway has caught up is not the latency of a change.
        if news
            && *was_in_sync
            && in_sync_at == Some(latest)
            && let Some(published) = published
        {
            self.metrics.change_to_ack_seconds.observe(published.elapsed().as_secs_f64());
        }
        *was_in_sync |= in_sync_at.is_some();
    }
}

/// The view of the node that opened the stream.
fn view(node: Option<&Node>) -> Result<GatewayView, Status> {
    let node = node.filter(|node| !node.id.is_empty());
    let node =
        node.ok_or_else(|| Status::invalid_argument("the first request must carry a node id, the name of the Kubernetes node"))?;
    let addresses = |key: &str| match node.metadata.as_ref().and_then(|all| all.fields.get(key)?.kind.as_ref()) {
        Some(value::Kind::StringValue(text)) => {
            let no_address = |_| Status::invalid_argument(format!("node metadata {key} is not an IP address: {text:?}"));
            text.split(',').map(|one| one.trim().parse::<IpAddr>()).collect::<Result<Vec<_>, _>>().map_err(no_address)
        }
        _ => Ok(Vec::new()),
    };
    let listen_address = addresses(LISTEN_ADDRESS_METADATA)?.first().copied();
    let pod_addresses = match addresses(POD_ADDRESSES_METADATA)? {
        none if none.is_empty() => addresses(OLD_POD_ADDRESS_METADATA)?.into_iter().chain(listen_address).collect(),
        some => some,
    };
    Ok(GatewayView { node: node.id.clone(), listen_address, pod_addresses })
}

/// How long a gateway may take to identify itself.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Concurrent streams of a connection: a gateway has one of configuration, one of reports, and
/// those of access logs.
const STREAMS: u32 = 8;

/// The only method served.
const DELTA_METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The first request has the name and version of all resources that a gateway holds.
const MOST_REQUEST_BYTES: usize = 64 * 1024 * 1024;

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

// The generated server would encode every message for every stream, and keeps buffers of the
// largest size. So responses are framed by hand and share their content.
impl Service<http::Request<Body>> for Ads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != DELTA_METHOD {
            let status = Status::unimplemented("only the delta protocol is served: api_type DELTA_GRPC");
            return ready(Ok(status.into_http()));
        }
        let peer = request.extensions().get::<PeerAddress>().map(|PeerAddress(address)| *address);
        let mut requests = Streaming::new_request(Requests, request.into_body(), None, Some(MOST_REQUEST_BYTES));
        let (sender, receiver) = mpsc::channel(OUTBOUND_DEPTH);
        let ads = self.clone();
        // The first request may come only after the response headers, so it is awaited in the task.
        tokio::spawn(async move {
            let Ok(Some(Ok(first))) = tokio::time::timeout(FIRST_REQUEST_WITHIN, requests.next()).await else { return };
            match view(first.node.as_ref()) {
                Ok(view) => ads.follow((XdsSession::new(view), peer), first, requests, sender).await,
                Err(status) => {
                    tracing::warn!(%status, "refused a gateway");
                    let _ = sender.send(Err(status)).await;
                }
            }
        });
        let mut response = http::Response::new(Body::new(StreamBody::new(frames(receiver))));
        response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        ready(Ok(response))
    }
}

/// The frames of responses, and the status that ends the stream.
fn frames(answers: mpsc::Receiver<Result<DeltaResponse, Status>>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let frames = |answer: Result<DeltaResponse, Status>| {
        let message = answer.and_then(|answer| answer.message().map_err(|error| Status::resource_exhausted(error.to_string())));
        let frames = match message {
            Ok(pieces) => pieces.into_iter().map(Frame::data).collect(),
            Err(status) => vec![end(&status)],
        };
        stream::iter(frames.into_iter().map(Ok))
    };
    // Nothing after the first end is read.
    ReceiverStream::new(answers).flat_map(frames).chain(stream::once(async { Ok(end(&Status::ok(""))) }))
}

fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    // A message that is no valid header value is left out.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

struct Requests;

impl Decoder for Requests {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let request = DeltaDiscoveryRequest::decode(from);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("not a request: {error}")))
    }
}
