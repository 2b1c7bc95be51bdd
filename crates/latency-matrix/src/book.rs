//! The last report about every pair, from whichever source it came.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::matrix::LatencyMatrix;
use crate::node::NodeName;
use crate::pair::{Freshness, PairState, PairStats};

/// One report about one ordered pair of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The probing node.
    pub from: NodeName,
    /// The probed node.
    pub to: NodeName,
    /// Its state. The age in its statistics is that at the time of the report.
    pub state: PairState,
    /// How many seconds ago the probing node reported it: 0 for a row that was just read, the time
    /// since the scrape for a time series.
    pub reported_seconds_ago: f64,
}

/// What was last reported of every pair of nodes, and when.
///
/// Reports may come from several sources in any order: of each pair the latest one holds. It ages
/// by itself from known to stale and is forgotten at last. Readers pay only for what changed:
/// [`LatencyBook::matrix`] hands out the same matrix until a pair's state changes.
///
/// ```
/// use latency_matrix::{LatencyBook, Measurement, PairState, PairStats};
///
/// let mut book = LatencyBook::default();
/// book.follow(["node1".into(), "node2".into()]);
/// let state = PairState::Known(PairStats::constant(0.005));
/// book.absorb(
///     [Measurement {
///         from: "node1".into(),
///         to: "node2".into(),
///         state,
///         reported_seconds_ago: 2.0,
///     }],
///     100.0,
/// );
/// assert!(matches!(
///     book.matrix(110.0).state(&"node1".into(), &"node2".into()),
///     PairState::Known(_)
/// ));
/// assert!(matches!(
///     book.matrix(140.0).state(&"node1".into(), &"node2".into()),
///     PairState::Stale(_)
/// ));
/// ```
#[derive(Clone, Debug, Default)]
pub struct LatencyBook {
    freshness: Freshness,
    /// In name order. Pairs name their nodes by position.
    nodes: Vec<NodeName>,
    pairs: BTreeMap<(usize, usize), LastReport>,
    /// When each node last reported, and how often it does; by position.
    reporters: Vec<Reporter>,
    /// Whether something was taken in since the view was last looked at.
    is_dirty: bool,
    version: u64,
    view: Option<View>,
}

/// The last report about one pair.
#[derive(Clone, Copy, Debug)]
struct LastReport {
    state: PairState,
    reported_at: f64,
}

/// A matrix, and until when it is right if no report comes.
#[derive(Clone, Debug)]
struct View {
    until_seconds: f64,
    matrix: Arc<LatencyMatrix>,
}

/// How many pairs are in each state, without those of a node to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Measured lately.
    pub known: usize,
    /// Measured too long ago.
    pub stale: usize,
    /// Not known.
    pub unknown: usize,
    /// Not answering.
    pub unreachable: usize,
}

impl LatencyBook {
    /// A book whose reports hold for as long as `freshness`, or two and a half of the intervals at
    /// which its sources turn out to report, where that is longer.
    #[must_use]
    pub fn new(freshness: Freshness) -> Self {
        Self { freshness, ..Self::default() }
    }

    /// Sets the nodes that there are. Reports about other nodes are dropped, and ignored until
    /// these nodes are named here.
    pub fn follow(&mut self, nodes: impl IntoIterator<Item = NodeName>) {
        let mut nodes: Vec<NodeName> = nodes.into_iter().collect();
        nodes.sort();
        nodes.dedup();
        if nodes == self.nodes {
            return;
        }
        let moved: Vec<Option<usize>> = self.nodes.iter().map(|node| nodes.binary_search(node).ok()).collect();
        self.pairs = std::mem::take(&mut self.pairs)
            .into_iter()
            .filter_map(|((from, to), held)| Some(((moved[from]?, moved[to]?), held)))
            .collect();
        let mut reporters = vec![Reporter::default(); nodes.len()];
        for (reporter, to) in self.reporters.drain(..).zip(moved) {
            if let Some(to) = to {
                reporters[to] = reporter;
            }
        }
        (self.nodes, self.reporters) = (nodes, reporters);
        self.view = None;
    }

