//! What holds and what does not. Pure.

use std::collections::BTreeMap;

use crate::load::Outcome;
use crate::report::RttTable;
use crate::wire::Interval;

use super::pods::PodSeen;

/// How far a measured median may be from the injected round trip.
pub(super) const RTT_TOLERANCE_MS: f64 = 0.5;

/// The share of requests that must be answered on the node they entered.
pub(super) const LOCAL_SHARE: f64 = 0.95;

/// How long after a pod is ready the machine is still taken to be busy with it.
const BURST_TAIL_SECONDS: f64 = 1.0;

/// The pairs that are not measured as injected, each with both numbers; empty when all are.
pub(super) fn wrong_pairs(injected: &RttTable, measured: &RttTable) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, row) in injected {
        for (to, wanted) in row {
            match measured.get(from).and_then(|row| row.get(to)) {
                Some(seen) if (seen - wanted).abs() <= RTT_TOLERANCE_MS => {}
                Some(seen) => wrong.push(format!("{from} to {to}: {seen:.2} instead of {wanted:.2} ms")),
                None => wrong.push(format!("{from} to {to}: not measured")),
            }
        }
    }
    wrong
}

/// How requests fared.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    pub(crate) local: usize,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Of the requests from `node` that were meant to be sent in the time given.
    pub(crate) fn of(outcomes: &[Outcome], node: &str, from_unix_seconds: f64, to_unix_seconds: f64) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            let in_time = outcome.at_unix_seconds >= from_unix_seconds && outcome.at_unix_seconds < to_unix_seconds;
            if outcome.from_node != node || !in_time {
                continue;
            }
            tally.requests += 1;
            if !outcome.succeeded() {
                tally.failed += 1;
                tally.first_error = tally.first_error.or_else(|| Some(describe(outcome)));
            } else if outcome.served_by_node.as_deref() == Some(node) {
                tally.local += 1;
            }
        }
        tally
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn local_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.local as f64 / self.requests as f64)
    }

    /// Whether there were requests, none failed, and enough were answered at home.
    pub(crate) fn is_local(&self) -> bool {
        self.failed == 0 && self.local_share().is_some_and(|share| share >= LOCAL_SHARE)
    }

    pub(crate) fn describe(&self, node: &str) -> String {
        let share = self.local_share().map_or("none".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let error = self.first_error.as_ref().map(|error| format!(" (first: {error})")).unwrap_or_default();
        format!("from {node}: {} requests, {} failed{error}, {share} answered on {node}", self.requests, self.failed)
    }
}

/// How a request failed, in words that others which failed alike share.
pub(crate) fn kind(outcome: &Outcome) -> String {
    let status = outcome.status.map_or("no answer".to_owned(), |status| format!("status {status}"));
    let error = outcome.error.as_deref().map(|error| format!(", {}", error.trim())).unwrap_or_default();
    format!("{status}{error}")
}

/// A failed request in words.
pub(crate) fn describe(outcome: &Outcome) -> String {
    let status = outcome.status.map_or("no answer".to_owned(), |status| format!("status {status}"));
    let error = outcome.error.as_deref().map(|error| format!(", {}", error.trim())).unwrap_or_default();
    format!("{status} after {:.3} s{error}", outcome.seconds)
}

/// What the Seika's READY column shows when `counts` pods are wanted and ready: nodes in name
/// order.
pub(super) fn ready_column(nodes: &[String], counts: &BTreeMap<String, u32>) -> String {
    let mut sorted: Vec<&String> = nodes.iter().collect();
    sorted.sort();
    let side: Vec<String> = sorted.iter().map(|node| counts.get(*node).copied().unwrap_or(0).to_string()).collect();
    let side = side.join("-");
    format!("{side}/{side}")
}

/// Whether an object of this name belongs to the service: it is called like it or begins with the
/// name of one of its revisions.
pub(super) fn belongs(object: &str, service: &str, revisions: &[String]) -> bool {
    object == service || revisions.iter().any(|revision| object == revision || object.starts_with(&format!("{revision}-")))
}

/// When pods were starting: the emulator is not judged by how late it was then.
pub(super) fn bursts(pods: &[PodSeen], now_unix_seconds: f64) -> Vec<Interval> {
    pods.iter()
        .map(|pod| Interval {
            from_unix_seconds: pod.first_seen_unix_seconds - BURST_TAIL_SECONDS,
            to_unix_seconds: pod.ready_unix_seconds.or(pod.gone_unix_seconds).unwrap_or(now_unix_seconds) + BURST_TAIL_SECONDS,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(from: &str, at: f64, status: Option<u16>, by: Option<&str>) -> Outcome {
        Outcome {
            from_node: from.to_owned(),
            status,
            served_by_node: by.map(str::to_owned),
            served_by_pod: None,
            seconds: 0.1,
            at_unix_seconds: at,
            error: None,
            late_seconds: 0.0,
        }
    }

    #[test]
    fn a_tally_counts_what_was_sent_in_time_from_its_node() {
        let outcomes = [
            outcome("a", 1.0, Some(200), Some("a")),
            outcome("a", 2.0, Some(200), Some("b")),
            outcome("a", 3.0, Some(503), None),
            outcome("a", 9.0, None, None),
            outcome("b", 2.0, Some(200), Some("b")),
        ];
        let tally = Tally::of(&outcomes, "a", 1.0, 9.0);
        assert_eq!((tally.requests, tally.failed, tally.local), (3, 1, 1));
        assert_eq!(tally.first_error.as_deref(), Some("status 503 after 0.100 s"));
        assert!(!tally.is_local());
        assert!(Tally::of(&outcomes, "b", 0.0, 9.0).is_local());
        assert!(!Tally::of(&outcomes, "c", 0.0, 9.0).is_local(), "no request shows nothing");
    }

    #[test]
    fn pairs_that_were_not_measured_are_wrong() {
        let table = |ms| RttTable::from([("a".to_owned(), BTreeMap::from([("b".to_owned(), ms)]))]);
        assert!(wrong_pairs(&table(50.0), &table(50.4)).is_empty());
        assert_eq!(wrong_pairs(&table(50.0), &table(50.6)), ["a to b: 50.60 instead of 50.00 ms"]);
        assert_eq!(wrong_pairs(&table(50.0), &RttTable::new()), ["a to b: not measured"]);
        assert_eq!(wrong_pairs(&table(50.0), &table(f64::NAN)).len(), 1);
    }

    #[test]
    fn the_ready_column_goes_by_node_name() {
        let nodes = ["west".to_owned(), "east".to_owned(), "mid".to_owned()];
        assert_eq!(ready_column(&nodes, &BTreeMap::from([("east".to_owned(), 2)])), "2-0-0/2-0-0");
    }

    #[test]
    fn objects_of_other_services_do_not_belong() {
        let revisions = ["shop-00001".to_owned()];
        assert!(belongs("shop", "shop", &revisions));
        assert!(belongs("shop-00001-private", "shop", &revisions));
        assert!(!belongs("shop-window", "shop", &revisions));
        assert!(!belongs("shop-000010", "shop", &revisions));
    }
}
