//! What is taken on every node, kept up to date pod by pod.
//!
//! [`Ledger`] holds one entry per pod that is bound to a node and one sum per node. An event about
//! a pod changes one sum; nothing is recounted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use latency_matrix::NodeName;

use crate::room::{HostPort, NodeRoom, Resources, host_ports, requests_of_pod};

/// What one pod holds of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Its resources.
    pub resources: Resources,
    /// The node's ports that it takes, in order.
    pub ports: Vec<HostPort>,
}

/// The node that a pod is bound to, and what it holds there. `None` for a pod that holds nothing:
/// not scheduled yet, or finished (`Succeeded`, `Failed`). A terminating pod holds its room until
/// it is gone.
#[must_use]
pub fn held(pod: &Pod) -> Option<(NodeName, Holding)> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.as_deref().filter(|node| !node.is_empty())?;
    Some((node.into(), Holding { resources: requests_of_pod(pod), ports: host_ports(spec) }))
}

/// The room of every node and the pods that take it.
///
/// ```
/// use autoscaler::ledger::{Holding, Ledger};
/// use autoscaler::room::{NodeRoom, Resources};
///
/// let mut ledger = Ledger::default();
/// let pod = Holding {
///     resources: Resources { cpu_millis: 250, pods: 1, ..Resources::default() },
///     ports: vec![],
/// };
/// // The pod is heard of before its node.
/// ledger.upsert("uid-1", Some(&"node1".into()), pod);
/// ledger
///     .node_upsert(NodeRoom::read(&serde_json::from_str(r#"{"metadata": {"name": "node1"}}"#)?));
/// assert_eq!(ledger.room()[0].taken.cpu_millis, 250);
/// ledger.remove("uid-1");
/// assert_eq!(ledger.room()[0].taken, Resources::default());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pods: HashMap<String, LedgerEntry>,
    /// Nodes that have pods and are not known (yet).
    unknown: BTreeMap<NodeName, Sum>,
    /// The known nodes in name order. Shared with those who asked last: a change copies it once.
    room: Arc<Vec<NodeRoom>>,
    version: u64,
}

/// One pod's entry.
#[derive(Clone, Debug)]
struct LedgerEntry {
    node: NodeName,
    holding: Holding,
}

/// What the pods of an unknown node hold together.
#[derive(Clone, Debug, Default)]
struct Sum {
    taken: Resources,
    ports: Vec<HostPort>,
    pods: usize,
}

impl Ledger {
    /// Records where a pod is bound and what it uses there. `None` stands for a pod that holds
    /// nothing, which is then not kept. Costs O(log nodes).
    pub fn upsert(&mut self, uid: &str, node: Option<&NodeName>, holding: Holding) {
        let Some(node) = node else { return self.remove(uid) };
        if let Some(held) = self.pods.get(uid) {
            // Most events about a pod change neither.
            if held.node == *node && held.holding == holding {
                return;
            }
            self.remove(uid);
        }
        self.change(node, |taken, ports, pods| {
            *taken += &holding.resources;
            for port in &holding.ports {
                let at = ports.partition_point(|listed| listed < port);
                ports.insert(at, port.clone());
            }
            *pods += 1;
        });
        self.pods.insert(uid.to_owned(), LedgerEntry { node: node.clone(), holding });
    }

    /// Takes in a pod as the API server has it.
    pub fn upsert_pod(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match held(pod) {
            Some((node, holding)) => self.upsert(uid, Some(&node), holding),
            None => self.remove(uid),
        }
    }

    /// The pod is gone.
    pub fn remove(&mut self, uid: &str) {
        let Some(LedgerEntry { node, holding }) = self.pods.remove(uid) else { return };
        self.change(&node, |taken, ports, pods| {
            *taken -= &holding.resources;
            for port in &holding.ports {
                if let Ok(at) = ports.binary_search(port) {
                    ports.remove(at);
                }
            }
            *pods -= 1;
        });
        if self.unknown.get(&node).is_some_and(|sum| sum.pods == 0) {
            self.unknown.remove(&node);
        }
    }

