//! Pods that were ready and are called not ready by somebody who may not know. When Kubernetes does
//! not hear of a node it calls all pods there not ready, and goes on to do so for seconds after it
//! has heard of the node again. They may well serve, and when all nodes fall silent they are all
//! that does. No I/O; time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::kubernetes::objects::{Endpoint, ObjectName, RoutingObjects};

/// A kubelet goes through its pods every 10 s and says which are ready. One that is heard of again
/// has done so by then.
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// Nodes and endpoints are watched one beside the other. After the API server was away, one may
/// come so much later than the other.
const NODES_LAG: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PodDoubts {
    /// Nodes whose word on their pods is still to come.
    nodes: BTreeMap<String, NodeSilence>,
    /// Pods of a Service that were ready and no longer are, and until when that may be because of a
    /// silence that is still to be told.
    lost: BTreeMap<ObjectName, BTreeMap<IpAddr, Lag>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeSilence {
    Lasts,
    /// Heard of again since the clock was last looked at.
    Over,
    /// Heard of again; it has time to speak of its pods.
    OverUntil(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lag {
    /// Lost since the clock was last looked at.
    New,
    Until(Instant),
    Passed,
}

impl PodDoubts {
    /// Notes what is known of a node; nothing of one that is gone. Whether that is news.
    pub(super) fn note_node(&mut self, name: &str, is_silent: Option<bool>) -> bool {
        let before = self.nodes.get(name).copied();
        let now = match (is_silent, before) {
            (Some(true), _) => Some(NodeSilence::Lasts),
            (Some(false), Some(NodeSilence::Lasts)) => Some(NodeSilence::Over),
            (Some(false), before) => before,
            (None, _) => None,
        };
        match now {
            Some(silence) => _ = self.nodes.insert(name.to_owned(), silence),
            None => _ = self.nodes.remove(name),
        }
        before != now
    }

    /// Notes that other pods of a Service are ready now than those of `ready_before`.
    pub(super) fn note_pods(&mut self, service: &ObjectName, ready_before: &BTreeSet<IpAddr>, objects: &RoutingObjects) {
        let mut lost = self.lost.remove(service).unwrap_or_default();
        lost.extend(ready_before.iter().map(|address| (*address, Lag::New)));
        if !lost.is_empty() {
            let unready = objects.unready_addresses(service);
            lost.retain(|address, _| unready.contains(address));
        }
        if !lost.is_empty() {
            self.lost.insert(service.clone(), lost);
        }
    }

    /// The Services for which it matters what nodes are in doubt.
    pub(super) fn concerned(&self) -> impl Iterator<Item = &ObjectName> {
        self.lost.keys()
    }

    /// Looks at the clock. Whether something is no longer in doubt because of that.
    pub(super) fn pass_time(&mut self, now: Instant) -> bool {
        let mut changed = false;
        self.nodes.retain(|_, silence| {
            if *silence == NodeSilence::Over {
                *silence = NodeSilence::OverUntil(now + SAID_WITHIN);
            }
            let stays = !matches!(*silence, NodeSilence::OverUntil(until) if until <= now);
            changed |= !stays;
            stays
        });
        for lag in self.lost.values_mut().flat_map(BTreeMap::values_mut) {
            match *lag {
                Lag::New => *lag = Lag::Until(now + NODES_LAG),
                Lag::Until(until) if until <= now => {
                    *lag = Lag::Passed;
                    changed = true;
                }
                Lag::Until(_) | Lag::Passed => {}
            }
        }
        changed
    }

    /// When something is no longer in doubt because of time alone.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let nodes = self.nodes.values().filter_map(|silence| match silence {
            NodeSilence::OverUntil(until) => Some(*until),
            NodeSilence::Lasts | NodeSilence::Over => None,
        });
        let lags = self.lost.values().flat_map(BTreeMap::values).filter_map(|lag| match lag {
            Lag::Until(until) => Some(*until),
            Lag::New | Lag::Passed => None,
        });
        nodes.chain(lags).min()
    }

    /// The pods behind `pods`, none of which is called ready, that are to have the requests for
    /// which otherwise there is only `listed`: nobody, or activators. Activators hold requests for
    /// pods that come later; but where they, too, are on nodes in doubt, none of these is worth
    /// more than the pods that served last.
    pub(super) fn pods(
        &self,
        objects: &RoutingObjects,
        pods: &ObjectName,
        port_name: &str,
        listed: &[Endpoint],
    ) -> Vec<Endpoint> {
        let Some(lost) = self.lost.get(pods) else { return Vec::new() };
        let is_doubted = |endpoint: &Endpoint| endpoint.node.as_ref().is_some_and(|node| self.nodes.contains_key(node));
        if !listed.iter().all(is_doubted) {
            return Vec::new();
        }
        let mut once_ready = objects.unready_endpoints(pods, port_name);
        once_ready.retain(|endpoint| lost.contains_key(&endpoint.address));
        let (mut found, others): (Vec<_>, Vec<_>) = once_ready.into_iter().partition(is_doubted);
        if found.is_empty() && listed.is_empty() {
            found = others;
            found.retain(|endpoint| lost.get(&endpoint.address) != Some(&Lag::Passed));
        }
        found
    }
}
