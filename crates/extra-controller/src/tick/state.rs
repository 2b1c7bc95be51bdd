//! What the loop keeps of writes and probes that are under way or failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway_link::RevisionKey;
use tokio::time::Instant;

/// Revisions that are written at once where nobody waits for them: each takes connections of its
/// own, and a start may find something to write about every revision.
const WRITES_AT_ONCE: usize = 16;

/// Revisions of which something is being written or probed.
#[derive(Debug, Default)]
pub(super) struct Busy {
    writing: BTreeSet<RevisionKey>,
    probing: BTreeSet<RevisionKey>,
    /// Revisions whose write did not begin since others are under way.
    queued: BTreeSet<RevisionKey>,
}

impl Busy {
    /// Whether a write may begin; it then has. One that nobody waits for is queued while many are
    /// under way.
    pub(super) fn begin_write(&mut self, key: &RevisionKey, is_waited_for: bool) -> bool {
        if !is_waited_for && self.writing.len() >= WRITES_AT_ONCE {
            if !self.writing.contains(key) {
                self.queued.insert(key.clone());
            }
            return false;
        }
        self.queued.remove(key);
        self.writing.insert(key.clone())
    }

    /// A write has ended. The queued revisions that there is room for now: they are to be decided
    /// on again.
    pub(super) fn wrote(&mut self, key: &RevisionKey) -> BTreeSet<RevisionKey> {
        self.writing.remove(key);
        let room = WRITES_AT_ONCE.saturating_sub(self.writing.len());
        std::iter::from_fn(|| self.queued.pop_first()).take(room).collect()
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
    fn a_write_waits_for_others_unless_somebody_waits_for_it() {
        let key = |number| RevisionKey::new("default", format!("hello-{number:05}"));
        let mut busy = Busy::default();
        assert!((0..WRITES_AT_ONCE).all(|number| busy.begin_write(&key(number), false)));
        let (queued, urgent) = (WRITES_AT_ONCE, WRITES_AT_ONCE + 1);
        assert!(!busy.begin_write(&key(queued), false) && !busy.begin_write(&key(0), false));
        assert!(busy.begin_write(&key(urgent), true) && !busy.begin_write(&key(urgent), true));
        assert_eq!(busy.wrote(&key(urgent)), BTreeSet::new(), "as many as before are under way");
        assert_eq!(busy.wrote(&key(1)), BTreeSet::from([key(queued)]));
        assert!(busy.begin_write(&key(queued), false));
        assert_eq!(busy.wrote(&key(2)), BTreeSet::new(), "nothing is queued twice");
    }

    #[test]
    fn one_write_at_a_time_and_longer_waits_after_each_failure() {
        let key = RevisionKey::new("default", "hello-00001");
        let mut busy = Busy::default();
        assert!(busy.begin_write(&key, false) && !busy.begin_write(&key, false) && busy.begin_probe(&key));
        busy.wrote(&key);
        assert!(busy.begin_write(&key, false));
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
