//! Whom to ask for latency: Prometheus where there is one, and the probers of the nodes that it has
//! said nothing new about for too long.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use latency_matrix::LatencyBook;

use crate::{LatencyError, RowSource, SeriesSource};

/// What changed with a reading, for logs and events.
#[derive(Debug)]
pub enum FeedChange {
    /// A store stopped answering; the known latencies hold for now.
    Lost {
        /// Its name.
        source: String,
        /// What it said.
        error: LatencyError,
    },
    /// It answers again.
    Recovered {
        /// Its name.
        source: String,
    },
    /// The stores have said nothing about some nodes for too long: their probers are asked from now
    /// on.
    FellBack {
        /// How many nodes.
        nodes: usize,
    },
    /// Nobody answers; what is known ages.
    NobodyAnswers {
        /// What the last one said.
        error: LatencyError,
    },
}

impl FeedChange {
    /// Whether it is good news.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Recovered { .. })
    }

    /// In a word, as the reason of an event.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "LatencySourceLost",
            Self::Recovered { .. } => "LatencySourceRecovered",
            Self::FellBack { .. } => "LatencyFallback",
            Self::NobodyAnswers { .. } => "LatencyUnknown",
        }
    }
}

/// In a sentence, as the note of an event.
impl fmt::Display for FeedChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { source, error } => {
                write!(formatter, "{source} does not answer, the known latencies hold for now: {error}")
            }
            Self::Recovered { source } => write!(formatter, "{source} answers again"),
            Self::FellBack { nodes } => write!(formatter, "the probers of {nodes} nodes are read directly from now on"),
            Self::NobodyAnswers { error } => {
                write!(formatter, "no source of latency answers, the known latencies age: {error}")
            }
        }
    }
}

/// Reads from the stores, where there are any, and from probers in their stead.
pub struct Feed<Series, Rows> {
    stores: Vec<Series>,
    probers: Rows,
    /// How long what the stores last said about a node holds before its prober is asked.
    patience: Duration,
    /// Stores that do not answer, by position.
    lost: BTreeSet<usize>,
    fell_back: bool,
    nobody: bool,
    /// When any source last answered; `None` before the first answer.
    answered_at: Option<Duration>,
}

impl<Series: SeriesSource, Rows: RowSource> Feed<Series, Rows> {
    /// Reads from all `stores`, and from the probers of nodes that these have said nothing about
    /// for `patience`.
    pub fn new(stores: Vec<Series>, probers: Rows, patience: Duration) -> Self {
        Self { stores, probers, patience, lost: BTreeSet::new(), fell_back: false, nobody: false, answered_at: None }
    }

