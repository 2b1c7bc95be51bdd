//! Whether a ready pod of a revision might be taken away: the question that the first rule of the
//! decision-maker asks, no more and no less.
//!
//! A decision may take a ready pod where
//!
//! - fewer pods are wanted by the demand that was *measured*: the average over the KPA's stable
//!   window, as the autoscaler knew it when it decided;
//! - or as many others as are wanted were *ready* then. What becomes of these afterwards (they
//!   fail, are deleted, or their node is cut off) is not the decision's doing.
//!
//! When it was decided is seen from what it wrote: the last moments before a Seika or a Deployment
//! asked for fewer pods somewhere. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What a decision is made from is as old as this at most when it is written: the last second that
/// is known whole, a tick, a watch that lags.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// A decision is carried out within this time, at worst: the controller that does it is killed and
/// writes fail.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(20);
/// What is in flight is known at a decision to within this time.
const IN_FLIGHT_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Gateways tell what is in flight at least this often; what is between is unknown where they do
/// not.
const TOLD_WITHIN: Duration = Duration::from_millis(200);
/// How long anything is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// What one pod is to carry: 70 % of the target of 10.
pub const PER_POD: f64 = 7.0;
/// Averages of what is measured are so much off at most.
pub const OFF: f64 = 0.5;

/// The fewest pods that so many clients ask for, each with one request at a time.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
pub fn least_pods(clients: f64) -> usize {
    if clients <= OFF { 0 } else { ((clients - OFF) / PER_POD).ceil() as usize }
}

/// What happened to the pods of one revision lately.
#[derive(Debug, Default)]
pub struct Removals {
    /// UIDs of the pods that were ready, since when.
    ready: VecDeque<(Instant, BTreeSet<String>)>,
    /// Pods that were taken while they were ready, by nobody who is excused.
    taken: VecDeque<(Instant, String)>,
    /// When fewer pods were asked for somewhere.
    lowered: VecDeque<Instant>,
    /// How many pods each maker asks for, per node.
    counts: BTreeMap<String, BTreeMap<String, i64>>,
}

/// What a removal is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The most other pods that were ready between the decision and the removal, without those that
    /// were taken meanwhile.
    pub others: usize,
    /// The fewest pods that measured demand asked for at any decision that can have been the cause.
    pub asked: usize,
    /// The demand that it was asked by: requests in flight, averaged over the stable window.
    pub demand: f64,
}

impl Verdict {
    /// Whether the pod might go.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.others >= self.asked
    }
}

impl Removals {
    /// These pods are ready from `now` on.
    pub fn ready(&mut self, now: Instant, uids: BTreeSet<String>) {
        self.ready.push_back((now, uids));
        // The last one that is older tells what was ready when the time that is kept began.
        while self.ready.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) > KEPT) {
            self.ready.pop_front();
        }
    }

    /// A ready pod was taken.
    pub fn taken(&mut self, now: Instant, uid: &str) {
        self.taken.push_back((now, uid.to_owned()));
        self.taken.retain(|(at, _)| now.saturating_duration_since(*at) <= KEPT);
    }

    /// `maker` asks for these counts per node from `now` on. Returns whether that is news.
    pub fn asks(&mut self, now: Instant, maker: &str, counts: BTreeMap<String, i64>) -> bool {
        let before = self.counts.entry(maker.to_owned()).or_default();
        if before.iter().any(|(node, count)| counts.get(node).copied().unwrap_or(0) < *count) {
            self.lowered.push_back(now);
        }
        self.lowered.retain(|at| now.saturating_duration_since(*at) <= KEPT);
        let is_news = *before != counts;
        *before = counts;
        is_news
    }

    /// Judges that the pod `uid` was taken at `at`. `told` are the requests in flight that the
    /// gateways told, in the order of time; `window` is the KPA's stable window. Of several
    /// decisions that can have been the cause, the one that explains it best counts.
    #[must_use]
    pub fn judge(&self, at: Instant, uid: &str, told: &[(Instant, u32)], window: Duration) -> Verdict {
        let since = before(at, CARRIED_OUT_WITHIN);
        let decided = self.lowered.iter().copied().filter(|lowered| (since..=at).contains(lowered));
        let of = |written| {
            let (asked, demand) = asked(told, written, window);
            Verdict { others: self.others(uid, before(written, WRITTEN_WITHIN), at), asked, demand }
        };
        let margin = |verdict: &Verdict| verdict.others.saturating_add(usize::MAX / 2) - verdict.asked;
        decided.map(of).max_by_key(margin).unwrap_or_else(|| of(at))
    }

    /// The most pods that were ready at an instant between `from` and `at`, without `uid` and those
    /// that were taken since.
    fn others(&self, uid: &str, from: Instant, at: Instant) -> usize {
        let taken = self.taken.iter().filter(|(then, _)| (from..=at).contains(then));
        let gone: BTreeSet<&str> = taken.map(|(_, uid)| uid.as_str()).chain([uid]).collect();
        let at_first = self.ready.iter().rev().find(|(then, _)| *then <= from);
        let later = self.ready.iter().filter(|(then, _)| (from..=at).contains(then));
        let count = |uids: &BTreeSet<String>| uids.iter().filter(|other| !gone.contains(other.as_str())).count();
        at_first.into_iter().chain(later).map(|(_, uids)| count(uids)).max().unwrap_or(0)
    }
}

