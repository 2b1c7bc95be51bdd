//! The routes that the extra-controller computed for each revision, kept while it is away. Pure;
//! [`plan_stream`](super::plan_stream) reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_link::{Event, RevisionKey, RevisionRoutes};

use crate::kubernetes::objects::ObjectName;

/// Source node -> serving node -> weight.
pub(crate) type Rows = BTreeMap<String, BTreeMap<String, u32>>;

/// A change of the routes.
#[derive(Debug)]
pub enum PlanChange {
    /// A line of the stream.
    Event(Event),
    /// Nothing was read for so long that the routes are dropped.
    Expired,
}

/// The rows of each revision.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rows: BTreeMap<ObjectName, Arc<Rows>>,
}

impl Plan {
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

    /// Number of revisions that have routes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn name(key: RevisionKey) -> ObjectName {
    ObjectName::new(key.namespace, key.revision)
}
