//! Demand: what the gateways report, put together on one board.

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use autoscaler::demand::{Board, Tick};
use gateway_link::RevisionKey;
use latency_matrix::NodeName;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::follow::follow;

/// The board of demand, and the clock that it is kept by. Shared by those who follow the gateways
/// and by whoever decides.
#[derive(Debug)]
pub(crate) struct Demands {
    board: Mutex<Board>,
    woken: Notify,
    start: Instant,
}

impl Demands {
    /// An empty board. Its time starts now.
    #[must_use]
    pub(crate) fn new(start: Instant) -> Self {
        Self { board: Mutex::new(Board::new(Duration::ZERO)), woken: Notify::new(), start }
    }

    /// Time since the board was made.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Changes the board. Whoever waits for a revision that has a request in flight is woken.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Board, Duration) -> T) -> T {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut board, self.now())
    }

    /// Tells that a revision may have been woken.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Returns once a revision may have been woken.
    pub(crate) async fn woken(&self) -> BTreeSet<RevisionKey> {
        loop {
            let keys = self.with(|board, _| board.take_woken());
            if !keys.is_empty() {
                return keys;
            }
            self.woken.notified().await;
        }
    }

    pub(crate) fn tick(&self, is_ours: impl Fn(&RevisionKey) -> bool) -> Tick {
        self.with(|board, now| board.tick(now, is_ours))
    }

    /// Requests in flight of one revision at this instant, by source node.
    pub(crate) fn in_flight(&self, key: &RevisionKey) -> BTreeMap<NodeName, f64> {
        self.with(|board, _| board.in_flight(key))
    }
}
