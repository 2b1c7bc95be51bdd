//! Receives the access log entries of requests that activators hold, see [`crate::xds::held_log`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{AccessLogService, AccessLogServiceServer};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::shared::SharedLoadBoard;
use crate::kubernetes::objects::ObjectName;
use crate::xds::store::ConfigStore;

/// An entry has some hundred bytes; the first message of a stream has 61 kB about the gateway.
const MOST_BYTES: usize = 1024 * 1024;
/// Streams in total: each worker thread of each gateway has one.
const MOST_STREAMS: usize = 8192;
/// A stream without entries for this long is closed; the gateway opens another one for its next
/// entry.
const IDLE: Duration = Duration::from_secs(3600);

/// The access log service.
#[derive(Clone, Debug)]
pub(super) struct HeldRequests {
    demand: SharedLoadBoard,
    store: Arc<ConfigStore>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl HeldRequests {
    /// Announces held requests for clusters of `store` to `demand`.
    #[must_use]
    pub(super) fn new(demand: SharedLoadBoard, store: Arc<ConfigStore>, stop: CancellationToken) -> Self {
        Self { demand, store, streams: Arc::new(Semaphore::new(MOST_STREAMS)), stop }
    }

    /// The gRPC service.
    #[must_use]
    pub(super) fn service(self) -> AccessLogServiceServer<Self> {
        AccessLogServiceServer::new(self).max_decoding_message_size(MOST_BYTES)
    }

    fn record(&self, source: &str, message: StreamAccessLogsMessage) {
        let Some(LogEntries::HttpLogs(logs)) = message.log_entries else { return };
        let mut is_news = false;
        for entry in logs.log_entry {
            let Some(cluster) = entry.common_properties.map(|properties| properties.upstream_cluster) else { continue };
            let Some(revision) = revision(&cluster) else { continue };
            // The store has no such cluster, so the entry is not from one of our configurations.
            let clusters = self.store.clusters_of(&revision);
            if !clusters.is_empty() && self.demand.board().record_held(&revision, source, Instant::now()) {
                is_news = true;
                self.demand.request_reports_of(source, &clusters);
            }
        }
        if is_news {
            self.demand.announce_change();
        }
    }
}

/// The log has the statistics name of a cluster, `<namespace>/<revision>`.
fn revision(cluster: &str) -> Option<ObjectName> {
    let mut parts = cluster.split('/');
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => Some(ObjectName::new(namespace, name)),
        _ => None,
    }
}

#[tonic::async_trait]
impl AccessLogService for HeldRequests {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let Ok(_one_of_them) = self.streams.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many streams"));
        };
        let mut messages = request.into_inner();
        let mut source = None;
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(IDLE, messages.next()) => message,
                () = self.stop.cancelled() => break,
            };
            let Ok(Some(message)) = message else { break };
            let mut message = message?;
            // The first message of a stream identifies the gateway.
            let node = message.identifier.take().and_then(|identifier| identifier.node);
            if let Some(node) = node.filter(|node| !node.id.is_empty()) {
                source.get_or_insert(node.id);
            }
            let Some(source) = &source else {
                return Err(Status::invalid_argument("the first message must carry a node id"));
            };
            self.record(source, message);
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_known_by_its_name_for_statistics_and_by_its_own() {
        assert_eq!(revision("ns/a"), Some(ObjectName::new("ns", "a")));
        assert_eq!(revision("ns/a/80"), Some(ObjectName::new("ns", "a")));
        assert_eq!((revision("admin"), revision("/a")), (None, None));
    }
}
