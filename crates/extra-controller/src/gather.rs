//! From the stores to what one decision looks at. Reads only.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use placement::{NodeCapacity, NodeName};
use route_stream::RevisionKey;

use crate::capacity::{self, Requests};
use crate::knative::REVISION_LABEL;
use crate::objects::{Objects, is_ready};
use crate::rollout::{self, Counts, Maker};

/// Pods that were decided on and may not exist yet, per revision: their room is taken.
#[derive(Debug, Default)]
pub struct Ledger {
    planned: BTreeMap<RevisionKey, (Counts, Requests)>,
}

impl Ledger {
    /// `key` will have these pods, each asking for so much.
    pub fn plan(&mut self, key: &RevisionKey, target: Counts, each: Requests) {
        self.planned.insert(key.clone(), (target, each));
    }

    /// There is no such revision any more.
    pub fn forget(&mut self, key: &RevisionKey) {
        self.planned.remove(key);
    }
}

/// What the stores say of one revision.
#[derive(Debug)]
pub struct Gathered {
    /// Its pods that are not going.
    pub pods: Vec<rollout::Pod>,
    /// Room per node.
    pub capacities: Vec<NodeCapacity>,
    /// What one of its pods asks for.
    pub each: Requests,
}

/// Looks at all pods and nodes for the revision `key`, whose pods look like `template`.
#[must_use]
pub fn gather(objects: &Objects, key: &RevisionKey, template: &PodSpec, ledger: &Ledger) -> Gathered {
    let mut pods = Vec::new();
    let mut taken: BTreeMap<NodeName, Requests> = BTreeMap::new();
    let mut existing: BTreeMap<(RevisionKey, NodeName), u32> = BTreeMap::new();
    for pod in objects.pods.state() {
        let Some(spec) = pod.spec.as_ref().filter(|_| !is_finished(&pod)) else { continue };
        let node = spec.node_name.as_deref().map(NodeName::from);
        let revision = pod.labels().get(REVISION_LABEL).map(|name| RevisionKey::new(pod.namespace().unwrap_or_default(), name));
        let going = pod.metadata.deletion_timestamp.is_some();
        if let (Some(revision), Some(node), false) = (&revision, &node, going) {
            *existing.entry((revision.clone(), node.clone())).or_default() += 1;
        }
        if revision.as_ref() == Some(key) && !going {
            if let Some(maker) = maker(&pod) {
                pods.push(rollout::Pod { name: pod.name_any(), node, maker, ready: is_ready(&pod) });
            }
        } else if let Some(node) = node {
            // A pod that is going holds its room until it is gone.
            *taken.entry(node).or_default() += capacity::requests(spec);
        }
    }
    for (other, (target, each)) in ledger.planned.iter().filter(|(other, _)| *other != key) {
        for (node, count) in target {
            let there = existing.get(&(other.clone(), node.clone())).copied().unwrap_or(0);
            for _ in there..*count {
                *taken.entry(node.clone()).or_default() += *each;
            }
        }
    }
    let capacities = objects
        .nodes
        .state()
        .iter()
        .map(|node| capacity::room(node, taken.get(node.name_any().as_str()).copied().unwrap_or_default(), template))
        .collect();
    Gathered { pods, capacities, each: capacity::requests(template) }
}

/// The Deployment of a revision.
#[must_use]
pub fn deployment(objects: &Objects, namespace: &str, name: &str) -> Option<std::sync::Arc<Deployment>> {
    objects.deployments.get(&ObjectRef::new(name).within(namespace))
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Who made a pod of a revision; `None` for one that neither Deployment nor Seika controls: nobody would replace it, so it counts for nothing.
fn maker(pod: &Pod) -> Option<Maker> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    match controller.kind.as_str() {
        "Seika" => Some(Maker::Seika),
        "ReplicaSet" => Some(Maker::Deployment),
        _ => None,
    }
}
