//! The routes that the extra-controller computed for each revision, kept while it is away. Pure;
//! [`plan_stream`](super::plan_stream) reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_link::{Event, RevisionKey, RevisionRoutes};

use crate::kubernetes::objects::ObjectName;

/// Source node -> serving node -> weight.
pub(crate) type NodeWeights = BTreeMap<String, BTreeMap<String, u32>>;

/// A change of the routes.
#[derive(Debug)]
pub enum PlanChange {
    /// A stream begins: parts of a snapshot that an earlier stream did not finish are void.
    Began,
    /// A line of the stream.
    Event(Event),
    /// Nothing was read for so long that the routes are dropped.
    Expired,
}

/// The rows of each revision.
#[derive(Debug, Default)]
pub(crate) struct PlannedRoutes {
    rows: BTreeMap<ObjectName, Arc<NodeWeights>>,
    // The parts of a snapshot so far, while more parts follow.
    snapshot: Option<BTreeMap<ObjectName, Arc<NodeWeights>>>,
}

impl PlannedRoutes {
    /// Applies a change. Returns the affected revisions, which are also the names of their public
    /// Services.
    pub(crate) fn apply(&mut self, change: PlanChange) -> Vec<ObjectName> {
        match change {
            PlanChange::Event(Event::Heartbeat { .. }) => Vec::new(),
            PlanChange::Event(Event::Update { routes, removed, .. }) => {
                let mut touched: Vec<_> = removed.into_iter().map(name).filter(|name| self.rows.remove(name).is_some()).collect();
                touched.extend(routes.iter().map(|routes| self.insert(routes)));
                touched
            }
            PlanChange::Event(Event::Snapshot { parts_left, routes, .. }) => {
                let mut rows = self.snapshot.take().unwrap_or_default();
                rows.extend(routes.iter().map(of_revision));
                if parts_left > 0 {
                    self.snapshot = Some(rows);
                    return Vec::new();
                }
                let mut touched: Vec<_> = rows.keys().cloned().collect();
                touched.extend(std::mem::replace(&mut self.rows, rows).into_keys());
                touched
            }
            PlanChange::Began => {
                self.snapshot = None;
                Vec::new()
            }
            PlanChange::Expired => std::mem::take(&mut self.rows).into_keys().collect(),
        }
    }

    fn insert(&mut self, routes: &RevisionRoutes) -> ObjectName {
        let (revision, rows) = of_revision(routes);
        self.rows.insert(revision.clone(), rows);
        revision
    }

    /// The rows of `revision`.
    #[must_use]
    pub(crate) fn rows(&self, revision: &ObjectName) -> Option<Arc<NodeWeights>> {
        self.rows.get(revision).cloned()
    }

    /// Number of revisions that have routes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn of_revision(routes: &RevisionRoutes) -> (ObjectName, Arc<NodeWeights>) {
    (name(routes.key().clone()), Arc::new(routes.rows().clone()))
}

fn name(key: RevisionKey) -> ObjectName {
    ObjectName::new(key.namespace, key.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(version: u64, parts_left: u32, revision: &str) -> PlanChange {
        let routes = RevisionRoutes::new(RevisionKey::new("ns", revision), [("a", [("b", 100)])]).unwrap();
        PlanChange::Event(Event::Snapshot { version, parts_left, routes: vec![routes] })
    }

    fn revisions(plan: &PlannedRoutes) -> Vec<&str> {
        plan.rows.keys().map(|revision| revision.name.as_str()).collect()
    }

    #[test]
    fn the_last_part_of_a_snapshot_replaces_all_routes() {
        let mut plan = PlannedRoutes::default();
        plan.apply(part(1, 0, "old"));
        assert_eq!(plan.apply(part(2, 1, "new")), []);
        assert_eq!(revisions(&plan), ["old"], "nothing is taken before the rest is here");
        let touched: Vec<String> = plan.apply(part(2, 0, "newer")).into_iter().map(|revision| revision.name).collect();
        assert_eq!(touched, ["new", "newer", "old"]);
        assert_eq!(revisions(&plan), ["new", "newer"]);
    }

    #[test]
    fn a_snapshot_that_broke_off_leaves_nothing_behind() {
        let mut plan = PlannedRoutes::default();
        plan.apply(part(1, 1, "begun"));
        plan.apply(PlanChange::Began);
        plan.apply(part(2, 0, "whole"));
        assert_eq!(revisions(&plan), ["whole"]);
    }
}
