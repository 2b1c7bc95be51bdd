//! Demand: requests per revision and source node, from one of two sources.
//!
//! - [`load_reports`]: load reports of our gateways, which locality-ingress streams as they change:
//!   a held request wakes its revision within milliseconds, and nothing is polled;
//! - [`statistics_page`]: the statistics page of any Envoy whose clusters are named as Kourier
//!   names them.
//!
//! Both feed one [`Board`], which is pure and lives in `autoscaler`.

pub(crate) mod load_reports;
pub(crate) mod statistics_page;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use autoscaler::demand::Board;
use gateway_link::RevisionKey;
use gateway_link::demand::DemandEvent;
use latency_matrix::NodeName;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::objects::PodChanges;

/// Round trips in seconds between a source and a serving node; 0 where one is not known.
pub(crate) type RoundTrips = Arc<dyn Fn(&NodeName, &NodeName) -> f64 + Send + Sync>;

/// A pod that demand is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DemandPeer {
    /// The node it is on.
    pub(crate) node: NodeName,
    /// Where it is asked.
    pub(crate) address: SocketAddr,
}

/// By pod name.
pub(crate) type Peers = BTreeMap<String, DemandPeer>;

/// Where demand comes from.
pub(crate) trait DemandSource: Send + 'static {
    /// Feeds `demands` until it is dropped. It never ends by itself: what does not answer is asked
    /// again.
    fn run(self, demands: Arc<Demands>) -> impl Future<Output = ()> + Send;
}

/// Which source, as the option has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceKind {
    /// What the gateways report to locality-ingress
    #[default]
    LoadReports,
    /// The gateways' statistics pages, for gateways that are not ours
    StatisticsPage,
}

/// The board, for those who feed it and those who ask.
pub(crate) struct Demands {
    board: Mutex<Board>,
    round_trips: Mutex<RoundTrips>,
    woken: Notify,
    /// Since when a waiting request is known that no tick has handled yet.
    waited_since: Mutex<Option<Duration>>,
    anyone_asleep: AtomicBool,
    start: Instant,
}

impl Demands {
    /// An empty board, whose time starts at `start`.
    #[must_use]
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            board: Mutex::new(Board::new(start.elapsed())),
            round_trips: Mutex::new(Arc::new(|_, _| 0.0)),
            woken: Notify::new(),
            waited_since: Mutex::default(),
            anyone_asleep: AtomicBool::new(true),
            start,
        }
    }

    /// The board.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        // The board holds counters; a panic while one was set leaves it no worse than a lost
        // report.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the board's start.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// From now on these are the round trips.
    pub(crate) fn set_round_trips(&self, round_trips: RoundTrips) {
        *self.round_trips.lock().unwrap_or_else(PoisonError::into_inner) = round_trips;
    }

    /// Whether any revision is at zero: a source that has to ask does so more often then.
    pub(crate) fn set_anyone_asleep(&self, is: bool) {
        self.anyone_asleep.store(is, Ordering::Relaxed);
    }

    fn is_anyone_asleep(&self) -> bool {
        self.anyone_asleep.load(Ordering::Relaxed)
    }

    /// Applies an event that `peer` sent at `now`.
    fn apply_event(&self, peer: &str, event: DemandEvent, now: Duration) {
        let round_trips = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut board = self.board();
        board.apply_event(peer, event, now, &*round_trips);
        let anyone_waits = board.is_anyone_woken();
        drop(board);
        if anyone_waits {
            self.waited_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
            self.woken.notify_one();
        }
    }

    fn lose(&self, peer: &str) {
        let now = self.now();
        self.board().lose(peer, now);
    }

    /// Waits for revisions whose requests begin to wait. Returns them and for how long the first
    /// has been known. For one caller.
    pub(crate) async fn woken(&self) -> (BTreeSet<RevisionKey>, Duration) {
        loop {
            let woken = self.board().take_woken();
            let since = self.waited_since.lock().unwrap_or_else(PoisonError::into_inner).take();
            if !woken.is_empty() {
                return (woken, since.map_or(Duration::ZERO, |since| self.now().saturating_sub(since)));
            }
            self.woken.notified().await;
        }
    }
}

impl std::fmt::Debug for Demands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demands").field("board", &self.board).finish_non_exhaustive()
    }
}

/// Keeps one task for each of the `peers`, which are among the pods, until dropped. A peer that
/// goes is lost to the board.
async fn follow_peers(
    demands: Arc<Demands>,
    mut pods: PodChanges,
    peers: impl Fn() -> Peers,
    follow: impl Fn(String, DemandPeer) -> JoinHandle<()>,
) {
    struct Follower(JoinHandle<()>);
    impl Drop for Follower {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let mut followers: BTreeMap<String, (DemandPeer, Follower)> = BTreeMap::new();
    loop {
        let present = peers();
        followers.retain(|name, (peer, _)| {
            let stays = present.get(name) == Some(peer);
            if !stays {
                demands.lose(name);
            }
            stays
        });
        for (name, peer) in present {
            followers.entry(name.clone()).or_insert_with(|| (peer.clone(), Follower(follow(name, peer))));
        }
        pods.next().await;
    }
}
