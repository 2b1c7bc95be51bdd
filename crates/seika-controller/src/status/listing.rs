//! What the status shows of single nodes, so that it stays readable and fits into etcd however many
//! there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::observed::Nodes;
use k8s_api::seika::NodeStatus;

/// In clusters of more nodes than this the status lists only those that concern the Seika, and
/// where more than this concern it, only those that lack something.
const NODES_LISTED_MAX: usize = 32;
/// The most nodes that are listed because they lack something.
const LACKING_LISTED_MAX: usize = 100;

/// The parts of a status that are about single nodes.
pub(super) struct NodeListing {
    /// Node names; one text that says how many there are where they are too many.
    pub(super) nodes: Vec<String>,
    /// Ready pods, "/", desired pods, per node or in all.
    pub(super) ready: String,
    /// What was observed of the nodes.
    pub(super) per_node: Vec<NodeStatus>,
}

impl NodeListing {
    /// Of `concerned`, the nodes that the Seika names or has pods on in name order, and those of
    /// `cluster`.
    pub(super) fn of(mut concerned: Vec<NodeStatus>, cluster: &Nodes) -> Self {
        if concerned.len() > NODES_LISTED_MAX {
            let total = |number: fn(&NodeStatus) -> i32| concerned.iter().map(number).sum::<i32>();
            let ready = format!("{}/{}", total(|node| node.ready), total(|node| node.desired));
            let nodes = vec![format!("{} nodes", concerned.len())];
            concerned.retain(lacks_something);
            concerned.truncate(LACKING_LISTED_MAX);
            return Self { nodes, ready, per_node: concerned };
        }
        let mut nodes: BTreeSet<&str> = concerned.iter().map(|status| status.node.as_str()).collect();
        if cluster.names().len() <= NODES_LISTED_MAX {
            nodes.extend(cluster.names());
        }
        let by_name: BTreeMap<&str, &NodeStatus> = concerned.iter().map(|status| (status.node.as_str(), status)).collect();
        let joined = |number: fn(&NodeStatus) -> i32| {
            nodes
                .iter()
                .map(|node| by_name.get(node).map_or(0, |status| number(status)).to_string())
                .collect::<Vec<_>>()
                .join("-")
        };
        let ready = format!("{}/{}", joined(|node| node.ready), joined(|node| node.desired));
        Self { nodes: nodes.into_iter().map(str::to_owned).collect(), ready, per_node: concerned }
    }
}

fn lacks_something(node: &NodeStatus) -> bool {
    node.reason.is_some() || node.current != node.desired || node.updated != node.current
}