    /// The followed nodes in name order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// Takes in the measurements of a source at `now_seconds` (any clock, the same for all calls).
    ///
    /// Of each pair the latest report holds. A report of "unknown" keeps the statistics that are
    /// held: these age by themselves. A pair that a source does not mention stays as it is.
    pub fn absorb(&mut self, measurements: impl IntoIterator<Item = Measurement>, now_seconds: f64) {
        for Measurement { from, to, state, reported_seconds_ago } in measurements {
            let (Ok(from), Ok(to)) = (self.nodes.binary_search(&from), self.nodes.binary_search(&to)) else { continue };
            if from == to || !reported_seconds_ago.is_finite() {
                continue;
            }
            let new = LastReport { state: state.sanitised(), reported_at: now_seconds - reported_seconds_ago.max(0.0) };
            self.is_dirty = true;
            self.reporters[from].reported(new.reported_at);
            let held = self.pairs.get(&(from, to));
            if held.is_some_and(|held| held.reported_at > new.reported_at) {
                continue;
            }
            let has_stats = held.is_some_and(|held| held.state.stats().is_some());
            if new.state != PairState::Unknown || !has_stats {
                self.pairs.insert((from, to), new);
            }
        }
    }

    /// The matrix over the followed nodes in name order, as it stands at `now_seconds`. Pairs
    /// without a report are unknown. A new matrix is made only where a state differs from the last
    /// one, so that the ages in it are those at the time it was made.
    pub fn matrix(&mut self, now_seconds: f64) -> Arc<LatencyMatrix> {
        if let Some(view) = self.view.as_ref().filter(|view| !self.is_dirty && now_seconds < view.until_seconds) {
            return view.matrix.clone();
        }
        let freshness = self.freshness_by_node();
        let judged = || self.pairs.iter().map(|((from, to), held)| (*from, *to, held.judged(now_seconds, freshness[*from])));
        let until_seconds = judged().map(|(_, _, (_, until))| until).fold(f64::INFINITY, f64::min);
        let same = self.view.as_ref().map(|view| &view.matrix).filter(|matrix| {
            judged().all(|(from, to, (state, _))| matrix.pairs().get((from, to)).is_some_and(|before| is_same(before, &state)))
        });
        let matrix = match same {
            Some(matrix) => matrix.clone(),
            None => {
                // The nodes are sorted and differ: a matrix can always be made of them.
                let mut matrix = LatencyMatrix::new(self.nodes.clone()).unwrap_or_default();
                for (from, to, (state, _)) in judged() {
                    matrix.set_at(from, to, state);
                }
                self.version += 1;
                Arc::new(matrix)
            }
        };
        self.is_dirty = false;
        self.view = Some(View { until_seconds, matrix: matrix.clone() });
        matrix
    }

    /// Counts the matrices that [`LatencyBook::matrix`] has made.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many pairs are in each state at `now_seconds`.
    #[must_use]
    pub fn counts(&self, now_seconds: f64) -> PairCounts {
        let freshness = self.freshness_by_node();
        let mut counts = PairCounts::default();
        for ((from, _), held) in &self.pairs {
            match held.judged(now_seconds, freshness[*from]).0 {
                PairState::Known(_) => counts.known += 1,
                PairState::Stale(_) => counts.stale += 1,
                PairState::Unreachable => counts.unreachable += 1,
                PairState::Unknown => {}
            }
        }
        let pairs = self.nodes.len() * self.nodes.len().saturating_sub(1);
        counts.unknown = pairs.saturating_sub(counts.known + counts.stale + counts.unreachable);
        counts
    }

    /// The nodes that have reported nothing for longer than `patience_seconds`, or never. A caller
    /// that can reach them should read their rows directly.
    #[must_use]
    pub fn silent(&self, now_seconds: f64, patience_seconds: f64) -> Vec<NodeName> {
        let reporters = self.nodes.iter().zip(&self.reporters);
        let silent = reporters.filter(|(_, reporter)| reporter.at.is_none_or(|at| now_seconds - at > patience_seconds));
        silent.map(|(node, _)| node.clone()).collect()
    }

    /// For how long the reports of each node hold.
    fn freshness_by_node(&self) -> Vec<Freshness> {
        let intervals = self.reporters.iter().map(Reporter::interval_seconds);
        // A node that has only reported once is taken to be like the slowest of the others.
        let usual = intervals.clone().flatten().fold(0.0, f64::max);
        let freshness = |interval: Option<f64>| {
            let stale_after_seconds = self.freshness.stale_after_seconds.max(INTERVALS * interval.unwrap_or(usual));
            let forget_after_seconds = self.freshness.forget_after_seconds.max(stale_after_seconds);
            Freshness { stale_after_seconds, forget_after_seconds }
        };
        intervals.map(freshness).collect()
    }
}

