//! When each resource last changed, so that a gateway that is behind finds each changed resource
//! once.
//!
//! Removed resources are remembered for gateways that have not received the removal yet, but not
//! for ever. A gateway that is too far behind checks all its resources.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{ResourceKind, ResourceName};

/// Counts the changes since the process started.
pub type StoreRevision = u64;

/// The number of removed resources to remember: more than are removed while a gateway that reads
/// catches up.
const MOST_GONE: usize = 4_096;

/// The last change of each resource.
#[derive(Debug, Default)]
pub(super) struct ResourceChanges {
    by_revision: BTreeSet<(StoreRevision, ResourceKind, ResourceName)>,
    last: BTreeMap<ResourceKind, HashMap<ResourceName, StoreRevision>>,
    gone: BTreeSet<(StoreRevision, ResourceKind, ResourceName)>,
    forgotten: StoreRevision,
}

impl ResourceChanges {
    /// Records a change, or the removal (`gone`), of a resource at `revision`.
    pub(super) fn record(&mut self, revision: StoreRevision, kind: ResourceKind, name: ResourceName, gone: bool) {
        if let Some(before) = self.last.entry(kind).or_default().insert(name.clone(), revision) {
            let entry = (before, kind, name.clone());
            self.by_revision.remove(&entry);
            self.gone.remove(&entry);
        }
        let entry = (revision, kind, name);
        if gone {
            self.gone.insert(entry.clone());
        }
        self.by_revision.insert(entry);
        while self.gone.len() > MOST_GONE
            && let Some(oldest) = self.gone.pop_first()
        {
            self.by_revision.remove(&oldest);
            if let Some(last) = self.last.get_mut(&oldest.1) {
                last.remove(&oldest.2);
            }
            self.forgotten = oldest.0;
        }
    }

    /// Calls `visit` for each resource that changed after `since`. Returns whether these are all;
    /// otherwise some removed ones are missing.
    pub(super) fn since(&self, since: StoreRevision, mut visit: impl FnMut(ResourceKind, &ResourceName)) -> bool {
        for (_, kind, name) in self.by_revision.range((since + 1, ResourceKind::Cluster, ResourceName::new(""))..) {
            visit(*kind, name);
        }
        since >= self.forgotten
    }

    /// The shared name equal to `text`.
    pub(super) fn name(&self, kind: ResourceKind, text: &str) -> ResourceName {
        let known = self.last.get(&kind).and_then(|last| last.get_key_value(text));
        known.map_or_else(|| ResourceName::new(text), |(name, _)| name.clone())
    }

    /// The number of remembered resources.
    pub(super) fn len(&self) -> usize {
        self.by_revision.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(changes: &ResourceChanges, revision: StoreRevision) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let all = changes.since(revision, |_, name| names.push(name.as_str().to_owned()));
        (names, all)
    }

    #[test]
    fn each_is_told_once_and_with_its_last_change() {
        let mut changes = ResourceChanges::default();
        for (revision, name) in [(1, "a"), (1, "b"), (2, "a"), (3, "c")] {
            changes.record(revision, ResourceKind::Cluster, ResourceName::new(name), false);
        }
        assert_eq!(since(&changes, 0), (vec!["b".into(), "a".into(), "c".into()], true));
        assert_eq!(since(&changes, 2), (vec!["c".into()], true));
    }

    #[test]
    fn what_comes_and_goes_for_ever_takes_no_more_than_its_share() {
        let mut changes = ResourceChanges::default();
        changes.record(1, ResourceKind::Cluster, ResourceName::new("stays"), false);
        let last: StoreRevision = 1 + 3 * StoreRevision::try_from(MOST_GONE).unwrap();
        for revision in 2..=last {
            let name = ResourceName::new(format!("n{revision}"));
            changes.record(revision, ResourceKind::Cluster, name.clone(), false);
            changes.record(revision, ResourceKind::Cluster, name, true);
        }
        assert_eq!(changes.len(), 1 + MOST_GONE);
        assert_eq!(changes.last[&ResourceKind::Cluster].len(), 1 + MOST_GONE);
        // Who is up to date hears all; who is far behind hears that it does not.
        assert_eq!(since(&changes, last - 1), (vec![format!("n{last}")], true));
        assert!(!since(&changes, 1).1);
        // One that comes back is not among the gone any more.
        changes.record(last + 1, ResourceKind::Cluster, ResourceName::new(format!("n{last}")), false);
        assert_eq!(changes.gone.len(), MOST_GONE - 1);
    }
}
