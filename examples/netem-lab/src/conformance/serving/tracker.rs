//! The state of the tests of a suite while it runs. Pure; the caller passes the time.
//!
//! Go's test runner has no limit per test, and a test that panics ends the whole program. So a
//! suite is run in rounds: a test that takes too long ends the round, and the next one runs what
//! has not come to an end. A round in which nothing ended takes the blame itself, so there are
//! never more rounds than tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::conformance::results::{Line, Outcome};

/// How a test ended, or a part of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The test: `test/e2e/TestMinScale`. A part: its name within the test.
    pub name: String,
    /// How it ended.
    pub result: Outcome,
    /// How long it took, in seconds, without waiting for its turn; nothing when it never came to an
    /// end.
    pub seconds: Option<f64>,
    /// Why it has no end of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its parts, where it has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TestResult>,
}

/// The tests of a suite, by the names that Go has for them.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    wanted: Vec<String>,
    ended: BTreeMap<String, (Outcome, f64)>,
    given_up: BTreeMap<String, String>,
    /// Those at work in this round, each since when.
    running: BTreeMap<String, Duration>,
    ended_in_round: usize,
    begun_in_round: BTreeSet<String>,
}

impl Tracker {
    pub(super) fn new(wanted: Vec<String>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// The tests that have not come to an end and were not given up.
    pub(super) fn remaining(&self) -> Vec<&str> {
        let open = |name: &&String| !self.ended.contains_key(*name) && !self.given_up.contains_key(*name);
        self.wanted.iter().filter(open).map(String::as_str).collect()
    }

    pub(super) fn begin_round(&mut self) {
        self.running.clear();
        self.begun_in_round.clear();
        self.ended_in_round = 0;
    }

    /// Notes what was said, `now` after the start.
    pub(super) fn take(&mut self, line: Line, now: Duration) {
        let is_part = line.name().contains('/');
        match line {
            Line::Began { name } | Line::Continued { name } if !is_part => {
                self.begun_in_round.insert(name.clone());
                self.running.insert(name, now);
            }
            Line::Paused { name } if !is_part => {
                self.running.remove(&name);
            }
            Line::Ended { name, outcome, seconds } => {
                if !is_part {
                    self.running.remove(&name);
                    self.ended_in_round += 1;
                }
                self.ended.insert(name, (outcome, seconds));
            }
            Line::Began { .. } | Line::Continued { .. } | Line::Paused { .. } => {}
        }
    }

    /// A test that is at work for longer than `limit`.
    pub(super) fn overdue(&self, now: Duration, limit: Duration) -> Option<&str> {
        let late = self.running.iter().find(|(_, since)| now.saturating_sub(**since) > limit);
        late.map(|(name, _)| name.as_str())
    }

    pub(super) fn give_up(&mut self, name: &str, note: String) {
        self.running.remove(name);
        self.given_up.insert(name.to_owned(), note);
        self.ended_in_round += 1;
    }

    /// Ends a round, and says whether another one makes sense. `how` is how the program ended.
    pub(super) fn end_round(&mut self, how: &str) -> bool {
        if self.ended_in_round == 0 {
            let at_work: BTreeSet<_> = std::mem::take(&mut self.running).into_keys().collect();
            let begun = std::mem::take(&mut self.begun_in_round);
            let blamed = if at_work.is_empty() { begun } else { at_work };
            if blamed.is_empty() {
                for name in self.remaining().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                    self.given_up.insert(name, format!("the suite did not begin it and ended with {how}"));
                }
            }
            for name in blamed {
                self.given_up.insert(name, format!("at work when the suite ended with {how}"));
            }
        }
        !self.remaining().is_empty()
    }

    /// How many tests are over, in one way or another.
    pub(super) fn count(&self) -> usize {
        self.wanted.len() - self.remaining().len()
    }