    /// For how long no source has answered; since the start if none ever did.
    pub fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered_at.unwrap_or_default())
    }

    /// Reads once into `book`, which follows the nodes that there are. `now` is the time since any
    /// fixed instant. Says what changed since the last reading.
    pub async fn read(&mut self, book: &mut LatencyBook, now: Duration) -> Vec<FeedChange> {
        let mut changes = Vec::new();
        if book.nodes().len() < 2 {
            // There is nothing to know.
            return changes;
        }
        let now_seconds = now.as_secs_f64();
        let mut has_answer = false;
        for (position, answer) in join_all(self.stores.iter().map(SeriesSource::read)).await.into_iter().enumerate() {
            let source = self.stores[position].name().to_owned();
            match answer {
                Ok(measurements) => {
                    has_answer = true;
                    book.absorb(measurements, now_seconds);
                    if self.lost.remove(&position) {
                        changes.push(FeedChange::Recovered { source });
                    }
                }
                Err(error) => {
                    if self.lost.insert(position) {
                        changes.push(FeedChange::Lost { source, error });
                    }
                }
            }
        }
        // Without a store every prober is asked every time.
        let patience_seconds = if self.stores.is_empty() { 0.0 } else { self.patience.as_secs_f64() };
        let silent = book.silent(now_seconds, patience_seconds);
        let falls_back = !silent.is_empty() && !self.stores.is_empty();
        if falls_back && !self.fell_back {
            changes.push(FeedChange::FellBack { nodes: silent.len() });
        }
        self.fell_back = falls_back;
        if !silent.is_empty() {
            match self.probers.read(&silent, &mut |row| book.absorb(row, now_seconds)).await {
                Ok(()) => has_answer = true,
                Err(error) if !has_answer && !self.nobody => changes.push(FeedChange::NobodyAnswers { error }),
                Err(_) => {}
            }
            self.nobody = !has_answer;
        }
        if has_answer {
            self.answered_at = Some(now);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use latency_matrix::{Measurement, NodeName, PairState, PairStats};

    use super::*;

    fn measured(from: &str, rtt_seconds: f64) -> Measurement {
        let state = PairState::Known(PairStats::constant(rtt_seconds));
        let to = if from == "node0" { "node1" } else { "node0" };
        Measurement { from: from.into(), to: to.into(), state, reported_seconds_ago: 0.0 }
    }

    /// What the store says at each reading; `None` where it does not answer.
    struct Store(Mutex<Vec<Option<Vec<Measurement>>>>);

    impl SeriesSource for Store {
        fn name(&self) -> &str {
            "store"
        }

        async fn read(&self) -> Result<Vec<Measurement>, LatencyError> {
            self.0.lock().unwrap().remove(0).ok_or_else(|| LatencyError::NoSeries { url: "store".to_owned() })
        }
    }

    /// Every prober measures 2 ms, unless they are dead.
    #[derive(Default)]
    struct Rows {
        asked: Mutex<Vec<String>>,
        are_dead: bool,
    }

    impl RowSource for &Rows {
        async fn read(&self, nodes: &[NodeName], take: &mut (dyn FnMut(Vec<Measurement>) + Send)) -> Result<(), LatencyError> {
            self.asked.lock().unwrap().push(nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" "));
            if self.are_dead {
                return Err(LatencyError::NoProber { probers: nodes.len(), source: None });
            }
            for node in nodes {
                take(vec![measured(node.as_str(), 0.002)]);
            }
            Ok(())
        }
    }

    fn names(changes: &[FeedChange]) -> String {
        let name = |change: &FeedChange| match change {
            FeedChange::Lost { .. } => "lost".to_owned(),
            FeedChange::FellBack { nodes } => format!("fell back for {nodes}"),
            FeedChange::Recovered { .. } => "recovered".to_owned(),
            FeedChange::NobodyAnswers { .. } => "nobody".to_owned(),
        };
        changes.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn book() -> LatencyBook {
        let mut book = LatencyBook::default();
        book.follow(["node0", "node1", "node2"].map(NodeName::from));
        book
    }

    fn rtts(book: &mut LatencyBook, now: u64) -> BTreeMap<String, f64> {
        let matrix = book.matrix(now as f64);
        let rtt = |from: &str| Some((from.to_owned(), matrix.state(&from.into(), &"node0".into()).stats()?.p50));
        ["node1", "node2"].into_iter().filter_map(rtt).collect()
    }

    #[tokio::test]
    async fn holds_on_then_falls_back_then_recovers() {
        let all = |rtt| Some(["node0", "node1", "node2"].map(|node| measured(node, rtt)).to_vec());
        let store = Store(Mutex::new(vec![all(0.001), None, None, None, all(0.003)]));
        let rows = Rows::default();
        let mut feed = Feed::new(vec![store], &rows, Duration::from_secs(20));
        let mut book = book();
        let mut seen = Vec::new();
        for at in [0, 10, 21, 30, 41] {
            let changes = feed.read(&mut book, Duration::from_secs(at)).await;
            seen.push((at, names(&changes), rtts(&mut book, at)["node1"]));
        }
        let expected =
            [(0, "", 0.001), (10, "lost", 0.001), (21, "fell back for 3", 0.002), (30, "", 0.002), (41, "recovered", 0.003)];
        assert_eq!(seen, expected.map(|(at, change, rtt)| (at, change.to_owned(), rtt)));
    }

    #[tokio::test]
    async fn a_node_that_the_store_does_not_scrape_is_asked_itself() {
        let some = || Some(vec![measured("node0", 0.001), measured("node1", 0.001)]);
        let rows = Rows::default();
        let mut feed = Feed::new(vec![Store(Mutex::new(vec![some(), some()]))], &rows, Duration::from_secs(20));
        let mut book = book();
        assert_eq!(names(&feed.read(&mut book, Duration::from_secs(0)).await), "fell back for 1");
        assert_eq!(rtts(&mut book, 0), [("node1".to_owned(), 0.001), ("node2".to_owned(), 0.002)].into());
        assert_eq!(*rows.asked.lock().unwrap(), ["node2"]);
    }

    #[tokio::test]
    async fn without_a_store_every_prober_is_asked_every_time() {
        let rows = Rows::default();
        let mut feed = Feed::new(Vec::<Store>::new(), &rows, Duration::from_secs(20));
        let mut book = book();
        for at in [1, 2] {
            assert_eq!(names(&feed.read(&mut book, Duration::from_secs(at)).await), "");
        }
        assert_eq!(*rows.asked.lock().unwrap(), ["node0 node1 node2", "node0 node1 node2"]);
    }

    #[tokio::test]
    async fn of_a_single_node_there_is_nothing_to_read() {
        let rows = Rows::default();
        let mut feed = Feed::new(vec![Store(Mutex::default())], &rows, Duration::from_secs(20));
        let mut book = LatencyBook::default();
        book.follow(["node0".into()]);
        assert_eq!(names(&feed.read(&mut book, Duration::from_secs(1)).await), "");
        assert!(rows.asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn that_nobody_answers_is_said_once() {
        let rows = Rows { are_dead: true, ..Rows::default() };
        let mut feed = Feed::new(vec![Store(Mutex::new(vec![None, None]))], &rows, Duration::from_secs(20));
        let mut book = book();
        assert_eq!(names(&feed.read(&mut book, Duration::from_secs(0)).await), "lost, fell back for 3, nobody");
        assert_eq!(names(&feed.read(&mut book, Duration::from_secs(5)).await), "");
    }
}
