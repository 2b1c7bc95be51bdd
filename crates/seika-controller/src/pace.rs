//! How many writes there may be at once, and how fast they may follow each other. The Kubernetes
//! client has no limit of its own: each request that finds no connection free opens one more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many writes may follow each other at once after a pause, as a multiple of a second's worth.
const BURST_SECONDS: f64 = 1.5;

/// A limit on writes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct WritePace {
    places: Arc<Semaphore>,
    bucket: Option<Arc<Mutex<TurnBucket>>>,
}

/// A write's turn, which is over when this is dropped.
#[derive(Debug)]
pub(crate) struct WriteTurn {
    _place: Option<OwnedSemaphorePermit>,
}

impl WritePace {
    /// At most `at_once` writes at once, and `per_second` each second on average, one and a half
    /// times as many at once after a pause; any number each second without it.
    pub(crate) fn new(at_once: usize, per_second: Option<f64>) -> Self {
        let usable = per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
        Self {
            places: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
            bucket: usable.map(|rate| Arc::new(Mutex::new(TurnBucket::new(rate, Instant::now())))),
        }
    }

    /// Waits for a turn. Whoever stops waiting has taken none.
    pub(crate) async fn turn(&self) -> WriteTurn {
        // Never closed, so that there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        if let Some(bucket) = &self.bucket {
            loop {
                let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
                match taken {
                    Ok(()) => break,
                    Err(wait) => tokio::time::sleep(wait).await,
                }
            }
        }
        WriteTurn { _place: place }
    }
}

/// The generic cell rate algorithm: a bucket of turns, kept as the time at which it will be full.
#[derive(Debug)]
struct TurnBucket {
    interval: Duration,
    burst: Duration,
    full_at: Instant,
}

impl TurnBucket {
    fn new(per_second: f64, now: Instant) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX / 4);
        // Less than one turn would be none, ever.
        let burst = Duration::from_secs_f64(BURST_SECONDS).max(interval);
        Self { interval, burst, full_at: now }
    }

    /// Takes a turn, or says how long to wait for the next.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        let beyond = full_at.duration_since(now).saturating_sub(self.burst);
        if beyond > Duration::ZERO {
            return Err(beyond);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_turns_come_at_the_rate() {
        let begun = Instant::now();
        let mut bucket = TurnBucket::new(10.0, begun);
        let taken = (0..100).take_while(|_| bucket.take(begun).is_ok()).count();
        assert_eq!(taken, 15);
        assert_eq!(bucket.take(begun), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(begun + Duration::from_millis(100)), Ok(()));
        let later = begun + Duration::from_secs(60);
        assert_eq!((0..100).take_while(|_| bucket.take(later).is_ok()).count(), 15, "turns are not saved up for ever");
    }

    #[test]
    fn a_rate_below_one_still_gives_turns() {
        let begun = Instant::now();
        let mut bucket = TurnBucket::new(0.1, begun);
        assert_eq!(bucket.take(begun), Ok(()));
        assert_eq!(bucket.take(begun), Err(Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn without_a_rate_nobody_waits_but_for_a_place() {
        for rate in [None, Some(0.0), Some(-1.0), Some(f64::NAN)] {
            assert!(WritePace::new(1, rate).bucket.is_none());
        }
        let pace = WritePace::new(2, None);
        let (first, _second) = (pace.turn().await, pace.turn().await);
        assert!(futures::poll!(std::pin::pin!(pace.turn())).is_pending());
        drop(first);
        assert!(futures::poll!(std::pin::pin!(pace.turn())).is_ready());
    }
}
