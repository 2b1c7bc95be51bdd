//! Room for a revision's pods on every node: what the node offers less what other pods ask for. Pure, over the objects' plain data.

mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use placement::{Exclusion, NodeCapacity, NodeName};

pub use quantity::parse as parse_quantity;

/// What one pod asks of its node, or all pods of one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requests {
    /// CPU in cores.
    pub cpu_cores: f64,
    /// Memory in bytes.
    pub memory_bytes: f64,
    /// Pods.
    pub pods: u32,
}

impl std::ops::AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.cpu_cores += other.cpu_cores;
        self.memory_bytes += other.memory_bytes;
        self.pods = self.pods.saturating_add(other.pods);
    }
}

/// What a pod of this spec asks for, as the scheduler counts it: containers together, or the largest init container where that is more
/// (those that keep running count with the containers), plus the runtime's overhead.
#[must_use]
pub fn requests(spec: &PodSpec) -> Requests {
    let mut containers = Requests { pods: 1, ..Requests::default() };
    for container in &spec.containers {
        containers += asked(container.resources.as_ref());
    }
    let mut largest_init = Requests::default();
    for container in spec.init_containers.iter().flatten() {
        let init = asked(container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            containers += init;
        } else {
            largest_init.cpu_cores = largest_init.cpu_cores.max(init.cpu_cores);
            largest_init.memory_bytes = largest_init.memory_bytes.max(init.memory_bytes);
        }
    }
    containers.cpu_cores = containers.cpu_cores.max(largest_init.cpu_cores);
    containers.memory_bytes = containers.memory_bytes.max(largest_init.memory_bytes);
    if let Some(overhead) = &spec.overhead {
        containers += amounts(overhead);
    }
    containers
}

fn asked(resources: Option<&ResourceRequirements>) -> Requests {
    let none = BTreeMap::new();
    let of = |which: fn(&ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>| resources.and_then(which).unwrap_or(&none);
    let requests = of(|resources| resources.requests.as_ref());
    let limits = of(|resources| resources.limits.as_ref());
    let (requested, limited) = (amounts(requests), amounts(limits));
    // A limit without a request is a request.
    Requests {
        cpu_cores: if requests.contains_key("cpu") { requested.cpu_cores } else { limited.cpu_cores },
        memory_bytes: if requests.contains_key("memory") { requested.memory_bytes } else { limited.memory_bytes },
        pods: 0,
    }
}

fn amounts(amounts: &BTreeMap<String, Quantity>) -> Requests {
    let amount = |name| amounts.get(name).and_then(|quantity| quantity::parse(&quantity.0)).unwrap_or(0.0);
    Requests { cpu_cores: amount("cpu"), memory_bytes: amount("memory"), pods: 0 }
}

/// How many pods like `template` a node may have: room that is left beside `others` (all pods there but this revision's).
#[must_use]
pub fn room(node: &Node, others: Requests, template: &PodSpec) -> NodeCapacity {
    let name = NodeName::new(node.metadata.name.clone().unwrap_or_default());
    let status = node.status.as_ref();
    let offers = |what: &str| status?.allocatable.as_ref()?.get(what).and_then(|quantity| quantity::parse(&quantity.0));
    let one = requests(template);
    let fits = |offered: Option<f64>, taken: f64, each: f64| match offered {
        _ if each <= 0.0 => f64::INFINITY,
        // A node that does not say what it offers offers nothing.
        None => 0.0,
        // Binary fractions of a core must not cost a pod.
        Some(offered) => ((offered - taken) / each + 1e-9).floor().max(0.0),
    };
    let most = fits(offers("pods"), f64::from(others.pods), 1.0)
        .min(fits(offers("cpu"), others.cpu_cores, one.cpu_cores))
        .min(fits(offers("memory"), others.memory_bytes, one.memory_bytes));
    // The casts saturate, and no node holds more than a Seika may ask of it.
    let capacity = NodeCapacity::new(name, (most as u32).min(MOST_PER_NODE));
    if let Some(reason) = excluded(node, template) {
        return capacity.excluded(reason);
    }
    if cordoned(node, template) { capacity.cordoned() } else { capacity }
}

/// The most that the Seika resource accepts for one node.
const MOST_PER_NODE: u32 = 1000;

fn taints(node: &Node) -> impl Iterator<Item = &k8s_openapi::api::core::v1::Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn tolerated(taint: &k8s_openapi::api::core::v1::Taint, template: &PodSpec) -> bool {
    template.tolerations.iter().flatten().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
    })
}

