//! The requests in flight at another replica's gateways, by its stream of demand. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_link::RevisionKey;
use gateway_link::demand::{ByServing, DemandEvent, RevisionDemand};

use crate::kubernetes::objects::ObjectName;
use crate::state::change::LoadChange;

/// A revision and its load from one source node, as one replica reports it.
pub(super) type RevisionLoad = (ObjectName, LoadChange);

/// A revision and a source node.
type Entry = (ObjectName, String);

/// The loads that one replica has reported and not withdrawn.
#[derive(Debug)]
pub(super) struct PeerLoads {
    replica: Arc<str>,
    /// Entries with requests in flight.
    busy: BTreeSet<Entry>,
    /// The entries in the parts of a snapshot so far, while more parts follow.
    snapshot: Option<BTreeSet<Entry>>,
}

impl PeerLoads {
    /// No loads yet. `replica` names the replica in every [`LoadChange`].
    pub(super) fn new(replica: &str) -> Self {
        Self { replica: replica.into(), busy: BTreeSet::new(), snapshot: None }
    }

    /// Applies one line of the stream. Returns the loads to pass on.
    pub(super) fn apply(&mut self, event: DemandEvent) -> Vec<RevisionLoad> {
        match event {
            DemandEvent::Snapshot { parts_left, demand, .. } => {
                let mut entries = self.snapshot.take().unwrap_or_default();
                entries.extend(demand.iter().flat_map(entries_of));
                let mut changes = self.set_loads(demand);
                if parts_left > 0 {
                    self.snapshot = Some(entries);
                } else {
                    // A snapshot replaces everything: what it does not list is idle.
                    changes.extend(self.clear_loads(|entry| !entries.contains(entry)));
                }
                changes
            }
            DemandEvent::Update { demand, removed, .. } => {
                let removed: BTreeSet<ObjectName> = removed.iter().map(object_name).collect();
                let mut changes = self.clear_loads(|(revision, _)| removed.contains(revision));
                changes.extend(self.set_loads(demand));
                changes
            }
            DemandEvent::Heartbeat { .. } => Vec::new(),
        }
    }

    /// Withdraws all loads: the replica is gone, and its gateways report to another one.
    pub(super) fn withdraw(&mut self) -> Vec<RevisionLoad> {
        self.snapshot = None;
        self.clear_loads(|_| true)
    }

    fn set_loads(&mut self, demand: Vec<RevisionDemand>) -> Vec<RevisionLoad> {
        let mut changes = Vec::new();
        for RevisionDemand { key, loads } in demand {
            for (source, loads) in loads {
                let entry = (object_name(&key), source);
                let is_busy = loads.values().any(|load| load.in_flight > 0);
                let was_busy = if is_busy { !self.busy.insert(entry.clone()) } else { self.busy.remove(&entry) };
                if is_busy || was_busy {
                    changes.push(self.change(entry, loads));
                }
            }
        }
        changes
    }

    fn clear_loads(&mut self, is_idle: impl Fn(&Entry) -> bool) -> Vec<RevisionLoad> {
        let (idle, busy) = std::mem::take(&mut self.busy).into_iter().partition(is_idle);
        self.busy = busy;
        let idle: BTreeSet<Entry> = idle;
        idle.into_iter().map(|entry| self.change(entry, ByServing::new())).collect()
    }

    fn change(&self, (revision, source): Entry, loads: ByServing) -> RevisionLoad {
        (revision, LoadChange { heard_by: Some(self.replica.clone()), source, loads })
    }
}

fn entries_of(demand: &RevisionDemand) -> impl Iterator<Item = Entry> {
    demand.loads.keys().map(|source| (object_name(&demand.key), source.clone()))
}