    /// All that is known, with names that begin with `package`. A test that never ended has failed.
    pub(super) fn results(&self, package: &str) -> Vec<TestResult> {
        let result = |name: &String| {
            let ended = self.ended.get(name).copied();
            let unended = || self.given_up.get(name).cloned().unwrap_or_else(|| "never came to an end".to_owned());
            TestResult {
                name: format!("{package}/{name}"),
                result: ended.map_or(Outcome::Failed, |(outcome, _)| outcome),
                seconds: ended.map(|(_, seconds)| seconds),
                note: if ended.is_none() { Some(unended()) } else { None },
                parts: self.parts(name),
            }
        };
        self.wanted.iter().map(result).collect()
    }

    fn parts(&self, test: &str) -> Vec<TestResult> {
        let within = |name: &String| Some(name.strip_prefix(test)?.strip_prefix('/')?.to_owned());
        let part = |(name, (result, seconds)): (&String, &(Outcome, f64))| {
            Some(TestResult { name: within(name)?, result: *result, seconds: Some(*seconds), note: None, parts: Vec::new() })
        };
        self.ended.iter().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::results::read_line;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tracker(names: &[&str]) -> Tracker {
        let mut tracker = Tracker::new(names.iter().map(|name| (*name).to_owned()).collect());
        tracker.begin_round();
        tracker
    }

    fn hear(tracker: &mut Tracker, now: u64, lines: &[&str]) {
        for line in lines {
            tracker.take(read_line(&format!("\u{16}{line}")).expect("a line of the runner"), at(now));
        }
    }

    #[test]
    fn tests_and_their_parts_are_told_apart() {
        let mut tracker = tracker(&["TestA", "TestB"]);
        hear(
            &mut tracker,
            1,
            &["=== RUN   TestA", "=== RUN   TestA/x", "--- FAIL: TestA/x (2.00s)", "--- FAIL: TestA (3.00s)", "=== RUN   TestB"],
        );
        hear(&mut tracker, 2, &["--- PASS: TestB (1.00s)"]);
        assert!(!tracker.end_round("exit status: 1"));
        let results = tracker.results("test/e2e");
        assert_eq!(results[0].name, "test/e2e/TestA");
        assert_eq!((results[0].result, results[0].parts[0].result), (Outcome::Failed, Outcome::Failed));
        assert_eq!(results[0].parts[0].name, "x");
        assert_eq!((results[1].result, results[1].seconds), (Outcome::Passed, Some(1.0)));
        assert!(results[1].parts.is_empty());
    }

    #[test]
    fn waiting_for_its_turn_is_no_time_of_a_test() {
        let mut tracker = tracker(&["TestA"]);
        hear(&mut tracker, 0, &["=== RUN   TestA", "=== PAUSE TestA"]);
        assert_eq!(tracker.overdue(at(5000), at(60)), None);
        hear(&mut tracker, 5000, &["=== CONT  TestA"]);
        assert_eq!(tracker.overdue(at(5060), at(60)), None);
        assert_eq!(tracker.overdue(at(5061), at(60)), Some("TestA"));
    }

    #[test]
    fn what_was_cut_short_by_another_test_runs_again() {
        let mut tracker = tracker(&["TestA", "TestB", "TestC"]);
        hear(&mut tracker, 0, &["=== RUN   TestA", "=== PAUSE TestA", "=== RUN   TestB"]);
        tracker.give_up("TestB", "longer than 60 s".to_owned());
        assert!(tracker.end_round("signal: 9"));
        assert_eq!(tracker.remaining(), ["TestA", "TestC"]);
        let given_up = tracker.results("p").into_iter().nth(1).unwrap();
        assert_eq!((given_up.result, given_up.note.as_deref()), (Outcome::Failed, Some("longer than 60 s")));
    }

    #[test]
    fn there_is_an_end_to_rounds_that_come_to_nothing() {
        let mut tracker = tracker(&["TestA", "TestB"]);
        hear(&mut tracker, 0, &["=== RUN   TestB", "=== PAUSE TestB", "=== RUN   TestA"]);
        assert!(tracker.end_round("exit status: 2"), "TestB is still to come");
        assert_eq!(tracker.remaining(), ["TestB"]);
        tracker.begin_round();
        assert!(!tracker.end_round("exit status: 2"), "not even begun");
        assert!(tracker.results("p").iter().all(|test| test.result == Outcome::Failed && test.note.is_some()));
    }
}
