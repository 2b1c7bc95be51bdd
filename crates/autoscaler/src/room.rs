//! Room for a revision's pods on every node: what a node offers, less what the pods there ask for.
//!
//! The pods' and nodes' objects are read into plain numbers where they change ([`Template::read`],
//! [`NodeRoom::read`], [`requests`]); a decision only subtracts and divides.

mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec, ResourceRequirements, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use latency_matrix::NodeName;
use placement::Exclusion;
use serde::{Deserialize, Serialize};

pub use quantity::parse as parse_quantity;

/// Amounts that one pod asks of its node, that several pods ask together, or that a node offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU in cores.
    pub cpu_cores: f64,
    /// Memory in bytes.
    pub memory_bytes: f64,
    /// Pods.
    pub pods: f64,
}

impl std::ops::AddAssign<&Self> for Resources {
    fn add_assign(&mut self, other: &Self) {
        self.cpu_cores += other.cpu_cores;
        self.memory_bytes += other.memory_bytes;
        self.pods += other.pods;
    }
}

impl std::ops::SubAssign<&Self> for Resources {
    fn sub_assign(&mut self, other: &Self) {
        self.cpu_cores = (self.cpu_cores - other.cpu_cores).max(0.0);
        self.memory_bytes = (self.memory_bytes - other.memory_bytes).max(0.0);
        self.pods = (self.pods - other.pods).max(0.0);
    }
}

impl Resources {
    /// So many times these amounts.
    #[must_use]
    pub fn times(&self, count: u32) -> Self {
        let count = f64::from(count);
        Self { cpu_cores: self.cpu_cores * count, memory_bytes: self.memory_bytes * count, pods: self.pods * count }
    }

    /// How many pods that each ask for `each` fit into these amounts beside `taken`.
    #[must_use]
    pub fn fit(&self, taken: &Self, each: &Self) -> u32 {
        // Rounding errors of floating point must not cost a pod.
        let fits = |offered: f64, taken: f64, each: f64| if each > 0.0 { (offered - taken) / each + 1e-9 } else { f64::INFINITY };
        let most = fits(self.cpu_cores, taken.cpu_cores, each.cpu_cores)
            .min(fits(self.memory_bytes, taken.memory_bytes, each.memory_bytes))
            .min(fits(self.pods, taken.pods, each.pods));
        // The cast saturates: a negative number is no pod.
        (most as u32).min(MOST_PER_NODE)
    }
}

/// The most that the Seika resource accepts for one node.
const MOST_PER_NODE: u32 = 1000;

/// One node: what it offers, what is taken, and what it demands of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRoom {
    /// Its name.
    pub node: NodeName,
    /// What it offers to pods. A resource that it does not name is not there.
    pub offers: Resources,
    /// What the pods there ask for together, terminating ones included.
    pub taken: Resources,
    /// Whether the kubelet says that it is ready.
    pub is_ready: bool,
    /// Whether it is cordoned.
    pub is_cordoned: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeRoom {
    /// Reads a node; nothing is taken yet.
    #[must_use]
    pub fn read(node: &Node) -> Self {
        let status = node.status.as_ref();
        let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            node: NodeName::new(node.metadata.name.clone().unwrap_or_default()),
            offers: status.and_then(|status| status.allocatable.as_ref()).map(amounts).unwrap_or_default(),
            taken: Resources::default(),
            is_ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            is_cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

/// What a revision's pods ask of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// What one pod asks for.
    pub each: Resources,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    pub tolerations: Vec<Toleration>,
}

impl Template {
    /// Reads a pod template's spec.
    #[must_use]
    pub fn read(spec: &PodSpec) -> Self {
        Self {
            each: requests(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
        }
    }
}

/// Whether a node takes new pods of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It does, as far as there is room.
    Open,
    /// It takes no new pod. Pods that run there stay.
    Closed(Exclusion),
}

/// Whether `node` takes new pods of `template`.
#[must_use]
pub fn admission(node: &NodeRoom, template: &Template) -> Admission {
    if !node.is_ready {
        return Admission::Closed(Exclusion::NotReady);
    }
    if node.is_cordoned {
        return Admission::Closed(Exclusion::Other("cordoned".to_owned()));
    }
    let refusing = |taint: &&Taint| matches!(taint.effect.as_str(), "NoExecute" | "NoSchedule") && !is_tolerated(taint, template);
    if let Some(taint) = node.taints.iter().find(refusing) {
        return Admission::Closed(Exclusion::Taint(taint.key.clone()));
    }
    let is_selected = template.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    if is_selected { Admission::Open } else { Admission::Closed(Exclusion::Selector) }
}

/// What a pod of this spec asks for, as the scheduler counts it: containers together, or the largest init container where that is more
/// (those that keep running count with the containers), plus the runtime's overhead.
#[must_use]
pub fn requests(spec: &PodSpec) -> Resources {
    let mut containers = Resources { pods: 1.0, ..Resources::default() };
    for container in &spec.containers {
        containers += &asked(container.resources.as_ref());
    }
    let mut largest_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let init = asked(container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            containers += &init;
        } else {
            largest_init.cpu_cores = largest_init.cpu_cores.max(init.cpu_cores);
            largest_init.memory_bytes = largest_init.memory_bytes.max(init.memory_bytes);
        }
    }
    containers.cpu_cores = containers.cpu_cores.max(largest_init.cpu_cores);
    containers.memory_bytes = containers.memory_bytes.max(largest_init.memory_bytes);
    if let Some(overhead) = &spec.overhead {
        containers += &Resources { pods: 0.0, ..amounts(overhead) };
    }
    containers
}

