//! Which gateways there are, and up to when the demand of each is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use latency_matrix::NodeName;

/// The demand of a gateway that is silent for longer is unknown.
pub(super) const UNKNOWN_AFTER: Duration = Duration::from_secs(15);
/// Without a list of the gateways, one that is silent for longer is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// One source node, with whatever gateways are on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceCoverage {
    /// Since when its requests are counted.
    counted_from: Duration,
    /// Until when its reports cover all requests.
    counted_to: Duration,
    /// Whether a replica hears it now.
    is_heard: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: BTreeMap<NodeName, SourceCoverage>,
    /// The nodes that have a gateway, where they are listed.
    expected: Option<BTreeSet<NodeName>>,
}

impl Sources {
    pub(super) fn expect(&mut self, nodes: BTreeSet<NodeName>) {
        self.expected = Some(nodes);
    }

    /// Until when reports cover all requests of `node`; `None` without any report.
    pub(super) fn counted_to(&self, node: &NodeName) -> Option<Duration> {
        self.known.get(node).map(|source| source.counted_to)
    }

    /// Records a report of `node` that was made at `reported`. If `is_complete`, it has all
    /// requests since the report before.
    pub(super) fn reported(&mut self, node: &NodeName, reported: Duration, is_complete: bool) {
        let begun = if is_complete { Duration::ZERO } else { reported };
        match self.known.get_mut(node) {
            Some(source) => {
                if !is_complete {
                    source.counted_from = reported;
                }
                source.counted_to = source.counted_to.max(reported);
                source.is_heard = true;
            }
            None => {
                let source = SourceCoverage { counted_from: begun, counted_to: reported, is_heard: true };
                self.known.insert(node.clone(), source);
            }
        }
    }

    /// No replica hears `node` any more.
    pub(super) fn unheard(&mut self, node: &NodeName) {
        if let Some(source) = self.known.get_mut(node) {
            source.is_heard = false;
        }
    }

    /// Drops the gateways that are gone. Whether there were any.
    pub(super) fn prune(&mut self, now: Duration) -> bool {
        let before = self.known.len();
        let expected = &self.expected;
        self.known.retain(|node, source| match expected {
            Some(expected) => source.is_heard || expected.contains(node),
            None => source.is_heard || now.saturating_sub(source.counted_to) < GONE_AFTER,
        });
        self.known.len() < before
    }

    /// Whether `node` is a source at all, now.
    pub(super) fn is_known(&self, node: &NodeName) -> bool {
        self.known.contains_key(node)
    }

    /// Whether no gateway is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.expected.as_ref().is_none_or(BTreeSet::is_empty)
    }

    /// Whether the reports of every gateway cover the second that begins at `start`.
    pub(super) fn are_counted(&self, start: Duration) -> bool {
        let end = start + Duration::from_secs(1);
        !self.is_empty()
            && self.never_reported().next().is_none()
            && self.known.values().all(|source| source.counted_from <= start && source.counted_to >= end)
    }

    /// Whether later reports can still cover the second that begins at `start`.
    pub(super) fn may_be_counted(&self, start: Duration) -> bool {
        self.known.values().all(|source| source.counted_from <= start)
    }

    /// The nodes whose demand is not known.
    pub(super) fn unknown(&self, now: Duration) -> BTreeSet<NodeName> {
        let silent = self.known.iter().filter(|(_, source)| now.saturating_sub(source.counted_to) > UNKNOWN_AFTER);
        silent.map(|(node, _)| node).chain(self.never_reported()).cloned().collect()
    }

    /// Gateways that are listed and have never reported.
    fn never_reported(&self) -> impl Iterator<Item = &NodeName> {
        self.expected.iter().flatten().filter(|node| !self.known.contains_key(*node))
    }
}
