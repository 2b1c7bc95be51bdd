//! The plan: which way the extra-controller wants each revision's traffic to go, kept as last known
//! while it is away. Pure; the [stream](super::plan_stream) brings it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_link::{Event, RevisionKey, RevisionRoutes};

use crate::kubernetes::objects::ObjectName;

/// Source node -> serving node -> weight.
pub(crate) type Rows = BTreeMap<String, BTreeMap<String, u32>>;

/// A change of the plan.
#[derive(Debug)]
pub enum PlanChange {
    /// A line of the stream.
    Event(Event),
    /// Nothing was heard for so long that what is known says nothing any more.
    Expired,
}

/// The rows of each revision.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rows: BTreeMap<ObjectName, Arc<Rows>>,
}

impl Plan {
    /// Takes a change over. Returns the revisions (which is to say: their public Services) that it
    /// is about.
    pub(crate) fn apply(&mut self, change: PlanChange) -> Vec<ObjectName> {
        match change {
            PlanChange::Event(Event::Heartbeat { .. }) => Vec::new(),
            PlanChange::Event(Event::Update { routes, removed, .. }) => {
                let mut touched: Vec<_> = removed.into_iter().map(name).filter(|name| self.rows.remove(name).is_some()).collect();
                touched.extend(routes.iter().map(|routes| self.insert(routes)));
                touched
            }
            PlanChange::Event(Event::Snapshot { routes, .. }) => {
                let mut touched: Vec<_> = std::mem::take(&mut self.rows).into_keys().collect();
                touched.extend(routes.iter().map(|routes| self.insert(routes)));
                touched
            }
            PlanChange::Expired => std::mem::take(&mut self.rows).into_keys().collect(),
        }
    }

    fn insert(&mut self, routes: &RevisionRoutes) -> ObjectName {
        let revision = name(routes.key().clone());
        self.rows.insert(revision.clone(), Arc::new(routes.rows().clone()));
        revision
    }

    /// The rows of `revision`.
    #[must_use]
    pub(crate) fn rows(&self, revision: &ObjectName) -> Option<Arc<Rows>> {
        self.rows.get(revision).cloned()
    }

    /// How many revisions have a plan.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn name(key: RevisionKey) -> ObjectName {
    ObjectName::new(key.namespace, key.revision)
}
