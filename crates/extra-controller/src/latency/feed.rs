//! Whom to ask for latency: Prometheus where there is one, the probers where there is none or it has been silent for too long.

use std::time::Duration;

use super::{LatencyBook, LatencyError, LatencySource};

/// What changed with a reading, for logs and events.
#[derive(Debug)]
pub enum FeedChange {
    /// The first source stopped answering; what is known holds for now.
    Lost {
        /// Its name.
        source: &'static str,
        /// What it said.
        error: LatencyError,
    },
    /// It has been silent for too long: another is asked from now on.
    FellBack {
        /// Who is asked.
        to: &'static str,
    },
    /// It answers again.
    Recovered {
        /// Its name.
        source: &'static str,
    },
    /// Nobody answers; what is known ages.
    NobodyAnswers {
        /// What the last one said.
        error: LatencyError,
    },
}

/// Reads from a first source (where there is one) and from a second in its stead.
pub struct Feed<First, Second> {
    first: Option<First>,
    second: Second,
    /// How long what the first last said holds before the second is asked.
    patience: Duration,
    first_answered: Option<Duration>,
    first_lost: bool,
    fell_back: bool,
    nobody: bool,
}

impl<First: LatencySource, Second: LatencySource> Feed<First, Second> {
    /// Reads from `first`, and from `second` where there is no first or it has not answered for `patience`.
    pub fn new(first: Option<First>, second: Second, patience: Duration) -> Self {
        Self { first, second, patience, first_answered: None, first_lost: false, fell_back: false, nobody: false }
    }

    /// Reads once into `book`. `now` is the time since any fixed instant. Says what changed since the last reading.
    pub async fn read(&mut self, book: &mut LatencyBook, now: Duration) -> Vec<FeedChange> {
        let mut changes = Vec::new();
        if let Some(first) = &self.first {
            match first.read().await {
                Ok(measurements) => {
                    book.absorb(measurements, now.as_secs_f64());
                    self.first_answered = Some(now);
                    if std::mem::take(&mut self.first_lost) {
                        changes.push(FeedChange::Recovered { source: first.name() });
                    }
                    (self.fell_back, self.nobody) = (false, false);
                    return changes;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.first_lost, true) {
                        changes.push(FeedChange::Lost { source: first.name(), error });
                    }
                    // One that never answered has left nothing to hold on to.
                    if self.first_answered.is_some_and(|at| now.saturating_sub(at) < self.patience) {
                        return changes;
                    }
                    if !std::mem::replace(&mut self.fell_back, true) {
                        changes.push(FeedChange::FellBack { to: self.second.name() });
                    }
                }
            }
        }
        match self.second.read().await {
            Ok(measurements) => {
                book.absorb(measurements, now.as_secs_f64());
                self.nobody = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.nobody, true) {
                    changes.push(FeedChange::NobodyAnswers { error });
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use placement::{Freshness, PairState, PairStats};

    use super::*;
    use crate::latency::Measurement;

    struct Scripted(&'static str, Mutex<Vec<Option<f64>>>);

    impl LatencySource for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }

        async fn read(&self) -> Result<Vec<Measurement>, LatencyError> {
            let rtt_seconds = self.1.lock().unwrap().remove(0).ok_or(LatencyError::NoSeries)?;
            let state = PairState::Known(PairStats::constant(rtt_seconds));
            Ok(vec![Measurement { from: "node1".into(), to: "node2".into(), state }])
        }
    }

    fn rtt(book: &LatencyBook, now: u64) -> f64 {
        let matrix = book.matrix(vec!["node1".into(), "node2".into()], now as f64, Freshness::default()).unwrap();
        matrix.state(&"node1".into(), &"node2".into()).stats().map_or(f64::NAN, |stats| stats.p50)
    }

    #[tokio::test]
    async fn holds_on_then_falls_back_then_recovers() {
        let first = Scripted("first", Mutex::new(vec![Some(0.001), None, None, None, Some(0.003)]));
        let second = Scripted("second", Mutex::new(vec![Some(0.002), None]));
        let mut feed = Feed::new(Some(first), second, Duration::from_secs(20));
        let mut book = LatencyBook::default();
        let mut seen = Vec::new();
        for at in [0, 10, 20, 30, 40] {
            let changes = feed.read(&mut book, Duration::from_secs(at)).await;
            let names: Vec<&str> = changes
                .iter()
                .map(|change| match change {
                    FeedChange::Lost { .. } => "lost",
                    FeedChange::FellBack { .. } => "fell back",
                    FeedChange::Recovered { .. } => "recovered",
                    FeedChange::NobodyAnswers { .. } => "nobody",
                })
                .collect();
            seen.push((at, names.join(","), rtt(&book, at)));
        }
        let expected =
            [(0, "", 0.001), (10, "lost", 0.001), (20, "fell back", 0.002), (30, "nobody", 0.002), (40, "recovered", 0.003)];
        assert_eq!(seen, expected.map(|(at, change, rtt)| (at, change.to_owned(), rtt)));
    }
}
