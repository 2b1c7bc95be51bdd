//! What the loop keeps of writes and probes that are under way or failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway_link::RevisionKey;
use tokio::time::Instant;

/// Revisions of which something is being written or probed.
#[derive(Debug, Default)]
pub(super) struct Busy {
    writing: BTreeSet<RevisionKey>,
    probing: BTreeSet<RevisionKey>,
}

impl Busy {
    /// Whether a write may begin; it then has.
    pub(super) fn begin_write(&mut self, key: &RevisionKey) -> bool {
        self.writing.insert(key.clone())
    }

    pub(super) fn wrote(&mut self, key: &RevisionKey) {
        self.writing.remove(key);
    }

    /// Whether a probe may begin; it then has.
    pub(super) fn begin_probe(&mut self, key: &RevisionKey) -> bool {
        self.probing.insert(key.clone())
    }

    pub(super) fn probed(&mut self, key: &RevisionKey) {
        self.probing.remove(key);
    }
}

/// Writes that failed are tried again after a second, and each time after twice as long.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<RevisionKey, (Instant, Duration)>);

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Retries {
    pub(super) fn may_write(&self, key: &RevisionKey, now: Instant) -> bool {
        self.0.get(key).is_none_or(|(until, _)| now >= *until)
    }

    pub(super) fn failed(&mut self, key: &RevisionKey, now: Instant) {
        let wait = self.0.get(key).map_or(FIRST_WAIT, |(_, wait)| (*wait * 2).min(LONGEST_WAIT));
        self.0.insert(key.clone(), (now + wait, wait));
        // A revision that is gone fails no more: its entry ends with its wait.
        self.0.retain(|_, (until, _)| *until + LONGEST_WAIT > now);
    }

    pub(super) fn succeeded(&mut self, key: &RevisionKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_at_a_time_and_longer_waits_after_each_failure() {
        let key = RevisionKey::new("default", "hello-00001");
        let mut busy = Busy::default();
        assert!(busy.begin_write(&key) && !busy.begin_write(&key) && busy.begin_probe(&key));
        busy.wrote(&key);
        assert!(busy.begin_write(&key));
        let (mut retries, now) = (Retries::default(), Instant::now());
        let second = Duration::from_secs(1);
        retries.failed(&key, now);
        assert!(!retries.may_write(&key, now) && retries.may_write(&key, now + second));
        retries.failed(&key, now + second);
        assert!(!retries.may_write(&key, now + second * 2) && retries.may_write(&key, now + second * 3));
        retries.succeeded(&key);
        assert!(retries.may_write(&key, now));
    }
}
