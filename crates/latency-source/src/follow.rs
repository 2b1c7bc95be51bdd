//! Reading again and again.

use std::sync::Arc;
use std::time::Duration;

use latency_matrix::{Freshness, LatencyBook, LatencyMatrix, NodeName, PairCounts};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{Feed, FeedChange, RowSource, SeriesSource};

/// Between whom latency is followed, how often, and who gets to know it.
#[derive(Debug)]
pub struct Latency {
    /// Time between two readings.
    pub interval: Duration,
    /// The instant that times are counted from.
    pub start: Instant,
    /// The nodes that there are.
    pub nodes: watch::Receiver<Vec<NodeName>>,
    /// What is known of their pairs; marked as changed only where it is another matrix.
    pub matrix: watch::Sender<Arc<LatencyMatrix>>,
}

/// What a reading leaves to be reported.
#[derive(Debug)]
pub struct Reading {
    /// For how long no source has answered; since the start if none ever did.
    pub silent_for: Duration,
    /// How many pairs are in which state.
    pub counts: PairCounts,
    /// What changed with it.
    pub changes: Vec<FeedChange>,
}

/// Reads `feed` at the interval of `latency` and hands each reading to `report`. Runs until it is
/// dropped.
pub async fn follow<Series: SeriesSource, Rows: RowSource>(
    latency: Latency,
    mut feed: Feed<Series, Rows>,
    mut report: impl FnMut(Reading),
) {
    let mut ticks = tokio::time::interval(latency.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = LatencyBook::new(Freshness::default());
    loop {
        ticks.tick().await;
        book.follow(latency.nodes.borrow().clone());
        let changes = feed.read(&mut book, latency.start.elapsed()).await;
        let now_seconds = latency.start.elapsed().as_secs_f64();
        let matrix = book.matrix(now_seconds);
        latency.matrix.send_if_modified(|held| {
            let is_changed = !Arc::ptr_eq(held, &matrix);
            *held = matrix;
            is_changed
        });
        for change in &changes {
            tracing::warn!(reason = change.reason(), note = %change, "latency");
        }
        let silent_for = feed.silent_for(latency.start.elapsed());
        report(Reading { silent_for, counts: book.counts(now_seconds), changes });
    }
}