/// Reports are stale after this many intervals between reports: one may be missed, and the next be
/// late.
const INTERVALS: f64 = 2.5;

impl LastReport {
    /// The state at `now_seconds`, and when it will change if no report comes.
    fn judged(&self, now_seconds: f64, freshness: Freshness) -> (PairState, f64) {
        let Some(stats) = self.state.stats() else {
            // That a node did not answer is news for as long as an answer would be.
            let until = self.reported_at + freshness.stale_after_seconds;
            return if now_seconds > until { (PairState::Unknown, f64::INFINITY) } else { (self.state, until + TICK_SECONDS) };
        };
        let measured_at = self.reported_at - stats.age_seconds;
        let aged = PairStats { age_seconds: (now_seconds - measured_at).max(0.0), ..*stats };
        match (PairState::judged(aged, freshness), self.state) {
            // The prober knows its own interval.
            (PairState::Known(stats), PairState::Stale(_)) => {
                (PairState::Stale(stats), measured_at + freshness.forget_after_seconds + TICK_SECONDS)
            }
            (state @ PairState::Known(_), _) => (state, measured_at + freshness.stale_after_seconds + TICK_SECONDS),
            (state @ PairState::Stale(_), _) => (state, measured_at + freshness.forget_after_seconds + TICK_SECONDS),
            (state, _) => (state, f64::INFINITY),
        }
    }
}

/// Limits are exclusive: at the very instant of the limit the old state still holds.
const TICK_SECONDS: f64 = 1e-6;

/// Whether two states are equal but for their ages.
fn is_same(one: &PairState, other: &PairState) -> bool {
    let without_age = |stats: &PairStats| PairStats { age_seconds: 0.0, samples: 1, ..*stats };
    match (one, other) {
        (PairState::Known(one), PairState::Known(other)) | (PairState::Stale(one), PairState::Stale(other)) => {
            without_age(one) == without_age(other)
        }
        _ => one == other,
    }
}

/// When one node last reported, and the last times between its reports.
#[derive(Clone, Debug, Default)]
struct Reporter {
    at: Option<f64>,
    gaps: [f64; GAPS],
    /// How many gaps were ever seen.
    seen: usize,
}

const GAPS: usize = 5;
/// The same report read twice differs by as much as the answers took to come.
const SAME_REPORT_SECONDS: f64 = 0.5;
/// Longer gaps are outages and no interval: Prometheus itself shows nothing older.
const MOST_GAP_SECONDS: f64 = 300.0;

impl Reporter {
    fn reported(&mut self, at: f64) {
        let gap = self.at.map(|before| at - before);
        if gap.is_some_and(|gap| gap < SAME_REPORT_SECONDS) {
            return;
        }
        if let Some(gap) = gap.filter(|gap| *gap <= MOST_GAP_SECONDS) {
            self.gaps[self.seen % GAPS] = gap;
            self.seen += 1;
        }
        self.at = Some(at);
    }

