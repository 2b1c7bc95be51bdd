//! What changed in the stores since the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_link::RevisionKey;
use tokio::sync::{Notify, watch};

/// Something that the stores hold now, or no longer do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChange {
    /// An object of this revision.
    Revision(RevisionKey),
    /// The Seika of this revision was deleted, at this version.
    SeikaGone(RevisionKey, Option<String>),
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
    /// Revisions whose Seika was deleted, and at which version last.
    pub(crate) seikas_gone: BTreeMap<RevisionKey, Option<String>>,
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
    fn add(&mut self, change: StoreChange) {
        match change {
            StoreChange::Revision(key) => drop(self.revisions.insert(key)),
            StoreChange::SeikaGone(key, version) => drop(self.seikas_gone.insert(key, version)),
            StoreChange::Pod(namespace, name) => drop(self.pods.insert((namespace, name))),
            StoreChange::Node(name) => drop(self.nodes.insert(name)),
            StoreChange::Settings => self.settings = true,
            StoreChange::Admission => self.admission = true,
            StoreChange::Relisted => self.relisted = true,
        }
    }
}

/// Collects changes between two looks. Its size is bounded by the number of objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeLog {
    changes: Arc<Mutex<Changes>>,
    noted: Arc<Notify>,
    /// Changes of pods, counted.
    pods: Arc<watch::Sender<u64>>,
}

impl ChangeLog {
    /// Records a change and wakes the waiting task.
    pub(crate) fn record(&self, change: StoreChange) {
        if matches!(change, StoreChange::Pod(..) | StoreChange::Relisted) {
            self.pods.send_modify(|count| *count += 1);
        }
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

    /// For whoever looks through all pods.
    pub(crate) fn pods(&self) -> PodChanges {
        PodChanges(self.pods.subscribe())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Changes) -> T) -> T {
        act(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long one look through all pods serves, whatever changes: in a large cluster some pod always
/// does.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says when to look through all pods again.
#[derive(Clone, Debug)]
pub(crate) struct PodChanges(watch::Receiver<u64>);

impl PodChanges {
    /// Returns when some pod has changed since the last call, after a second at the earliest.
    pub(crate) async fn next(&mut self) {
        tokio::time::sleep(LOOK_EVERY).await;
        // Without a watch there are no changes to hear of: then once a second.
        let _ = self.0.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_object_is_noted_once_and_handed_out_once() {
        let log = ChangeLog::default();
        for _ in 0..3 {
            log.record(StoreChange::Node("node1".to_owned()));
            log.record(StoreChange::Pod("default".to_owned(), "a".to_owned()));
        }
        log.noted().await;
        let changes = log.drain();
        assert_eq!((changes.nodes.len(), changes.pods.len(), changes.settings), (1, 1, false));
        assert_eq!(log.drain(), Changes::default());
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_looked_through_when_one_has_changed_and_once_a_second_at_most() {
        let log = ChangeLog::default();
        let mut pods = log.pods();
        log.record(StoreChange::Node("node1".to_owned()));
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, pods.next()).await.is_err(), "no pod has changed");
        log.record(StoreChange::Pod("default".to_owned(), "a".to_owned()));
        log.record(StoreChange::Relisted);
        let begun = tokio::time::Instant::now();
        pods.next().await;
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert!(tokio::time::timeout(minute, pods.next()).await.is_err(), "both were heard of");
    }
}
