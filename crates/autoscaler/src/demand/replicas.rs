//! The replicas of locality-ingress, and which gateways each of them hears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use gateway_link::demand::Gateway;
use latency_matrix::NodeName;

/// One replica.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// Its run; `None` before its first snapshot.
    pub(super) instance: Option<String>,
    /// The gateways that it hears, by stream.
    streams: BTreeMap<u64, NodeName>,
    /// Their nodes, and how many there are on each.
    nodes: BTreeMap<NodeName, usize>,
    /// Since when the replica is silent.
    pub(super) lost_at: Option<Duration>,
    /// While a snapshot comes in parts: what has come of it.
    pub(super) listing: Option<Listing>,
}

/// The parts of a snapshot that have come.
#[derive(Debug)]
pub(super) struct Listing {
    /// Whether the counters continue those of the replica's last event.
    pub(super) is_same_run: bool,
    /// The revisions that were named.
    pub(super) revisions: BTreeSet<RevisionKey>,
}

impl Replica {
    /// Applies the gateways of an event. Returns the nodes with the time of their last report. Of
    /// two gateways on one node, the earlier report counts: the requests since then are not
    /// reported yet.
    pub(super) fn apply_gateways(&mut self, gateways: &[Gateway], now: Duration) -> BTreeMap<NodeName, Duration> {
        let mut reported: BTreeMap<NodeName, Duration> = BTreeMap::new();
        for gateway in gateways {
            let node = NodeName::new(gateway.node.as_str());
            // Ages are checked where lines are read; one beyond reason is as old as the clock.
            let age = Duration::try_from_secs_f64(gateway.age_seconds).unwrap_or(now);
            let at = now.saturating_sub(age);
            self.add_stream(gateway.stream, &node);
            reported.entry(node).and_modify(|other| *other = (*other).min(at)).or_insert(at);
        }
        reported
    }

    fn add_stream(&mut self, stream: u64, node: &NodeName) {
        if self.streams.get(&stream) == Some(node) {
            return;
        }
        self.leave(stream);
        self.streams.insert(stream, node.clone());
        *self.nodes.entry(node.clone()).or_default() += 1;
    }

    /// The stream has ended: the node that it was of.
    pub(super) fn leave(&mut self, stream: u64) -> Option<NodeName> {
        let node = self.streams.remove(&stream)?;
        if let Some(count) = self.nodes.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&node);
            }
        }
        Some(node)
    }

    /// All streams have ended: the nodes that they were of.
    pub(super) fn leave_all(&mut self) -> BTreeSet<NodeName> {
        self.streams.clear();
        std::mem::take(&mut self.nodes).into_keys().collect()
    }

    pub(super) fn hears_node(&self, node: &NodeName) -> bool {
        self.nodes.contains_key(node)
    }
}

/// All of them, by the name that the reader gives them.
#[derive(Debug, Default)]
pub(super) struct Replicas(pub(super) BTreeMap<Arc<str>, Replica>);

impl Replicas {
    /// The replica called `name`, and its name as it is kept.
    pub(super) fn named(&mut self, name: &str) -> (Arc<str>, &mut Replica) {
        let name = self.0.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| name.clone());
        (name.clone(), self.0.entry(name).or_default())
    }

    /// Whether any replica hears `node`.
    pub(super) fn any_hears(&self, node: &NodeName) -> bool {
        self.0.values().any(|replica| replica.hears_node(node))
    }

    /// Whether the replica `name` hears `node`.
    pub(super) fn hears(&self, name: &str, node: &NodeName) -> bool {
        self.0.get(name).is_some_and(|replica| replica.hears_node(node))
    }
}