fn before(instant: Instant, age: Duration) -> Instant {
    instant.checked_sub(age).unwrap_or(instant)
}

/// The fewest pods that a decision that was written at `written` can have been asked for, and by
/// which demand.
fn asked(told: &[(Instant, u32)], written: Instant, window: Duration) -> (usize, f64) {
    let demand = least_average(told, before(written, WRITTEN_WITHIN), written, window);
    // Whoever holds a request is never left without any pod.
    let lately = told.iter().filter(|(at, _)| (before(written, IN_FLIGHT_KNOWN_WITHIN)..=written).contains(at));
    let is_held = lately.clone().next().is_some() && lately.clone().all(|(_, count)| *count > 0);
    (least_pods(demand).max(usize::from(is_held)), demand)
}

/// The lowest average over a window that ended between the two instants. What nobody told is no
/// part of an average.
fn least_average(told: &[(Instant, u32)], first_end: Instant, last_end: Instant, window: Duration) -> f64 {
    let mut least: Option<f64> = None;
    let mut in_window: VecDeque<(Instant, f64, f64)> = VecDeque::new();
    let mut last: Option<(Instant, u32)> = None;
    for (at, count) in told.iter().copied().take_while(|(at, _)| *at <= last_end) {
        // Several streams tell the same, and one of them may end.
        let lasted = last.map_or(TOLD_WITHIN, |(before, _)| at.saturating_duration_since(before).min(TOLD_WITHIN));
        in_window.push_back((at, lasted.as_secs_f64(), f64::from(count)));
        while in_window.front().is_some_and(|(then, ..)| *then + window <= at) {
            in_window.pop_front();
        }
        if at >= first_end {
            let seconds: f64 = in_window.iter().map(|(_, seconds, _)| seconds).sum();
            let busy: f64 = in_window.iter().map(|(_, seconds, count)| seconds * count).sum();
            let average = if seconds > 0.0 { busy / seconds } else { f64::from(count) };
            least = Some(least.map_or(average, |least| least.min(average)));
        }
        last = Some((at, count));
    }
    // Nobody told anything then: what was known last holds.
    least.unwrap_or_else(|| last.map_or(0.0, |(_, count)| f64::from(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(6);

    /// Time runs from here, in seconds.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: f64) -> Instant {
            self.0 + Duration::from_secs_f64(seconds)
        }

        /// What was told 20 times a second from 0 to `until`.
        fn told(&self, until: f64, clients: impl Fn(f64) -> u32) -> Vec<(Instant, u32)> {
            let steps = (until * 20.0) as u32;
            (0..=steps).map(|step| f64::from(step) / 20.0).map(|second| (self.at(second), clients(second))).collect()
        }
    }

    fn uids(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn counts(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
        pairs.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
    }

    /// Three pods of a Seika since the beginning.
    fn three(clock: &Clock) -> Removals {
        let mut removals = Removals::default();
        removals.asks(clock.at(0.0), "Seika", counts(&[("node1", 3)]));
        removals.ready(clock.at(0.0), uids(&["a", "b", "c"]));
        removals
    }

    #[test]
    fn a_pod_that_steady_demand_asks_for_must_not_go() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |_| 20);
        removals.asks(clock.at(30.0), "Seika", counts(&[("node1", 2)]));
        removals.taken(clock.at(30.5), "c");
        let verdict = removals.judge(clock.at(30.5), "c", &told, WINDOW);
        assert_eq!((verdict.others, verdict.asked, verdict.is_right()), (2, 3, false));
    }

    #[test]
    fn nor_one_that_nobody_asked_to_go() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |_| 20);
        removals.taken(clock.at(30.5), "c");
        assert!(!removals.judge(clock.at(30.5), "c", &told, WINDOW).is_right());
    }

    #[test]
    fn nor_one_whose_replacement_is_not_ready_yet() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |_| 20);
        removals.asks(clock.at(29.0), "Seika", counts(&[("node1", 3), ("node2", 1)]));
        removals.asks(clock.at(30.0), "Seika", counts(&[("node1", 2), ("node2", 1)]));
        removals.taken(clock.at(30.1), "c");
        removals.ready(clock.at(30.1), uids(&["a", "b"]));
        removals.ready(clock.at(30.2), uids(&["a", "b", "d"]));
        assert!(!removals.judge(clock.at(30.1), "c", &told, WINDOW).is_right());
    }

    #[test]
    fn what_becomes_of_a_ready_replacement_is_not_the_decisions_doing() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |_| 20);
        removals.asks(clock.at(28.0), "Seika", counts(&[("node1", 3), ("node2", 1)]));
        removals.ready(clock.at(29.0), uids(&["a", "b", "c", "d"]));
        removals.asks(clock.at(30.0), "Seika", counts(&[("node1", 2), ("node2", 1)]));
        // Its node is cut off.
        removals.ready(clock.at(30.1), uids(&["a", "b", "c"]));
        removals.ready(clock.at(30.2), uids(&["a", "b"]));
        removals.taken(clock.at(30.2), "c");
        assert!(removals.judge(clock.at(30.2), "c", &told, WINDOW).is_right());
        // One replacement is good for one pod.
        removals.taken(clock.at(30.3), "b");
        assert!(!removals.judge(clock.at(30.3), "b", &told, WINDOW).is_right());
    }

    #[test]
    fn what_is_gone_for_long_replaces_nothing() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |_| 13);
        removals.ready(clock.at(20.0), uids(&["a"]));
        removals.asks(clock.at(30.0), "Seika", counts(&[]));
        removals.taken(clock.at(30.2), "a");
        assert_eq!(removals.judge(clock.at(30.2), "a", &told, WINDOW).others, 0);
    }

    /// As the KPA has it: ten requests at once after three seconds without any are an average of
    /// five.
    #[test]
    fn demand_is_what_was_measured_over_the_stable_window() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let told = clock.told(31.0, |second| if second < 28.0 { 0 } else { 10 });
        removals.asks(clock.at(31.0), "Seika", counts(&[("node1", 1)]));
        removals.taken(clock.at(31.0), "c");
        removals.taken(clock.at(31.1), "b");
        let verdict = removals.judge(clock.at(31.1), "b", &told, WINDOW);
        assert_eq!((verdict.others, verdict.asked, verdict.is_right()), (1, 1, true));
        // The last one serves whoever is there.
        removals.taken(clock.at(31.2), "a");
        assert!(!removals.judge(clock.at(31.2), "a", &told, WINDOW).is_right());
    }

    #[test]
    fn a_decision_is_judged_by_what_was_known_when_it_was_made() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        // Clients went for long, and come back while the controller of pods is away.
        let told = clock.told(40.0, |second| if (10.0..31.0).contains(&second) { 3 } else { 20 });
        removals.asks(clock.at(30.0), "Seika", counts(&[("node1", 1)]));
        removals.taken(clock.at(40.0), "c");
        assert!(removals.judge(clock.at(40.0), "c", &told, WINDOW).is_right());
        // Another one that nobody asked to go since is none of that decision's.
        removals.taken(clock.at(60.0), "b");
        let told = clock.told(60.0, |second| if (10.0..31.0).contains(&second) { 3 } else { 20 });
        assert!(!removals.judge(clock.at(60.0), "b", &told, WINDOW).is_right());
    }

    #[test]
    fn what_nobody_told_is_no_zero() {
        let clock = Clock(Instant::now());
        let mut removals = three(&clock);
        let mut told = clock.told(31.0, |_| 20);
        told.retain(|(at, _)| !(clock.at(20.0)..clock.at(29.0)).contains(at));
        removals.asks(clock.at(30.0), "Seika", counts(&[("node1", 2)]));
        removals.taken(clock.at(30.1), "c");
        assert_eq!(removals.judge(clock.at(30.1), "c", &told, WINDOW).asked, 3);
        // Nor is silence.
        told.retain(|(at, _)| *at < clock.at(20.0));
        assert_eq!(removals.judge(clock.at(30.1), "c", &told, WINDOW).asked, 3);
    }

    #[test]
    fn pods_per_clients() {
        assert_eq!([0.0, 0.4, 1.0, 7.0, 7.5, 8.0, 20.0].map(least_pods), [0, 0, 1, 1, 1, 2, 3]);
    }
}