fn object_name(key: &RevisionKey) -> ObjectName {
    ObjectName::new(&key.namespace, &key.revision)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gateway_link::demand::{Load, Run};
    use proptest::prelude::*;

    use super::*;

    fn demand(revision: &str, source: &str, in_flight: u64) -> RevisionDemand {
        let loads = ByServing::from([("node9".to_owned(), Load { in_flight, ..Load::default() })]);
        RevisionDemand { key: RevisionKey::new("ns", revision), loads: BTreeMap::from([(source.to_owned(), loads)]) }
    }

    fn snapshot(demand: Vec<RevisionDemand>) -> DemandEvent {
        let run = Run { instance: "b".to_owned(), running_seconds: 1.0 };
        DemandEvent::snapshot(&run, 1, &[], demand).remove(0)
    }

    fn update(demand: Vec<RevisionDemand>, removed: &[&str]) -> DemandEvent {
        let removed = removed.iter().map(|revision| RevisionKey::new("ns", *revision)).collect();
        DemandEvent::update(2, vec![], vec![], demand, removed, vec![]).remove(0)
    }

    /// Revision, source node and requests in flight.
    fn short(changes: Vec<RevisionLoad>) -> Vec<(String, String, u64)> {
        let total = |loads: &ByServing| loads.values().map(|load| load.in_flight).sum();
        changes.into_iter().map(|(name, change)| (name.name, change.source, total(&change.loads))).collect()
    }

    #[test]
    fn an_idle_revision_is_passed_on_once_after_it_was_busy() {
        let mut loads = PeerLoads::new("b");
        assert_eq!(short(loads.apply(snapshot(vec![demand("r", "node1", 0)]))), []);
        let [busy, idle] = [("r".to_owned(), "node1".to_owned(), 2), ("r".to_owned(), "node1".to_owned(), 0)];
        assert_eq!(short(loads.apply(update(vec![demand("r", "node1", 2)], &[]))), [busy]);
        assert_eq!(short(loads.apply(update(vec![demand("r", "node1", 0)], &[]))), [idle]);
        assert_eq!(short(loads.apply(update(vec![demand("r", "node1", 0)], &[]))), []);
    }

    #[test]
    fn a_removed_revision_and_a_new_snapshot_withdraw_what_they_do_not_list() {
        let mut loads = PeerLoads::new("b");
        loads.apply(snapshot(vec![demand("r", "node1", 1), demand("s", "node2", 1), demand("t", "node3", 1)]));
        assert_eq!(short(loads.apply(update(vec![], &["s"]))), [("s".to_owned(), "node2".to_owned(), 0)]);
        let changes = short(loads.apply(snapshot(vec![demand("t", "node3", 4)])));
        assert_eq!(changes, [("t".to_owned(), "node3".to_owned(), 4), ("r".to_owned(), "node1".to_owned(), 0)]);
        assert_eq!(short(loads.withdraw()), [("t".to_owned(), "node3".to_owned(), 0)]);
    }

    #[test]
    fn nothing_is_withdrawn_before_the_last_part_of_a_snapshot() {
        let mut loads = PeerLoads::new("b");
        loads.apply(snapshot(vec![demand("r", "node1", 1), demand("s", "node1", 1)]));
        let DemandEvent::Snapshot { instance, running_seconds, version, gateways, demand: listed, .. } =
            snapshot(vec![demand("s", "node1", 1)])
        else {
            panic!("not a snapshot")
        };
        let first = DemandEvent::Snapshot { instance, running_seconds, version, parts_left: 1, gateways, demand: listed };
        assert_eq!(short(loads.apply(first)), [("s".to_owned(), "node1".to_owned(), 1)]);
        assert_eq!(short(loads.apply(snapshot(vec![]))), [("r".to_owned(), "node1".to_owned(), 0)]);
    }

    proptest! {
        #[test]
        fn what_was_passed_on_is_what_the_replica_has(
            lines in prop::collection::vec((prop::collection::vec(("[a-c]", "[x-z]", 0_u64..3), 0..4), any::<bool>()), 0..12)
        ) {
            let mut loads = PeerLoads::new("b");
            let (mut passed_on, mut has) = (BTreeMap::new(), BTreeMap::new());
            for (entries, is_snapshot) in lines {
                // A line has each revision once.
                let entries: BTreeMap<_, _> = entries.into_iter().map(|(revision, source, count)| (revision, (source, count))).collect();
                let listed = entries.iter().map(|(revision, (source, count))| demand(revision, source, *count)).collect();
                if is_snapshot {
                    has.clear();
                }
                has.extend(entries.into_iter().map(|(revision, (source, count))| ((revision, source), count)));
                let event = if is_snapshot { snapshot(listed) } else { update(listed, &[]) };
                passed_on.extend(short(loads.apply(event)).into_iter().map(|(revision, source, count)| ((revision, source), count)));
            }
            has.retain(|_, count| *count > 0);
            passed_on.retain(|_, count| *count > 0);
            prop_assert_eq!(passed_on, has);
        }
    }
}