    /// Keeps only these pods. A watch that was cut off is listed again, so that no deletion is
    /// missed.
    pub fn retain(&mut self, is_left: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.pods.keys().filter(|uid| !is_left(uid)).cloned().collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    /// Takes in a node; what its field `taken` says is replaced by what its pods hold.
    pub fn node_upsert(&mut self, node: NodeRoom) {
        let at = self.position(&node.node);
        let known = match at {
            Ok(at) => {
                let known = &self.room[at];
                Sum { taken: known.taken.clone(), ports: known.taken_ports.clone(), pods: 0 }
            }
            Err(_) => self.unknown.remove(&node.node).unwrap_or_default(),
        };
        let node = NodeRoom { taken: known.taken, taken_ports: known.ports, ..node };
        match at {
            // Most events about a node are its heartbeat.
            Ok(at) if self.room[at] == node => return,
            Ok(at) => Arc::make_mut(&mut self.room)[at] = node,
            Err(at) => Arc::make_mut(&mut self.room).insert(at, node),
        }
        self.version += 1;
    }

    /// The node is gone. Its pods are kept until they are gone too.
    pub fn node_remove(&mut self, node: &NodeName) {
        let Ok(at) = self.position(node) else { return };
        let NodeRoom { node, taken, taken_ports, .. } = Arc::make_mut(&mut self.room).remove(at);
        let pods = self.pods.values().filter(|held| held.node == node).count();
        if pods > 0 {
            self.unknown.insert(node, Sum { taken, ports: taken_ports, pods });
        }
        self.version += 1;
    }

    /// The known nodes in name order with their used resources: a snapshot that later changes do
    /// not touch.
    #[must_use]
    pub fn room(&self) -> Arc<Vec<NodeRoom>> {
        self.room.clone()
    }

    /// Counts the changes of [`Ledger::room`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many pods hold room.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    fn position(&self, node: &NodeName) -> Result<usize, usize> {
        self.room.binary_search_by(|known| known.node.cmp(node))
    }

