//! What changed in the stores since the last look.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_link::RevisionKey;
use tokio::sync::Notify;

/// Something that the stores hold now, or no longer do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// An object of this revision.
    Revision(RevisionKey),
    /// A pod, by namespace and name.
    Pod(String, String),
    /// A node, by name.
    Node(String),
    /// A ConfigMap: every revision may be concerned.
    Settings,
    /// What the API server adds to pods: every template may be concerned.
    Admission,
    /// A watch listed again: deletions in between had no event.
    Relisted,
}

/// What changed, each object once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Revisions of which an object changed.
    pub(crate) revisions: BTreeSet<RevisionKey>,
    /// Pods, by namespace and name.
    pub(crate) pods: BTreeSet<(String, String)>,
    /// Nodes, by name.
    pub(crate) nodes: BTreeSet<String>,
    /// Whether a ConfigMap changed.
    pub(crate) settings: bool,
    /// Whether a LimitRange or a RuntimeClass changed.
    pub(crate) admission: bool,
    /// Whether all stores have to be looked through.
    pub(crate) relisted: bool,
}

impl Changes {
    fn add(&mut self, change: Change) {
        match change {
            Change::Revision(key) => drop(self.revisions.insert(key)),
            Change::Pod(namespace, name) => drop(self.pods.insert((namespace, name))),
            Change::Node(name) => drop(self.nodes.insert(name)),
            Change::Settings => self.settings = true,
            Change::Admission => self.admission = true,
            Change::Relisted => self.relisted = true,
        }
    }
}

/// Collects changes between two looks. Its size is bounded by the number of objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeLog {
    changes: Arc<Mutex<Changes>>,
    noted: Arc<Notify>,
}

impl ChangeLog {
    /// Records a change and wakes the waiting task.
    pub(crate) fn record(&self, change: Change) {
        self.with(|changes| changes.add(change));
        self.noted.notify_one();
    }

    /// Hands out what was noted since the last call.
    #[must_use]
    pub(crate) fn drain(&self) -> Changes {
        self.with(std::mem::take)
    }

    /// Returns when something was noted since the last call of [`Self::noted`] returned.
    pub(crate) async fn noted(&self) {
        self.noted.notified().await;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Changes) -> T) -> T {
        act(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_object_is_noted_once_and_handed_out_once() {
        let log = ChangeLog::default();
        for _ in 0..3 {
            log.record(Change::Node("node1".to_owned()));
            log.record(Change::Pod("default".to_owned(), "a".to_owned()));
        }
        log.noted().await;
        let changes = log.drain();
        assert_eq!((changes.nodes.len(), changes.pods.len(), changes.settings), (1, 1, false));
        assert_eq!(log.drain(), Changes::default());
    }
}
