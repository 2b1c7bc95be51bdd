//! Takes the gateways' reports: Envoy's load reporting service, on the port of the configuration.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::board::{Board, StreamId};
use crate::change::Change;
use crate::objects::ObjectName;
use crate::xds::proto::duration;

/// The board, for everybody who writes and reads it.
#[derive(Clone, Debug)]
pub struct Demand {
    board: Arc<Mutex<Board>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { board: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
}

impl Demand {
    /// The board.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        // It holds counters: a panic while one was added leaves it no worse than a lost report.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver of the board's version.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Reports {
    demand: Demand,
    interval: Duration,
    changes: mpsc::Sender<Change>,
    next_stream: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Reports {
    /// Asks every gateway for a report each `interval`. Loads that changed go to the board, and to `changes`.
    #[must_use]
    pub fn new(demand: Demand, interval: Duration, changes: mpsc::Sender<Change>, stop: CancellationToken) -> Self {
        Self { demand, interval, changes, next_stream: Arc::default(), stop }
    }

    /// As a service of a gRPC server.
    #[must_use]
    pub fn service(self) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self)
    }

    async fn follow(&self, stream: StreamId, mut reports: Streaming<LoadStatsRequest>) {
        let mut source: Option<String> = None;
        loop {
            let report = tokio::select! {
                report = reports.next() => match report {
                    Some(Ok(report)) => report,
                    Some(Err(_)) | None => break,
                },
                () = self.stop.cancelled() => break,
            };
            if let Some(node) = &report.node {
                source.get_or_insert_with(|| node.id.clone());
            }
            // The first message says who it is.
            let Some(source) = &source else { break };
            let changed = self.demand.board().take(stream, source, &report, Instant::now());
            self.tell(&changed);
        }
        let changed = self.demand.board().gone(stream, Instant::now());
        self.tell(&changed);
    }

    fn tell(&self, changed: &BTreeSet<ObjectName>) {
        if changed.is_empty() {
            return;
        }
        let version = {
            let board = self.demand.board();
            for revision in changed {
                let loads = board.of(revision);
                // Full means that the world is busy; the next report tells it again.
                let _ = self.changes.try_send(Change::Load(revision.clone(), loads));
            }
            board.version()
        };
        self.demand.version.send_replace(version);
    }
}

#[tonic::async_trait]
impl LoadReportingService for Reports {
    type StreamLoadStatsStream = Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let reports = self.clone();
        let stream_id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move { reports.follow(stream_id, request.into_inner()).await });
        let what = LoadStatsResponse {
            send_all_clusters: true,
            load_reporting_interval: duration(self.interval),
            ..LoadStatsResponse::default()
        };
        // Said once; the stream then stays open until the gateway or we end it.
        let stop = self.stop.clone();
        let until_the_stop = stream::once(async move { stop.cancelled_owned().await }).filter_map(async |()| None);
        Ok(Response::new(Box::pin(stream::iter([Ok(what)]).chain(until_the_stop))))
    }
}
