//! Follows the stream of demand of every other replica, so that spill counts the load that all
//! replicas see: each gateway reports to one of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, DemandStreamError, MAX_LINE_BYTES, SILENCE_SECONDS};
use gateway_link::lines::{LineTooLong, Lines};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peer_loads::{PeerLoads, RevisionLoad};
use crate::metrics::Metrics;
use crate::state::change::ObjectChange;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How long the loads of a replica count after its stream broke off. Its gateways need about as
/// long to connect to another replica and to report there.
const KEEP_LOADS: Duration = Duration::from_secs(3);

/// The other replicas: pod name -> address.
pub(crate) type ReplicaAddresses = BTreeMap<String, IpAddr>;

/// How to follow the other replicas.
pub(crate) struct PeerSettings {
    /// The port on which every replica serves its demand.
    pub(crate) port: u16,
    /// Where their loads go.
    pub(crate) changes: mpsc::Sender<ObjectChange>,
    /// Where the number of streams is counted.
    pub(crate) metrics: Metrics,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum PeerStreamEnd {
    #[error("failed to read demand from {url}")]
    Http { url: String, source: reqwest::Error },
    #[error("failed to read demand from {url}: no line for {SILENCE_SECONDS} s")]
    Silence { url: String },
    #[error("failed to read demand from {url}: the replica ended the stream")]
    Ended { url: String },
    #[error("failed to read demand")]
    TooLong(#[from] LineTooLong),
    #[error("failed to read demand: a line is not UTF-8")]
    NotText(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Line(#[from] DemandStreamError),
}

/// Follows the replicas in `replicas`, as they come and go, until the stop.
pub(crate) async fn follow_all(settings: PeerSettings, mut replicas: watch::Receiver<ReplicaAddresses>, stop: CancellationToken) {
    // No time limit for whole answers: a stream has no end.
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).tcp_nodelay(true).no_proxy().build();
    let client = client.unwrap_or_default();
    let mut followed: BTreeMap<String, (IpAddr, CancellationToken, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let wanted = replicas.borrow_and_update().clone();
        let is_wanted = |(name, (address, ..)): &(&String, &(IpAddr, _, _))| wanted.get(*name) == Some(address);
        let left: Vec<String> = followed.iter().filter(|one| !is_wanted(one)).map(|(name, _)| name.clone()).collect();
        for (_, left, task) in left.iter().filter_map(|name| followed.remove(name)) {
            left.cancel();
            // The loads are withdrawn before a successor of that name adds its own.
            let _ = task.await;
        }
        for (name, address) in wanted {
            followed.entry(name.clone()).or_insert_with(|| {
                let left = stop.child_token();
                let url = format!("http://{}{DEMAND_PATH}", SocketAddr::new(address, settings.port));
                let peer = OtherReplica {
                    loads: PeerLoads::new(&name),
                    url,
                    changes: settings.changes.clone(),
                    metrics: settings.metrics.clone(),
                };
                (address, left.clone(), tokio::spawn(peer.follow(client.clone(), left)))
            });
        }
        tokio::select! {
            changed = replicas.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// A stream that delivers, counted for as long as this lives.
struct ConnectedPeer(Gauge);

impl ConnectedPeer {
    fn count(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for ConnectedPeer {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One other replica.
struct OtherReplica {
    loads: PeerLoads,
    url: String,
    changes: mpsc::Sender<ObjectChange>,
    metrics: Metrics,
}

impl OtherReplica {
    /// Follows the replica until it `left`.
    async fn follow(mut self, client: reqwest::Client, left: CancellationToken) {
        let mut retry = FIRST_RETRY;
        let mut broke_off: Option<Instant> = None;
        loop {
            let mut heard = false;
            let end = tokio::select! {
                end = self.read(&client, &mut heard) => end,
                () = left.cancelled() => break,
            };
            if heard {
                (retry, broke_off) = (FIRST_RETRY, None);
                tracing::info!(error = &end as &dyn std::error::Error, "lost another replica's stream of demand");
            }
            let since = *broke_off.get_or_insert_with(Instant::now);
            if since.elapsed() >= KEEP_LOADS {
                let withdrawn = self.loads.withdraw();
                self.pass_on(withdrawn).await;
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
                () = left.cancelled() => break,
            }
        }
        let withdrawn = self.loads.withdraw();
        self.pass_on(withdrawn).await;
    }

    /// Reads one stream to its end. `heard` becomes true with its first line.
    async fn read(&mut self, client: &reqwest::Client, heard: &mut bool) -> PeerStreamEnd {
        match self.read_lines(client, heard).await {
            Ok(()) => PeerStreamEnd::Ended { url: self.url.clone() },
            Err(end) => end,
        }
    }

    async fn read_lines(&mut self, client: &reqwest::Client, heard: &mut bool) -> Result<(), PeerStreamEnd> {
        let silence = Duration::from_secs_f64(SILENCE_SECONDS);
        let url = self.url.clone();
        let silent = |_| PeerStreamEnd::Silence { url: url.clone() };
        let failed = |source| PeerStreamEnd::Http { url: url.clone(), source };
        let response = tokio::time::timeout(silence, client.get(&url).send()).await.map_err(silent)?;
        let mut chunks = response.and_then(reqwest::Response::error_for_status).map_err(failed)?.bytes_stream();
        let mut lines = Lines::new(MAX_LINE_BYTES);
        let mut connected = None;
        while let Some(chunk) = tokio::time::timeout(silence, chunks.next()).await.map_err(silent)? {
            for line in lines.take_in(&chunk.map_err(failed)?)? {
                let event = DemandEvent::from_line(std::str::from_utf8(&line)?)?;
                *heard = true;
                connected.get_or_insert_with(|| ConnectedPeer::count(self.metrics.peers_connected.clone()));
                let changes = self.loads.apply(event);
                self.pass_on(changes).await;
            }
        }
        Ok(())
    }

    async fn pass_on(&self, loads: Vec<RevisionLoad>) {
        for (revision, load) in loads {
            // The receiver is gone only while the process stops.
            let _ = self.changes.send(ObjectChange::Load(revision, load)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::Router;
    use tokio::net::TcpListener;

    use super::*;
    use crate::demand::board::tests::report;
    use crate::demand::{SharedLoadBoard, stream};
    use crate::kubernetes::objects::ObjectName;
    use crate::state::change::LoadChange;

    const WITHIN: Duration = Duration::from_secs(60);

    async fn next_load(changes: &mut mpsc::Receiver<ObjectChange>) -> (String, Option<String>, String, u64) {
        let change = tokio::time::timeout(WITHIN, changes.recv()).await.expect("no load came").unwrap();
        let ObjectChange::Load(ObjectName { name, .. }, LoadChange { heard_by, source, loads }) = change else {
            panic!("{change:?}")
        };
        (name, heard_by.map(|replica| replica.to_string()), source, loads.values().map(|load| load.in_flight).sum())
    }

    #[tokio::test]
    async fn loads_of_another_replica_are_passed_on_and_withdrawn_when_it_leaves() {
        let (demand, served) = (SharedLoadBoard::default(), CancellationToken::new());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router: Router = stream::router(demand.clone(), served.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        demand.board().open_stream(1, "node3", std::time::Instant::now()).unwrap();
        demand.board().apply_report(1, &report(&[("ns/a/80", "node2", 2, 2, 0)]), |_| true, std::time::Instant::now());

        let (changes, mut received) = mpsc::channel(16);
        let (replicas, stop) = (watch::Sender::new(ReplicaAddresses::new()), CancellationToken::new());
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let settings = PeerSettings { port, changes, metrics: metrics.clone() };
        let task = tokio::spawn(follow_all(settings, replicas.subscribe(), stop.clone()));
        replicas.send_replace(ReplicaAddresses::from([("ingress-b".to_owned(), Ipv4Addr::LOCALHOST.into())]));
        let load = |count| ("a".to_owned(), Some("ingress-b".to_owned()), "node3".to_owned(), count);
        assert_eq!(next_load(&mut received).await, load(2), "from the snapshot");
        assert_eq!(metrics.peers_connected.get(), 1);
        demand.board().apply_report(1, &report(&[("ns/a/80", "node2", 5, 5, 0)]), |_| true, std::time::Instant::now());
        demand.announce_change();
        assert_eq!(next_load(&mut received).await, load(5), "from an update");
        replicas.send_replace(ReplicaAddresses::new());
        assert_eq!(next_load(&mut received).await, load(0), "the replica left");
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn loads_of_a_replica_that_does_not_come_back_are_withdrawn() {
        let (demand, served) = (SharedLoadBoard::default(), CancellationToken::new());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router: Router = stream::router(demand.clone(), served.clone());
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        demand.board().open_stream(1, "node3", std::time::Instant::now()).unwrap();
        demand.board().apply_report(1, &report(&[("ns/a/80", "node2", 2, 2, 0)]), |_| true, std::time::Instant::now());
        let (changes, mut received) = mpsc::channel(16);
        let replicas = watch::Sender::new(ReplicaAddresses::from([("ingress-b".to_owned(), Ipv4Addr::LOCALHOST.into())]));
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let settings = PeerSettings { port, changes, metrics: metrics.clone() };
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow_all(settings, replicas.subscribe(), stop.clone()));
        assert_eq!(next_load(&mut received).await.3, 2);
        server.abort();
        served.cancel();
        assert_eq!(next_load(&mut received).await.3, 0);
        assert_eq!(metrics.peers_connected.get(), 0);
        stop.cancel();
        task.await.unwrap();
    }
}