fn asked(resources: Option<&ResourceRequirements>) -> Resources {
    let none = BTreeMap::new();
    let of = |which: fn(&ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>| resources.and_then(which).unwrap_or(&none);
    let requests = of(|resources| resources.requests.as_ref());
    let limits = of(|resources| resources.limits.as_ref());
    let (requested, limited) = (amounts(requests), amounts(limits));
    // A limit without a request is a request.
    Resources {
        cpu_cores: if requests.contains_key("cpu") { requested.cpu_cores } else { limited.cpu_cores },
        memory_bytes: if requests.contains_key("memory") { requested.memory_bytes } else { limited.memory_bytes },
        pods: 0.0,
    }
}

fn amounts(amounts: &BTreeMap<String, Quantity>) -> Resources {
    let amount = |name| amounts.get(name).and_then(|quantity| quantity::parse(&quantity.0)).unwrap_or(0.0);
    Resources { cpu_cores: amount("cpu"), memory_bytes: amount("memory"), pods: amount("pods") }
}


fn is_tolerated(taint: &Taint, template: &Template) -> bool {
    template.tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
    })
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

    fn fits(node: &Node, taken: Resources, spec: &PodSpec) -> u32 {
        NodeRoom::read(node).offers.fit(&taken, &Template::read(spec).each)
    }

    #[test]
    fn the_scarcest_resource_bounds() {
        let taken = Resources { cpu_cores: 0.5, memory_bytes: 0.0, pods: 10.0 };
        assert_eq!(fits(&node(&json!({})), taken, &template(&json!({}))), 12);
        let full = Resources { cpu_cores: 2.5, ..taken };
        assert_eq!(fits(&node(&json!({})), full, &template(&json!({}))), 0);
        let nothing_asked = template(&json!({"containers": [{"name": "user"}]}));
        assert_eq!(fits(&node(&json!({})), taken, &nothing_asked), 100);
        assert_eq!(fits(&node(&json!({"status": {}})), taken, &nothing_asked), 0);
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
    fn nodes_that_refuse_the_pod_are_closed_to_new_ones() {
        let is_open = |node: &Node, spec: &PodSpec| admission(&NodeRoom::read(node), &Template::read(spec)) == Admission::Open;
        let (any, tainted) =
            (template(&json!({})), |effect: &str| node(&json!({"spec": {"taints": [{"key": "k", "effect": effect}]}})));
        assert!(!is_open(&node(&json!({"spec": {"unschedulable": true}})), &any));
        assert!(!is_open(&tainted("NoSchedule"), &any));
        assert!(!is_open(&tainted("NoExecute"), &any));
        assert!(is_open(&tainted("PreferNoSchedule"), &any));
        assert!(is_open(&tainted("NoExecute"), &template(&json!({"tolerations": [{"key": "k", "operator": "Exists"}]}))));
        assert!(!is_open(&node(&json!({"status": {}})), &any));
        assert!(!is_open(&node(&json!({})), &template(&json!({"nodeSelector": {"disk": "hdd"}}))));
        assert!(is_open(&node(&json!({})), &template(&json!({"nodeSelector": {"disk": "ssd"}}))));
    }
}
