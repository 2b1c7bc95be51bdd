//! The loads of revisions with a concurrency limit, and the routes that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::overflow::OverflowLimits;
use super::plan::NodeWeights;
use super::spill::move_shares;
use crate::kubernetes::objects::{Concurrency, Endpoint, ObjectName, RevisionObject};
use crate::state::change::LoadChange;
use gateway_link::demand::ByServing;

/// Concurrency limits and loads, by revision.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    known: BTreeMap<ObjectName, RevisionObject>,
    // Whether the cluster sets a burst capacity for all revisions.
    burst_capacity_default: bool,
    // Only of revisions with a limit.
    loads: BTreeMap<ObjectName, BTreeMap<HeardFrom, ByServing>>,
    // Source nodes that have sent requests, likewise.
    senders: BTreeMap<ObjectName, BTreeSet<String>>,
}

/// A source node, and the other replica that its gateway reports to.
type HeardFrom = (String, Option<Arc<str>>);

impl Overload {
    pub(crate) fn set_revision(&mut self, name: &ObjectName, revision: Option<RevisionObject>) {
        match revision {
            Some(revision) => self.known.insert(name.clone(), revision),
            None => self.known.remove(name),
        };
        if self.limit(name).is_none() {
            self.loads.remove(name);
            self.senders.remove(name);
        }
    }

    /// Sets whether the cluster sets a burst capacity for revisions that do not set it. Returns the
    /// revisions for which that changes anything.
    pub(crate) fn set_burst_capacity_default(&mut self, is_set: bool) -> Vec<ObjectName> {
        if std::mem::replace(&mut self.burst_capacity_default, is_set) == is_set {
            return Vec::new();
        }
        let concerned = self.known.iter().filter(|(name, revision)| !revision.sets_burst_capacity && self.limit(name).is_some());
        concerned.map(|(name, _)| name.clone()).collect()
    }

    /// The concurrency limit of a pod of `revision`, if it is known.
    pub(crate) fn concurrency(&self, revision: &ObjectName) -> Option<Concurrency> {
        self.known.get(revision).map(|revision| revision.concurrency)
    }

    fn limit(&self, revision: &ObjectName) -> Option<NonZeroU32> {
        match self.known.get(revision)?.concurrency {
            Concurrency::Limited(limit) => Some(limit),
            Concurrency::Unlimited => None,
        }
    }

    /// Sets a load. Returns whether it can change any route.
    pub(crate) fn set_loads(&mut self, revision: &ObjectName, LoadChange { heard_by, source, loads }: LoadChange) -> bool {
        let matters = self.limit(revision).is_some();
        if matters {
            if loads.values().any(|load| load.arrived > 0 || load.in_flight > 0) {
                self.senders.entry(revision.clone()).or_default().insert(source.clone());
            }
            let all = self.loads.entry(revision.clone()).or_default();
            if loads.values().any(|load| load.in_flight > 0) {
                all.insert((source, heard_by), loads);
            } else {
                all.remove(&(source, heard_by));
            }
        }
        matters
    }

    /// Forgets that the gateway of a node which is gone has sent requests. Returns the revisions
    /// that it had sent any for.
    pub(crate) fn forget_sender(&mut self, node: &str) -> Vec<ObjectName> {
        let sent = self.senders.iter_mut().filter_map(|(revision, senders)| senders.remove(node).then(|| revision.clone()));
        sent.collect()
    }

    /// Whether activators hold what is too much for the pods of `revision`: where these take only
    /// so many, and nobody has said what is to become of more.
    pub(crate) fn overflows(&self, revision: &ObjectName) -> bool {
        !self.burst_capacity_default
            && self.limit(revision).is_some()
            && self.known.get(revision).is_some_and(|revision| !revision.sets_burst_capacity)
    }

    /// The revisions of which that is so.
    pub(crate) fn all_that_overflow(&self) -> impl Iterator<Item = &ObjectName> {
        self.known.keys().filter(|revision| self.overflows(revision))
    }

    /// How many requests gateways may have in flight to the pods of a revision that overflows.
    pub(crate) fn limits(
        &self,
        revision: &ObjectName,
        endpoints: &[Endpoint],
        planned: Option<&NodeWeights>,
    ) -> Option<OverflowLimits> {
        let limit = self.limit(revision).filter(|_| self.overflows(revision))?;
        let nobody = BTreeSet::new();
        Some(OverflowLimits::new(limit, endpoints, planned, self.senders.get(revision).unwrap_or(&nobody)))
    }

    /// The planned rows, with shares of full nodes moved.
    pub(crate) fn move_shares(
        &self,
        revision: &ObjectName,
        endpoints: &[Endpoint],
        planned: Option<Arc<NodeWeights>>,
    ) -> Option<Arc<NodeWeights>> {
        let (Some(limit), Some(loads)) = (self.limit(revision), self.loads.get(revision)) else { return planned };
        let mut slots: BTreeMap<String, u32> = BTreeMap::new();
        for node in endpoints.iter().filter_map(|endpoint| endpoint.node.as_ref()) {
            let slots = slots.entry(node.clone()).or_default();
            *slots = slots.saturating_add(limit.get());
        }
        // Without a plan a source prefers its own node.
        let row = |source: &str| match planned.as_ref().and_then(|rows| rows.get(source)) {
            Some(row) => row.clone(),
            None => BTreeMap::from([(source.to_owned(), 1)]),
        };
        let moved = move_shares(row, &slots, &by_source(loads));
        if moved.is_empty() {
            return planned;
        }
        let mut rows = planned.as_deref().cloned().unwrap_or_default();
        rows.extend(moved);
        Some(Arc::new(rows))
    }
}

/// The sums over all replicas.
fn by_source(loads: &BTreeMap<HeardFrom, ByServing>) -> BTreeMap<String, ByServing> {
    let mut sum: BTreeMap<String, ByServing> = BTreeMap::new();
    for ((source, _), loads) in loads {
        let of = sum.entry(source.clone()).or_default();
        for (serving, load) in loads {
            let sum = of.entry(serving.clone()).or_default();
            sum.in_flight = sum.in_flight.saturating_add(load.in_flight);
        }
    }
    sum
}