/// A hard reason against any pod, those that run included.
fn excluded(node: &Node, template: &PodSpec) -> Option<Exclusion> {
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready {
        return Some(Exclusion::NotReady);
    }
    if let Some(taint) = taints(node).find(|taint| taint.effect == "NoExecute" && !tolerated(taint, template)) {
        return Some(Exclusion::Taint(taint.key.clone()));
    }
    let labels = node.metadata.labels.as_ref();
    let selected =
        template.node_selector.iter().flatten().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    (!selected).then_some(Exclusion::Selector)
}

/// No new pods, but those that run may stay.
fn cordoned(node: &Node, template: &PodSpec) -> bool {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    unschedulable || taints(node).any(|taint| taint.effect == "NoSchedule" && !tolerated(taint, template))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(changes: &serde_json::Value) -> Node {
        let mut node = json!({
            "metadata": {"name": "node1", "labels": {"disk": "ssd"}},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        for (key, value) in changes.as_object().unwrap() {
            node[key] = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn template(changes: &serde_json::Value) -> PodSpec {
        let mut spec = json!({"containers": [
            {"name": "user", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}},
            {"name": "queue-proxy", "resources": {"requests": {"cpu": "25m"}}},
        ]});
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_scarcest_thing_bounds() {
        let others = Requests { cpu_cores: 0.5, memory_bytes: 0.0, pods: 10 };
        assert_eq!(room(&node(&json!({})), others, &template(&json!({}))).max_replicas, 12);
        let full = Requests { cpu_cores: 2.5, ..others };
        assert_eq!(room(&node(&json!({})), full, &template(&json!({}))).max_replicas, 0);
        let nothing_asked = template(&json!({"containers": [{"name": "user"}]}));
        assert_eq!(room(&node(&json!({})), others, &nothing_asked).max_replicas, 100);
        assert_eq!(
            room(&node(&json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})), others, &nothing_asked)
                .max_replicas,
            0
        );
    }

    #[test]
    fn init_containers_limits_and_overhead_count_as_the_scheduler_does() {
        let spec = template(&json!({
            "containers": [{"name": "user", "resources": {"limits": {"cpu": "200m"}}}],
            "initContainers": [
                {"name": "once", "resources": {"requests": {"cpu": "1"}}},
                {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            ],
            "overhead": {"cpu": "10m"},
        }));
        assert!((requests(&spec).cpu_cores - 1.01).abs() < 1e-9);
    }

    #[test]
    fn nodes_that_refuse_the_pod_are_left_out() {
        let limit = |node: Node, spec: PodSpec| {
            let capacity = room(&node, Requests::default(), &spec);
            (capacity.limit(0), capacity.limit(2))
        };
        let (any, tainted) =
            (template(&json!({})), |effect: &str| node(&json!({"spec": {"taints": [{"key": "k", "effect": effect}]}})));
        assert_eq!(limit(node(&json!({"spec": {"unschedulable": true}})), any.clone()), (0, 2));
        assert_eq!(limit(tainted("NoSchedule"), any.clone()), (0, 2));
        assert_eq!(limit(tainted("NoExecute"), any.clone()), (0, 0));
        assert_eq!(limit(tainted("PreferNoSchedule"), any.clone()).0, 16);
        assert_eq!(limit(tainted("NoExecute"), template(&json!({"tolerations": [{"key": "k", "operator": "Exists"}]}))).0, 16);
        assert_eq!(limit(node(&json!({"status": {}})), any), (0, 0));
        assert_eq!(limit(node(&json!({})), template(&json!({"nodeSelector": {"disk": "hdd"}}))), (0, 0));
        assert_eq!(limit(node(&json!({})), template(&json!({"nodeSelector": {"disk": "ssd"}}))).0, 16);
    }
}
