//! The server side of Envoy's load reporting service, on the port of the configuration.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Status, codegen::Service};

use super::held::HeldRequests;
use super::report_selection::{FEW, ReportSelection};
use super::shared::SharedLoadBoard;
use super::wire::{self, Answers, Received};
use crate::kubernetes::objects::ObjectName;
use crate::state::change::{LoadChange, ObjectChange};
use crate::xds::store::{ConfigStore, StoreRevision};

/// A peer must identify itself within this time.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// A gateway without a report for this many intervals, and for at least the next time, is gone.
const INTERVALS_OF_SILENCE: u32 = 20;
const LEAST_SILENCE: Duration = Duration::from_secs(15);

/// The load reporting service.
#[derive(Clone, Debug)]
pub struct Reports {
    demand: SharedLoadBoard,
    store: Arc<ConfigStore>,
    interval: Duration,
    changes: mpsc::Sender<ObjectChange>,
    next_stream: Arc<AtomicU64>,
    with_pods: Arc<Mutex<WithPods>>,
    stop: CancellationToken,
}

/// The clusters with pods, as of a revision of the store.
#[derive(Debug, Default)]
struct WithPods {
    looked: Option<(StoreRevision, Instant)>,
    clusters: Arc<BTreeSet<String>>,
}

/// The minimum time between two lookups of these clusters.
const LOOK_AFTER: Duration = Duration::from_millis(250);

impl Reports {
    /// Asks every gateway for a report per `interval`, of the clusters in `store`. Changed loads go
    /// to the board and to `changes`.
    #[must_use]
    pub fn new(
        demand: SharedLoadBoard,
        store: Arc<ConfigStore>,
        interval: Duration,
        changes: mpsc::Sender<ObjectChange>,
        stop: CancellationToken,
    ) -> Self {
        Self { demand, store, interval, changes, next_stream: Arc::default(), with_pods: Arc::default(), stop }
    }

    /// The gRPC services: this one, and the access log service of held requests.
    #[must_use]
    pub fn services(self) -> Routes {
        let held = HeldRequests::new(self.demand.clone(), self.store.clone(), self.stop.clone());
        Routes::new(held.service()).add_service(self)
    }

    /// Reads a gateway's stream to its end.
    async fn follow(self, mut reports: Streaming<Received>, answers: Answers) {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let first = tokio::select! {
            first = tokio::time::timeout(FIRST_WITHIN, reports.next()) => first,
            () = self.stop.cancelled() => return,
        };
        let Ok(Some(Ok(first))) = first else { return };
        let Some(source) = first.node else {
            let _ = answers.send(Err(Status::invalid_argument("the first message must carry a node id"))).await;
            return;
        };
        let joined = self.demand.board().open_stream(stream, &source, Instant::now());
        if let Err(error) = joined {
            tracing::warn!(node = source, %error, "refused a gateway's load reports");
            let _ = answers.send(Err(Status::resource_exhausted(error.to_string()))).await;
            return;
        }
        let mut watch = self.demand.add_follower(stream, &source);
        let mut selection = ReportSelection::new(self.interval);
        self.ask(&mut selection, &answers);
        let silence = (self.interval * INTERVALS_OF_SILENCE).max(LEAST_SILENCE);
        let mut untold = BTreeSet::new();
        loop {
            let report = tokio::select! {
                report = tokio::time::timeout(silence, reports.next()) => report,
                Some(clusters) = watch.recv() => {
                    selection.held(clusters, Instant::now());
                    self.ask(&mut selection, &answers);
                    continue;
                }
                () = self.stop.cancelled() => break,
            };
            let report = match report {
                Ok(Some(Ok(received))) => received.report,
                Ok(Some(Err(status))) => {
                    tracing::info!(node = source, stream, %status, "lost a gateway's load reports");
                    break;
                }
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(node = source, stream, ?silence, "a gateway stopped reporting its load");
                    break;
                }
            };
            selection.reported(&report, |name| self.store.has_cluster(name), Instant::now());
            // A new request restarts the gateway's interval; directly after a report that costs
            // nothing.
            self.ask(&mut selection, &answers);
            untold.extend(self.demand.board().apply_report(stream, &report, |name| self.store.has_cluster(name), Instant::now()));
            self.pass_on(&source, &mut untold);
        }
        self.demand.remove_follower(stream);
        let left = self.demand.board().close_stream(stream, Instant::now());
        untold.extend(left.into_iter().flat_map(|(_, changed)| changed));
        self.pass_on(&source, &mut untold);
        // Nothing announces them later. The event loop may be busy, but it reads.
        for revision in untold {
            let change = self.change(&source, &revision);
            let _ = tokio::time::timeout(LEAST_SILENCE, self.changes.send(change)).await;
        }
        self.demand.announce_change();
    }

    /// Sends the next request for reports, if it differs from the last one.
    fn ask(&self, selection: &mut ReportSelection, answers: &Answers) {
        let all = self.store.clusters();
        let with_pods = if all > FEW { self.with_pods() } else { Arc::default() };
        let Some(answer) = selection.next(&with_pods, all, Instant::now()) else { return };
        if answers.try_send(Ok(answer)).is_err() {
            selection.not_sent();
        }
    }

    fn with_pods(&self) -> Arc<BTreeSet<String>> {
        let (revision, _) = self.store.revision();
        let mut with_pods = self.with_pods.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |(as_of, at): (StoreRevision, Instant)| as_of == revision || at.elapsed() < LOOK_AFTER;
        if !with_pods.looked.is_some_and(is_recent) {
            *with_pods =
                WithPods { looked: Some((revision, Instant::now())), clusters: Arc::new(self.store.clusters_with_pods()) };
        }
        with_pods.clusters.clone()
    }

    /// Passes on changed loads; those that the event loop cannot take now stay in `untold`.
    fn pass_on(&self, source: &str, untold: &mut BTreeSet<ObjectName>) {
        if untold.is_empty() {
            return;
        }
        self.demand.announce_change();
        while let Some(revision) = untold.first() {
            let change = self.change(source, revision);
            if let Err(mpsc::error::TrySendError::Full(_)) = self.changes.try_send(change) {
                return;
            }
            untold.pop_first();
        }
    }

    fn change(&self, source: &str, revision: &ObjectName) -> ObjectChange {
        let loads = self.demand.board().load_from(revision, source);
        ObjectChange::Load(revision.clone(), LoadChange { heard_by: None, source: source.to_owned(), loads })
    }
}

impl NamedService for Reports {
    const NAME: &'static str = wire::SERVICE;
}

impl Service<http::Request<Body>> for Reports {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let reports = self.clone();
        ready(Ok(wire::answer(request, |stream, answers| reports.follow(stream, answers))))
    }
}