    fn change(&mut self, node: &NodeName, change: impl FnOnce(&mut Resources, &mut Vec<HostPort>, &mut usize)) {
        match self.position(node) {
            Ok(at) => {
                let known = &mut Arc::make_mut(&mut self.room)[at];
                // Known nodes need no count of pods.
                change(&mut known.taken, &mut known.taken_ports, &mut 1);
                self.version += 1;
            }
            Err(_) => {
                let sum = self.unknown.entry(node.clone()).or_default();
                change(&mut sum.taken, &mut sum.ports, &mut sum.pods);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str) -> NodeRoom {
        NodeRoom::read(&serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
    }

    fn holding(cpu_millis: u64) -> Holding {
        Holding { resources: Resources { cpu_millis, pods: 1, ..Resources::default() }, ports: Vec::new() }
    }

    fn cpu(ledger: &Ledger) -> Vec<(String, u64)> {
        ledger.room().iter().map(|room| (room.node.to_string(), room.taken.cpu_millis)).collect()
    }

    fn pod(uid: &str, node: Option<&str>, changes: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {"uid": uid},
            "spec": {"nodeName": node, "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}},
                "ports": [{"containerPort": 80, "hostPort": 80}]}]},
            "status": {"phase": "Running"},
        });
        for (key, value) in changes.as_object().unwrap() {
            for (inner, value) in value.as_object().unwrap() {
                pod[key][inner] = value.clone();
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_terminating_pod_holds_its_room_and_a_finished_one_does_not() {
        let mut ledger = Ledger::default();
        ledger.node_upsert(node("node1"));
        ledger.upsert_pod(&pod("a", None, &json!({})));
        assert_eq!(cpu(&ledger), [("node1".to_owned(), 0)]);
        ledger.upsert_pod(&pod("a", Some("node1"), &json!({})));
        assert_eq!((cpu(&ledger), ledger.room()[0].taken_ports.len()), (vec![("node1".to_owned(), 100)], 1));
        ledger.upsert_pod(&pod("a", Some("node1"), &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
        assert_eq!(cpu(&ledger), [("node1".to_owned(), 100)]);
        for phase in ["Succeeded", "Failed"] {
            ledger.upsert_pod(&pod("a", Some("node1"), &json!({"status": {"phase": phase}})));
            assert_eq!((cpu(&ledger), ledger.room()[0].taken_ports.len()), (vec![("node1".to_owned(), 0)], 0));
            ledger.upsert_pod(&pod("a", Some("node1"), &json!({})));
        }
    }

    #[test]
    fn a_pod_on_a_node_that_is_not_known_yet_counts_once_it_is() {
        let mut ledger = Ledger::default();
        ledger.upsert("a", Some(&"node2".into()), holding(100));
        ledger.upsert("b", Some(&"node2".into()), holding(50));
        assert_eq!((cpu(&ledger), ledger.version()), (vec![], 0));
        ledger.remove("b");
        ledger.node_upsert(node("node2"));
        ledger.node_upsert(node("node1"));
        assert_eq!(cpu(&ledger), [("node1".to_owned(), 0), ("node2".to_owned(), 100)]);
        ledger.node_remove(&"node2".into());
        ledger.node_upsert(node("node2"));
        assert_eq!(cpu(&ledger)[1].1, 100);
    }

    #[test]
    fn what_changes_nothing_counts_as_no_change_and_what_was_handed_out_stays() {
        let mut ledger = Ledger::default();
        ledger.node_upsert(node("node1"));
        ledger.upsert("a", Some(&"node1".into()), holding(100));
        let (before, version) = (ledger.room(), ledger.version());
        ledger.upsert("a", Some(&"node1".into()), holding(100));
        ledger.node_upsert(node("node1"));
        ledger.remove("nobody");
        ledger.node_remove(&"nowhere".into());
        assert_eq!(ledger.version(), version);
        assert!(Arc::ptr_eq(&before, &ledger.room()));
        ledger.upsert("a", Some(&"node1".into()), holding(70));
        assert_eq!((before[0].taken.cpu_millis, ledger.room()[0].taken.cpu_millis), (100, 70));
        assert!(ledger.version() > version);
    }

    #[test]
    fn a_new_list_drops_the_pods_that_are_not_in_it() {
        let mut ledger = Ledger::default();
        ledger.node_upsert(node("node1"));
        for uid in ["a", "b", "c"] {
            ledger.upsert(uid, Some(&"node1".into()), holding(10));
        }
        ledger.retain(|uid| uid == "b");
        assert_eq!((cpu(&ledger)[0].1, ledger.pods()), (10, 1));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pod(u8, Option<u8>, Holding),
        PodGone(u8),
        Node(u8, bool),
        NodeGone(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let resource = prop::sample::select(vec!["cpu", "memory", "pods", "nvidia.com/gpu", "hugepages-2Mi"]);
        let amounts = prop::collection::vec((resource, prop_oneof![0..9_u64, Just((1 << 53) - 1)]), 0..4);
        let holding = (amounts, prop::collection::vec(80..83_u16, 0..3)).prop_map(|(amounts, ports)| {
            let mut resources = Resources::default();
            for (name, amount) in amounts {
                resources.set(name, amount);
            }
            let port = |port| HostPort { port, protocol: "TCP".to_owned(), address: None };
            Holding { resources, ports: ports.into_iter().map(port).collect() }
        });
        let event = prop_oneof![
            4 => (0..12_u8, prop::option::weighted(0.9, 0..5_u8), holding).prop_map(|(uid, node, holding)| Event::Pod(uid, node, holding)),
            2 => (0..12_u8).prop_map(Event::PodGone),
            2 => (0..5_u8, any::<bool>()).prop_map(|(node, is_ready)| Event::Node(node, is_ready)),
            1 => (0..5_u8).prop_map(Event::NodeGone),
        ];
        prop::collection::vec(event, 0..80)
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_counting_from_scratch(events in events()) {
            let mut ledger = Ledger::default();
            let mut pods: BTreeMap<u8, (NodeName, Holding)> = BTreeMap::new();
            let mut nodes: BTreeMap<NodeName, bool> = BTreeMap::new();
            let name = |node: u8| NodeName::new(format!("node{node}"));
            for event in events {
                let (before, version) = (ledger.room(), ledger.version());
                match event {
                    Event::Pod(uid, node, holding) => {
                        ledger.upsert(&uid.to_string(), node.map(name).as_ref(), holding.clone());
                        match node {
                            Some(node) => drop(pods.insert(uid, (name(node), holding))),
                            None => drop(pods.remove(&uid)),
                        }
                    }
                    Event::PodGone(uid) => {
                        ledger.remove(&uid.to_string());
                        pods.remove(&uid);
                    }
                    Event::Node(number, is_ready) => {
                        ledger.node_upsert(NodeRoom { is_ready, ..node(name(number).as_ref()) });
                        nodes.insert(name(number), is_ready);
                    }
                    Event::NodeGone(node) => {
                        ledger.node_remove(&name(node));
                        nodes.remove(&name(node));
                    }
                }
                let recount = nodes.iter().map(|(known, is_ready)| {
                    let mut room = NodeRoom { is_ready: *is_ready, ..node(known.as_str()) };
                    for (_, holding) in pods.values().filter(|(node, _)| node == known) {
                        room.taken += &holding.resources;
                        room.taken_ports.extend(holding.ports.clone());
                    }
                    room.taken_ports.sort();
                    room
                });
                let recount: Vec<NodeRoom> = recount.collect();
                prop_assert_eq!(&*ledger.room(), &recount);
                prop_assert_eq!(ledger.pods(), pods.len());
                if *before != recount {
                    prop_assert!(ledger.version() > version);
                }
                // A node that is unknown and has no pods leaves nothing behind.
                let strangers = pods.values().map(|(node, _)| node).filter(|node| !nodes.contains_key(*node));
                prop_assert_eq!(ledger.unknown.len(), strangers.collect::<std::collections::BTreeSet<_>>().len());
            }
        }
    }
}
