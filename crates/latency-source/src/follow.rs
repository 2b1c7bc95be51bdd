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
    feed: Feed<Series, Rows>,
    report: impl FnMut(Reading),
) {
    follow_while(|| true, latency, feed, report).await;
}

/// While nothing depends on latency, so many readings are left out before the next one.
const LEFT_OUT: u32 = 2;

/// As [`follow`], but two of three readings are left out while `is_needed` says that nothing
/// depends on them and they come to the same.
pub async fn follow_while<Series: SeriesSource, Rows: RowSource>(
    is_needed: impl Fn() -> bool,
    latency: Latency,
    mut feed: Feed<Series, Rows>,
    mut report: impl FnMut(Reading),
) {
    let mut ticks = tokio::time::interval(latency.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = LatencyBook::new(Freshness::default());
    let mut resting = Resting::default();
    loop {
        ticks.tick().await;
        let has_new_nodes = *latency.nodes.borrow() != book.nodes();
        if !has_new_nodes && !is_needed() && resting.leaves_out() {
            continue;
        }
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
        let counts = book.counts(now_seconds);
        resting.read(counts, changes.is_empty());
        report(Reading { silent_for, counts, changes });
    }
}

/// Which readings are left out where nothing depends on them.
#[derive(Debug, Default)]
struct Resting {
    /// What the last reading came to, where all sources were as before.
    last: Option<PairCounts>,
    /// Whether it came to the same as the one before.
    is_settled: bool,
    left_out: u32,
}

impl Resting {
    /// Whether the next reading is left out; it then has been. A start, and whatever has changed,
    /// is followed until it has come to an end.
    fn leaves_out(&mut self) -> bool {
        let leaves_out = self.is_settled && self.left_out < LEFT_OUT;
        self.left_out = if leaves_out { self.left_out + 1 } else { 0 };
        leaves_out
    }

    fn read(&mut self, counts: PairCounts, are_sources_as_before: bool) {
        let counts = Some(counts).filter(|counts| are_sources_as_before && counts.known > 0);
        self.is_settled = counts.is_some() && counts == self.last;
        self.last = counts;
        self.left_out = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_left_out_once_they_come_to_the_same() {
        let counts = |known| PairCounts { known, ..PairCounts::default() };
        let next = |resting: &mut Resting| (0..4).map(|_| resting.leaves_out()).collect::<Vec<_>>();
        let mut resting = Resting::default();
        assert_eq!(next(&mut resting), [false; 4], "nothing was read yet");
        resting.read(counts(2), true);
        assert!(!resting.leaves_out(), "one reading may be the first of several nodes");
        resting.read(counts(2), true);
        assert_eq!(next(&mut resting), [true, true, false, true]);
        resting.read(counts(2), false);
        assert!(!resting.leaves_out(), "a source was lost or found");
        for unknown in [counts(0), counts(0)] {
            resting.read(unknown, true);
        }
        assert!(!resting.leaves_out(), "nothing is known");
    }
}