    /// The median, so that one outage does not count.
    fn interval_seconds(&self) -> Option<f64> {
        let mut gaps = self.gaps;
        let gaps = &mut gaps[..self.seen.min(GAPS)];
        gaps.sort_by(f64::total_cmp);
        gaps.get(gaps.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(rtt_seconds: f64, age_seconds: f64) -> PairState {
        PairState::Known(PairStats { age_seconds, ..PairStats::constant(rtt_seconds) })
    }

    fn told(state: PairState, reported_seconds_ago: f64) -> [Measurement; 1] {
        [Measurement { from: "node1".into(), to: "node2".into(), state, reported_seconds_ago }]
    }

    fn book() -> LatencyBook {
        let mut book = LatencyBook::default();
        book.follow(["node3", "node1", "node2"].map(NodeName::from));
        book
    }

    fn state(book: &mut LatencyBook, now_seconds: f64) -> PairState {
        book.matrix(now_seconds).state(&"node1".into(), &"node2".into())
    }

    fn rtt(book: &mut LatencyBook, now_seconds: f64) -> f64 {
        state(book, now_seconds).stats().map_or(f64::NAN, |stats| stats.p50)
    }

    #[test]
    fn a_report_ages_to_stale_and_then_is_forgotten() {
        let mut book = book();
        assert_eq!(state(&mut book, 0.0), PairState::Unknown);
        book.absorb(told(known(0.005, 2.0), 1.0), 100.0);
        assert!(matches!(state(&mut book, 120.0), PairState::Known(_)));
        assert!(matches!(state(&mut book, 140.0), PairState::Stale(stats) if stats.age_seconds == 43.0));
        assert_eq!(state(&mut book, 4000.0), PairState::Unknown);
        let counts = |now| {
            let PairCounts { known, stale, unknown, unreachable } = book.counts(now);
            [known, stale, unknown, unreachable]
        };
        assert_eq!([counts(120.0), counts(140.0), counts(4000.0)], [[1, 0, 5, 0], [0, 1, 5, 0], [0, 0, 6, 0]]);
    }

    #[test]
    fn of_two_sources_the_later_report_holds_in_whichever_order_they_come() {
        let (row, series) = (told(known(0.005, 1.0), 0.0), told(known(0.009, 1.0), 20.0));
        for order in [[&row, &series], [&series, &row]] {
            let mut book = book();
            for source in order {
                book.absorb(source.clone(), 100.0);
            }
            assert_eq!(rtt(&mut book, 101.0), 0.005);
        }
    }

    #[test]
    fn a_report_of_not_knowing_keeps_what_is_held() {
        let mut book = book();
        book.absorb(told(known(0.005, 1.0), 0.0), 100.0);
        book.absorb(told(PairState::Unknown, 0.0), 102.0);
        assert_eq!(rtt(&mut book, 102.0), 0.005);
        // Numbers that no link has are not knowing either.
        book.absorb(told(known(-0.005, 1.0), 0.0), 103.0);
        assert_eq!(rtt(&mut book, 103.0), 0.005);
        book.absorb([], 104.0);
        assert_eq!(rtt(&mut book, 104.0), 0.005);
    }

    #[test]
    fn a_node_that_does_not_answer_is_unreachable_until_that_is_old_or_no_longer_said() {
        let mut book = book();
        book.absorb(told(known(0.005, 1.0), 0.0), 100.0);
        book.absorb(told(PairState::Unreachable, 0.0), 105.0);
        assert_eq!(state(&mut book, 106.0), PairState::Unreachable);
        // An older report of another source does not bring it back.
        book.absorb(told(known(0.005, 1.0), 10.0), 107.0);
        assert_eq!(state(&mut book, 107.0), PairState::Unreachable);
        assert_eq!(state(&mut book, 200.0), PairState::Unknown);
        book.absorb(told(known(0.006, 0.0), 0.0), 201.0);
        assert_eq!(rtt(&mut book, 201.0), 0.006);
        book.absorb(told(PairState::Unreachable, 0.0), 205.0);
        book.absorb(told(PairState::Unknown, 0.0), 206.0);
        assert_eq!(state(&mut book, 206.0), PairState::Unknown);
    }

    #[test]
    fn a_pair_that_its_prober_calls_stale_is_stale() {
        let mut book = book();
        book.absorb(told(PairState::Stale(PairStats { age_seconds: 9.0, ..PairStats::constant(0.005) }), 0.0), 100.0);
        assert!(matches!(state(&mut book, 101.0), PairState::Stale(_)));
        book.absorb(told(known(0.005, 0.1), 0.0), 102.0);
        assert!(matches!(state(&mut book, 102.0), PairState::Known(_)));
    }

    #[test]
    fn nodes_that_are_gone_leave_nothing() {
        let mut book = book();
        book.absorb(told(known(0.005, 1.0), 0.0), 100.0);
        book.follow(["node0", "node1", "node2"].map(NodeName::from));
        assert_eq!(rtt(&mut book, 100.0), 0.005);
        book.follow(["node1", "node3"].map(NodeName::from));
        assert_eq!(book.pairs.len(), 0);
        assert_eq!(book.matrix(100.0).nodes(), ["node1".into(), "node3".into()]);
        book.absorb(told(known(0.005, 1.0), 0.0), 101.0);
        assert_eq!(book.pairs.len(), 0);
        book.follow(["node1", "node2"].map(NodeName::from));
        assert_eq!(state(&mut book, 101.0), PairState::Unknown);
    }

    #[test]
    fn the_same_matrix_is_handed_out_until_a_state_changes() {
        let mut book = book();
        book.absorb(told(known(0.005, 1.0), 0.0), 100.0);
        let (first, version) = (book.matrix(101.0), book.version());
        // The same numbers, a moment later.
        book.absorb(told(known(0.005, 0.5), 0.0), 105.0);
        book.follow(["node1", "node2", "node3"].map(NodeName::from));
        assert!(Arc::ptr_eq(&first, &book.matrix(106.0)));
        assert_eq!(book.version(), version);
        book.absorb(told(known(0.006, 0.5), 0.0), 107.0);
        assert!(!Arc::ptr_eq(&first, &book.matrix(107.0)));
        let (second, version) = (book.matrix(108.0), book.version());
        // Time alone makes it stale, and a report of the same numbers known again.
        assert!(matches!(state(&mut book, 150.0), PairState::Stale(_)));
        assert!(book.version() > version && !Arc::ptr_eq(&second, &book.matrix(150.0)));
        book.absorb(told(known(0.006, 0.5), 0.0), 151.0);
        assert!(matches!(state(&mut book, 151.0), PairState::Known(_)));
    }

    #[test]
    fn reports_hold_for_as_long_as_their_interval_needs() {
        let mut book = book();
        for scrape in 0..4 {
            let scraped_at = 100.0 + 60.0 * f64::from(scrape);
            // Read every 5 s, scraped every 60 s.
            for read in 0..12 {
                let ago = 5.0 * f64::from(read);
                book.absorb(told(known(0.005, 0.5), ago), scraped_at + ago);
                if scrape > 1 {
                    assert!(matches!(state(&mut book, scraped_at + ago), PairState::Known(_)));
                }
            }
        }
        assert!(matches!(state(&mut book, 280.0 + 149.0), PairState::Known(_)));
        assert!(matches!(state(&mut book, 280.0 + 151.0), PairState::Stale(_)));
    }

    #[test]
    fn one_outage_of_a_source_makes_no_longer_interval() {
        let mut book = book();
        for at in [100.0, 105.0, 110.0, 115.0, 280.0, 285.0] {
            book.absorb(told(known(0.005, 0.5), 0.0), at);
        }
        assert!(matches!(state(&mut book, 320.0), PairState::Stale(_)));
    }

    #[test]
    fn those_that_have_not_reported_for_too_long_are_silent() {
        let mut book = book();
        book.absorb(told(known(0.005, 0.5), 10.0), 100.0);
        assert_eq!(book.silent(100.0, 20.0), ["node2".into(), "node3".into()]);
        assert_eq!(book.silent(120.0, 20.0).len(), 3);
        // A report that says that it knows nothing is a report.
        book.absorb(told(PairState::Unknown, 0.0), 120.0);
        assert_eq!(book.silent(120.0, 20.0).len(), 2);
    }

    fn any_state() -> impl Strategy<Value = PairState> {
        prop_oneof![
            (1..4_u32, 0..50_u32).prop_map(|(rtt, age)| known(f64::from(rtt) / 1000.0, f64::from(age))),
            (1..4_u32, 0..50_u32).prop_map(|(rtt, age)| {
                PairState::Stale(PairStats { age_seconds: f64::from(age), ..PairStats::constant(f64::from(rtt) / 1000.0) })
            }),
            Just(PairState::Unknown),
            Just(PairState::Unreachable),
        ]
    }

    proptest! {
        /// A cached matrix says what one made anew would.
        #[test]
        fn a_matrix_handed_out_again_is_still_right(
            steps in prop::collection::vec((0..3_usize, 0..3_usize, any_state(), 0..40_u32, 0..60_u32), 1..40)
        ) {
            let names = ["node1", "node2", "node3"].map(NodeName::from);
            let mut book = book();
            let (mut now, mut seen) = (1000.0, None);
            for (from, to, state, ago, passed) in steps {
                now += f64::from(passed);
                let measurement = Measurement {
                    from: names[from].clone(), to: names[to].clone(), state, reported_seconds_ago: f64::from(ago),
                };
                book.absorb([measurement], now);
                let mut anew = book.clone();
                anew.view = None;
                let (matrix, anew) = (book.matrix(now), anew.matrix(now));
                for pair in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                    let (cached, made) = (matrix.pairs()[pair], anew.pairs()[pair]);
                    prop_assert!(is_same(&cached, &made), "{cached:?} {made:?}");
                }
                if let Some((version, before)) = seen.replace((book.version(), matrix.clone())) {
                    prop_assert_eq!(version == book.version(), Arc::ptr_eq(&before, &matrix));
                    let is_same = before.pairs().iter().zip(matrix.pairs()).all(|(before, after)| is_same(before, after));
                    prop_assert_eq!(version == book.version(), is_same);
                }
            }
        }
    }
}
