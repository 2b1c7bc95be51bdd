//! The shared handle of the [`LoadBoard`], and the channels by which a held request changes what
//! gateways report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::board::{LoadBoard, StreamId};

/// A shared handle of the board.
#[derive(Clone, Debug)]
pub struct SharedLoadBoard {
    board: Arc<Mutex<LoadBoard>>,
    version: Arc<watch::Sender<u64>>,
    followers: Arc<Mutex<BTreeMap<StreamId, ReportStreamTask>>>,
}

/// The task of one gateway's stream of reports.
#[derive(Debug)]
struct ReportStreamTask {
    source: String,
    watch: mpsc::Sender<Vec<String>>,
}

impl Default for SharedLoadBoard {
    fn default() -> Self {
        Self::new("unnamed".to_owned())
    }
}

impl SharedLoadBoard {
    /// A new board. `instance` names this run of the program and must be unique.
    #[must_use]
    pub fn new(instance: String) -> Self {
        let board = LoadBoard::new(instance, Instant::now());
        Self { board: Arc::new(Mutex::new(board)), version: Arc::new(watch::Sender::new(0)), followers: Arc::default() }
    }

    /// The board.
    pub fn board(&self) -> MutexGuard<'_, LoadBoard> {
        // The board holds counters: a panic during an update loses at most one report.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver of the board's version.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Makes the gateways on `source` report `clusters` from now on.
    pub(super) fn request_reports_of(&self, source: &str, clusters: &[String]) {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for follower in followers.values().filter(|follower| follower.source == source) {
            // A full channel means that a request is about to be sent; the report of all clusters
            // covers the rest.
            let _ = follower.watch.try_send(clusters.to_vec());
        }
    }

    pub(super) fn add_follower(&self, stream: StreamId, source: &str) -> mpsc::Receiver<Vec<String>> {
        let (watch, clusters) = mpsc::channel(64);
        let follower = ReportStreamTask { source: source.to_owned(), watch };
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, follower);
        clusters
    }

    pub(super) fn remove_follower(&self, stream: StreamId) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    }

    /// Wakes everyone who watches the version of the board.
    pub fn announce_change(&self) {
        let version = self.board().version();
        self.version.send_replace(version);
    }
}
