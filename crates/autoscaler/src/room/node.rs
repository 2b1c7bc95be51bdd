//! One node: what it offers, what is taken, and which pods it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_api::taints::{cordon, refusing};
use k8s_openapi::api::core::v1::{Node, Taint};
use latency_matrix::NodeName;
use placement::problem::Exclusion;
use serde::{Deserialize, Serialize};

use super::requests::HostPort;
use super::resources::Resources;
use super::template::Template;

/// The label that names a node's operating system.
const OS_LABEL: &str = "kubernetes.io/os";

/// One node: what it offers, what is taken, and what it demands of a pod. Clones share what rarely
/// changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRoom {
    /// Its name.
    pub node: NodeName,
    /// What it offers to pods. A resource that it does not name is not there.
    pub offers: Resources,
    /// What the pods there ask for together, terminating ones included.
    pub taken: Resources,
    /// The node's ports that pods there take, in order, once per pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_ports: Vec<HostPort>,
    /// Whether the kubelet says that it is ready.
    pub is_ready: bool,
    /// Whether it is cordoned.
    pub is_cordoned: bool,
    /// Its operating system, where a label names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Arc<str>>,
    /// Its taints.
    pub taints: Arc<Vec<Taint>>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl NodeRoom {
    /// Reads a node; nothing is taken yet.
    #[must_use]
    pub fn read(node: &Node) -> Self {
        let status = node.status.as_ref();
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            node: NodeName::new(node.metadata.name.clone().unwrap_or_default()),
            offers: status.and_then(|status| status.allocatable.as_ref()).map(Resources::read).unwrap_or_default(),
            taken: Resources::default(),
            taken_ports: Vec::new(),
            is_ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            is_cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            os: node.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL)).map(|os| os.as_str().into()),
            taints: Arc::new(node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default()),
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
        }
    }

    /// The most pods of a revision that a plan may put here: the `own` ones that are here now
    /// (those that terminate left out) and as many new ones, each asking for `each`, as the
    /// scheduler would take. Never less than `own`: that a node is full, closed or unknown removes
    /// nothing.
    ///
    /// `each` is what a new pod asks for: the template's amounts, or the larger of these and what
    /// the revision's existing pods ask for ([`Resources::max`]), since admission may add to a pod.
    #[must_use]
    pub fn most(&self, template: &Template, each: &Resources, own: u32) -> u32 {
        if admission(self, template) != Admission::Open {
            return own;
        }
        let new = self.offers.fit(&self.taken, each);
        own.saturating_add(new).min(template.per_node_most().unwrap_or(u32::MAX)).max(own)
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

/// Whether `node` takes new pods of `template`, room aside.
#[must_use]
pub fn admission(node: &NodeRoom, template: &Template) -> Admission {
    let closed = |reason: String| Admission::Closed(Exclusion::Other(reason));
    if !node.is_ready {
        return Admission::Closed(Exclusion::NotReady);
    }
    if node.is_cordoned && refusing(&[cordon()], &template.tolerations).is_some() {
        return closed("cordoned".to_owned());
    }
    if let Some(taint) = refusing(&node.taints, &template.tolerations) {
        return Admission::Closed(Exclusion::Taint(taint.key.clone()));
    }
    let os = template.os.as_deref().unwrap_or("linux");
    if let Some(other) = node.os.as_deref().filter(|label| *label != os) {
        return closed(format!("runs {other}, the pods need {os}"));
    }
    if !template.node.are_met_by(&node.node, &node.labels) {
        return Admission::Closed(Exclusion::Selector);
    }
    let is_taken = |port: &&HostPort| node.taken_ports.iter().any(|taken| taken.clashes(port));
    match template.host_ports.iter().find(is_taken) {
        Some(HostPort { port, protocol, .. }) => closed(format!("port {port}/{protocol} of the node is taken")),
        None => Admission::Open,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::resources::tests::any_resources;
    use super::*;

    fn node(changes: &Value) -> NodeRoom {
        let mut node = json!({
            "metadata": {"name": "node1", "labels": {"disk": "ssd", "kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110", "ephemeral-storage": "1Gi", "hugepages-2Mi": "0"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        for (key, value) in changes.as_object().unwrap() {
            node[key] = value.clone();
        }
        NodeRoom::read(&serde_json::from_value(node).unwrap())
    }

    fn template(changes: &Value) -> Template {
        let mut spec = json!({"containers": [
            {"name": "user", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}},
            {"name": "queue-proxy", "resources": {"requests": {"cpu": "25m"}}},
        ]});
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        Template::read("default", &[("app".to_owned(), "hello".to_owned())].into(), &spec)
    }

    fn most(node: &NodeRoom, template: &Template) -> u32 {
        node.most(template, &template.each, 0)
    }

    fn reason(node: &NodeRoom, template: &Template) -> String {
        match admission(node, template) {
            Admission::Open => "open".to_owned(),
            Admission::Closed(exclusion) => exclusion.to_string(),
        }
    }

    #[test]
    fn every_refusal_says_why() {
        let any = template(&json!({}));
        let tainted = |effect: &str| node(&json!({"spec": {"taints": [{"key": "k", "effect": effect}]}}));
        assert_eq!(reason(&node(&json!({})), &any), "open");
        assert_eq!(reason(&node(&json!({"status": {}})), &any), "not ready");
        assert_eq!(reason(&node(&json!({"spec": {"unschedulable": true}})), &any), "cordoned");
        assert_eq!(reason(&tainted("NoSchedule"), &any), "taint k is not tolerated");
        assert_eq!(reason(&tainted("NoExecute"), &any), "taint k is not tolerated");
        assert_eq!(reason(&tainted("PreferNoSchedule"), &any), "open");
        assert_eq!(
            reason(&tainted("NoExecute"), &template(&json!({"tolerations": [{"key": "k", "operator": "Exists"}]}))),
            "open"
        );
        assert_eq!(
            reason(&tainted("NoSchedule"), &template(&json!({"tolerations": [{"key": "k", "operator": "Like"}]}))),
            "taint k is not tolerated"
        );
        let selector = "does not match the service's node selector";
        assert_eq!(reason(&node(&json!({})), &template(&json!({"nodeSelector": {"disk": "hdd"}}))), selector);
        assert_eq!(reason(&node(&json!({})), &template(&json!({"nodeSelector": {"disk": "ssd"}}))), "open");
        let not_here = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}]}}});
        assert_eq!(reason(&node(&json!({})), &template(&json!({"affinity": not_here}))), selector);
        let windows = node(&json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}}));
        assert_eq!(reason(&windows, &any), "runs windows, the pods need linux");
        assert_eq!(reason(&windows, &template(&json!({"os": {"name": "windows"}}))), "open");
        assert_eq!(reason(&node(&json!({"metadata": {"name": "n"}})), &any), "open");
    }

    #[test]
    fn a_tolerated_cordon_is_open() {
        let cordoned = node(
            &json!({"spec": {"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
        );
        assert_eq!(most(&cordoned, &template(&json!({"tolerations": [{"operator": "Exists"}]}))), 16);
        let by_key =
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]});
        assert_eq!(most(&cordoned, &template(&by_key)), 16);
        assert_eq!(most(&cordoned, &template(&json!({}))), 0);
    }

    #[test]
    fn what_the_node_does_not_offer_leaves_no_room() {
        let limits = |name: &str, amount: &str| {
            let limits = Value::from_iter([(name.to_owned(), Value::from(amount))]);
            template(&json!({"containers": [{"name": "u", "resources": {"limits": limits}}]}))
        };
        assert_eq!(most(&node(&json!({})), &limits("nvidia.com/gpu", "1")), 0);
        assert_eq!(most(&node(&json!({})), &limits("hugepages-2Mi", "2Mi")), 0);
        assert_eq!(most(&node(&json!({})), &limits("ephemeral-storage", "2Gi")), 0);
        assert_eq!(most(&node(&json!({})), &limits("ephemeral-storage", "300Mi")), 3);
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let with_kvm = node(
            &json!({"status": {"allocatable": {"cpu": "2", "pods": "110", "devices.kubevirt.io/kvm": "1k"}, "conditions": ready}}),
        );
        assert_eq!(most(&with_kvm, &limits("devices.kubevirt.io/kvm", "1")), 110);
    }

    #[test]
    fn a_taken_port_of_the_node_closes_it_and_a_free_one_takes_one_pod() {
        let on_port = template(&json!({"containers": [{"name": "u", "ports": [{"containerPort": 8080, "hostPort": 80}]}]}));
        let mut room = node(&json!({}));
        assert_eq!(most(&room, &on_port), 1);
        room.taken_ports.clone_from(&on_port.host_ports);
        assert_eq!(reason(&room, &on_port), "port 80/TCP of the node is taken");
        assert_eq!((room.most(&on_port, &on_port.each, 1), most(&room, &on_port)), (1, 0));
    }

    #[test]
    fn anti_affinity_to_its_own_pods_leaves_room_for_one() {
        let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "hello"}}}]}});
        let template = template(&json!({"affinity": apart}));
        let room = node(&json!({}));
        assert_eq!(room.most(&template, &template.each, 0), 1);
        assert_eq!(room.most(&template, &template.each, 1), 1);
        // Two that run all the same stay.
        assert_eq!(room.most(&template, &template.each, 2), 2);
    }

    #[test]
    fn what_admission_adds_to_the_pods_counts_for_the_next_one() {
        let template = template(&json!({}));
        let defaulted = Resources { cpu_millis: 600, ..template.each.clone() };
        let mut room = node(&json!({}));
        room.taken = defaulted.clone();
        assert_eq!(room.most(&template, &template.each.max(&defaulted), 1), 3);
    }

    proptest! {
        /// The rule: what serves is never taken away for want of room or knowledge.
        #[test]
        fn those_that_run_always_fit(
            offers in any_resources(), taken in any_resources(), each in any_resources(), own in 0..2000_u32,
            is_ready in any::<bool>(), is_cordoned in any::<bool>(), has_port in any::<bool>()
        ) {
            let room = NodeRoom { offers, taken, is_ready, is_cordoned, ..node(&json!({})) };
            let ports = if has_port { json!([{"containerPort": 80, "hostPort": 80}]) } else { json!([]) };
            let template = template(&json!({"containers": [{"name": "u", "ports": ports}]}));
            let most = room.most(&template, &each, own);
            prop_assert!(most >= own);
            if !is_ready || is_cordoned || has_port && own > 0 {
                prop_assert_eq!(most, own);
            } else if !has_port {
                prop_assert_eq!(most, own + room.offers.fit(&room.taken, &each));
            }
        }
    }
}
