//! The [`Board`] as everybody shares it, and the way from one gateway's word to another's stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::board::{Board, StreamId};

/// The board, for everybody who writes and reads it.
#[derive(Clone, Debug)]
pub struct Demand {
    board: Arc<Mutex<Board>>,
    version: Arc<watch::Sender<u64>>,
    followers: Arc<Mutex<BTreeMap<StreamId, Follower>>>,
}

/// Who follows a gateway's stream of reports, to be told which clusters to ask for at once.
#[derive(Debug)]
struct Follower {
    source: String,
    watch: mpsc::Sender<Vec<String>>,
}

impl Default for Demand {
    fn default() -> Self {
        Self::new("unnamed".to_owned())
    }
}

impl Demand {
    /// Of the run of the program that is called `instance`; no other run may have the same name.
    #[must_use]
    pub fn new(instance: String) -> Self {
        let board = Board::new(instance, Instant::now());
        Self { board: Arc::new(Mutex::new(board)), version: Arc::new(watch::Sender::new(0)), followers: Arc::default() }
    }

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

    /// The gateways on `source` are to report `clusters` from now on.
    pub(super) fn request_reports_of(&self, source: &str, clusters: &[String]) {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for follower in followers.values().filter(|follower| follower.source == source) {
            // Full means that it is about to ask anew; the report of all clusters tells the rest.
            let _ = follower.watch.try_send(clusters.to_vec());
        }
    }

    pub(super) fn add_follower(&self, stream: StreamId, source: &str) -> mpsc::Receiver<Vec<String>> {
        let (watch, clusters) = mpsc::channel(64);
        let follower = Follower { source: source.to_owned(), watch };
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, follower);
        clusters
    }

    pub(super) fn remove_follower(&self, stream: StreamId) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    }

    /// Tells who watches that the board changed.
    pub fn announce_change(&self) {
        let version = self.board().version();
        self.version.send_replace(version);
    }
}
