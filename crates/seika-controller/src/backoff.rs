//! How long to wait before a pod that failed is replaced: longer with each failure of the same
//! Seika on the same node.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::observed::{PodProgress, PodView};

const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// After this long without a failure the back-off of a node is reset.
const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

#[derive(Debug)]
struct NodeFailures {
    /// UIDs of the failures that are counted and still to be seen.
    counted: HashSet<String>,
    failures: u32,
    last: Timestamp,
}

impl NodeFailures {
    fn held_until(&self) -> Timestamp {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.last + (FIRST_DELAY * (1_i32 << doublings)).min(LONGEST_DELAY)
    }
}

/// Failures per Seika and node.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    by_seika: HashMap<String, HashMap<String, NodeFailures>>,
}

impl Backoffs {
    /// Counts the failures among `pods` that were not counted before. Returns the nodes on which
    /// nothing may be replaced yet, and until when.
    pub(crate) fn observe<'a>(
        &mut self,
        seika_uid: &str,
        pods: impl IntoIterator<Item = &'a PodView>,
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let mut failed: HashMap<&str, HashSet<&str>> = HashMap::new();
        for pod in pods.into_iter().filter(|pod| pod.progress == PodProgress::Finished) {
            failed.entry(&pod.node).or_default().insert(&pod.uid);
        }
        if failed.is_empty() && !self.by_seika.contains_key(seika_uid) {
            return BTreeMap::new();
        }
        let records = self.by_seika.entry(seika_uid.to_owned()).or_default();
        records.retain(|_, record| now.duration_since(record.last) < FORGIVEN_AFTER);
        for (node, uids) in &failed {
            let record = records.entry((*node).to_owned()).or_insert_with(|| NodeFailures {
                counted: HashSet::new(),
                failures: 0,
                last: now,
            });
            record.counted.retain(|uid| uids.contains(uid.as_str()));
            for uid in uids {
                if record.counted.insert((*uid).to_owned()) {
                    record.failures = record.failures.saturating_add(1);
                    record.last = now;
                }
            }
        }
        let held =
            records.iter().map(|(node, record)| (node.clone(), record.held_until())).filter(|(_, until)| *until > now).collect();
        if records.is_empty() {
            self.by_seika.remove(seika_uid);
        }
        held
    }

    /// The Seika is no more.
    pub(crate) fn forget(&mut self, seika_uid: &str) {
        self.by_seika.remove(seika_uid);
    }

    /// Only these Seikas are left.
    pub(crate) fn retain(&mut self, is_left: impl Fn(&str) -> bool) {
        self.by_seika.retain(|uid, _| is_left(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::fixtures::pod;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failed(uid: &str) -> PodView {
        PodView { uid: uid.into(), progress: PodProgress::Finished, ..pod("p", "node1") }
    }

    #[test]
    fn each_failure_counts_once_and_doubles_the_wait() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.observe("s", &[failed("a")], at(100)), [("node1".to_owned(), at(101))].into());
        assert_eq!(backoffs.observe("s", &[failed("a")], at(100)), [("node1".to_owned(), at(101))].into());
        assert!(backoffs.observe("s", &[failed("a")], at(101)).is_empty());
        assert_eq!(backoffs.observe("s", &[failed("b")], at(110)), [("node1".to_owned(), at(112))].into());
        assert_eq!(backoffs.observe("s", &[failed("c")], at(120)), [("node1".to_owned(), at(124))].into());
        assert!(backoffs.observe("other", &[failed("x")], at(120)).contains_key("node1"));
    }

    #[test]
    fn the_wait_is_bounded_and_forgiven() {
        let mut backoffs = Backoffs::default();
        for failure in 0..40 {
            backoffs.observe("s", &[failed(&failure.to_string())], at(failure));
        }
        assert_eq!(backoffs.observe("s", &[], at(39))["node1"], at(39 + 300));
        assert!(backoffs.observe("s", &[], at(39 + 600)).is_empty());
        assert_eq!(backoffs.observe("s", &[failed("new")], at(1000))["node1"], at(1001));
    }
}
