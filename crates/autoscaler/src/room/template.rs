//! What a revision's pods ask of a node, read once per template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use serde::{Deserialize, Serialize};

use super::affinity::NodeDemands;
use super::among_pods::AmongPods;
use super::requests::{HostPort, host_ports, requests};
use super::resources::Resources;

/// What a revision's pods ask of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// What one pod asks for.
    pub each: Resources,
    /// What its labels and name must be.
    pub node: NodeDemands,
    /// Taints that the pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// The operating system that the pods name; `None` stands for Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Ports of the node that each pod takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// What the pods require of those beside them.
    pub among_pods: AmongPods,
}

impl Template {
    /// Reads the spec of a pod template of `namespace` whose pods have these labels, as
    /// [`admitted`](super::admitted) makes it.
    #[must_use]
    pub fn read(namespace: &str, labels: &BTreeMap<String, String>, spec: &PodSpec) -> Self {
        Self {
            each: requests(spec),
            node: NodeDemands::read(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            os: spec.os.as_ref().map(|os| os.name.clone()),
            host_ports: host_ports(spec),
            among_pods: AmongPods::read(namespace, labels, spec),
        }
    }

    /// The most pods on one node, whatever room it has; `None` where nothing limits them.
    #[must_use]
    pub fn per_node_most(&self) -> Option<u32> {
        if self.host_ports.is_empty() { self.among_pods.per_node_most } else { Some(1) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_of_the_node_allows_one_pod_per_node() {
        let spec = json!({"containers": [{"name": "user", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let template = Template::read("default", &BTreeMap::new(), &serde_json::from_value(spec).unwrap());
        assert_eq!(template.per_node_most(), Some(1));
        assert_eq!(Template::default().per_node_most(), None);
    }

    #[test]
    fn a_template_is_read_back_from_json_as_it_was() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "user", "resources": {"limits": {"nvidia.com/gpu": "1"}}, "ports": [{"containerPort": 80, "hostPort": 80}]}],
            "tolerations": [{"operator": "Exists"}],
            "os": {"name": "linux"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}]}}},
        }))
        .unwrap();
        for template in [Template::default(), Template::read("default", &BTreeMap::new(), &spec)] {
            let text = serde_json::to_string(&template).unwrap();
            assert_eq!(serde_json::from_str::<Template>(&text).unwrap(), template);
        }
        assert_eq!(serde_json::from_str::<Template>("{}").unwrap(), Template::default());
    }
}
