//! The last change of each item, in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Items by the version of their last change. Every operation is O(log n).
#[derive(Debug)]
pub(super) struct History<T> {
    version: u64,
    by_version: BTreeMap<u64, (T, Instant)>,
    versions: BTreeMap<T, u64>,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self { version: 0, by_version: BTreeMap::new(), versions: BTreeMap::new() }
    }
}

impl<T: Clone + Ord> History<T> {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(super) fn has(&self, what: &T) -> bool {
        self.versions.contains_key(what)
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Records a change of `what`.
    pub(super) fn record(&mut self, what: T, now: Instant) {
        let version = self.next_version();
        if let Some(before) = self.versions.insert(what.clone(), version) {
            self.by_version.remove(&before);
        }
        self.by_version.insert(version, (what, now));
    }

    pub(super) fn remove(&mut self, what: &T) {
        if let Some(version) = self.versions.remove(what) {
            self.by_version.remove(&version);
        }
    }

    /// Items that changed after `version`.
    pub(super) fn since(&self, version: u64) -> impl Iterator<Item = &T> {
        self.by_version.range(version.saturating_add(1)..).map(|(_, (what, _))| what)
    }

    /// The item whose last change is oldest, if that is at least `age` ago.
    pub(super) fn oldest_before(&self, now: Instant, age: Duration) -> Option<T> {
        let (_, (what, when)) = self.by_version.first_key_value()?;
        (now.saturating_duration_since(*when) >= age).then(|| what.clone())
    }

    pub(super) fn is_younger(&self, what: &T, now: Instant, age: Duration) -> bool {
        let when = self.versions.get(what).and_then(|version| self.by_version.get(version)).map(|(_, when)| *when);
        when.is_some_and(|when| now.saturating_duration_since(when) < age)
    }
}
