//! What is compared, and the objects that each of them is. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Service;
use crate::scenario::{KANTAI_CLASS, KPA_CLASS};

const IMAGE: &str = "dev.local/kantai/hello:0.1.0";

/// The namespace of everything that is measured.
pub(super) const NAMESPACE: &str = "default";

/// By which a rival's pods are found.
const RIVAL_LABEL: &str = "app";

/// What a rival's pod asks for, and its HPA goes by.
const RIVAL_CPU: &str = "50m";

/// How long a rival's pod that ends goes on taking requests: until every kube-proxy knows.
const RIVAL_LINGERS_SECONDS: u32 = 5;

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    /// Kantai's class of autoscaler, and its ingress.
    Ours,
    /// The same with one pod kept warm: `placement.kantai.dev/warm: "1"`.
    Warm,
    /// Knative's own autoscaler (KPA), and an ingress that spreads evenly.
    Stock,
    /// No Knative: a Deployment with an HPA behind a Service that prefers pods of the same node.
    Rival,
}

impl Column {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Warm => "warm",
            Self::Stock => "stock",
            Self::Rival => "rival",
        }
    }

    /// The policy that our ingress has meanwhile. A rival's requests do not pass it.
    pub(super) fn policy(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::Warm => Some("locality"),
            Self::Stock => Some("spread"),
            Self::Rival => None,
        }
    }

    /// Whether it can have no pod at all: an HPA keeps one.
    pub(super) fn reaches_zero(self) -> bool {
        self != Self::Rival
    }

    /// By which the pods of a service of this name are found.
    pub(super) fn label(self, name: &str) -> (&'static str, String) {
        (if self == Self::Rival { RIVAL_LABEL } else { "serving.knative.dev/service" }, name.to_owned())
    }

    /// What is asked for.
    pub(super) fn url(self, name: &str) -> String {
        let port = if self == Self::Rival { ":8080" } else { "" };
        format!("http://{name}.{NAMESPACE}.svc.cluster.local{port}/")
    }

    /// The objects to apply.
    pub(super) fn objects(self, name: &str, service: &Service) -> Vec<Value> {
        match self {
            Self::Rival => rival(name, service),
            knative => vec![knative_service(knative, name, service)],
        }
    }
}

fn container(service: &Service) -> Value {
    let env = [("WAIT_MS", service.wait_ms), ("BUSY_MS", service.busy_ms), ("WORKS_ON", f64::from(service.works_on))];
    let mut all = vec![json!({ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } })];
    all.extend(env.map(|(name, value)| json!({ "name": name, "value": value.to_string() })));
    json!({ "image": IMAGE, "ports": [{ "containerPort": 8080 }], "env": all })
}

fn knative_service(column: Column, name: &str, service: &Service) -> Value {
    let mut annotations = json!({
        "autoscaling.knative.dev/class": if column == Column::Stock { KPA_CLASS } else { KANTAI_CLASS },
        "autoscaling.knative.dev/window": format!("{}s", service.window_seconds),
        "autoscaling.knative.dev/target": service.target.to_string(),
    });
    let bounds = [("min-scale", service.min_pods), ("max-scale", service.max_pods)];
    for (key, pods) in bounds.into_iter().filter(|(_, pods)| *pods > 0) {
        annotations[format!("autoscaling.knative.dev/{key}")] = json!(pods.to_string());
    }
    if column == Column::Warm {
        annotations["placement.kantai.dev/warm"] = json!("1");
    }
    let mut spec = json!({ "containers": [container(service)] });
    if service.container_concurrency > 0 {
        spec["containerConcurrency"] = json!(service.container_concurrency);
    }
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "template": { "metadata": { "annotations": annotations }, "spec": spec } },
    })
}

fn rival(name: &str, service: &Service) -> Vec<Value> {
    let labels = json!({ RIVAL_LABEL: name });
    let least = service.min_pods.max(1);
    let mut container = container(service);
    container["name"] = json!("user-container");
    container["resources"] = json!({ "requests": { "cpu": RIVAL_CPU } });
    container["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": RIVAL_LINGERS_SECONDS } } });
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": labels },
    }]);
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                // From here on the replicas are the HPA's.
                "replicas": least,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [container], "topologySpreadConstraints": spread },
                },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "selector": labels, "trafficDistribution": "PreferSameNode", "ports": [{ "port": 8080 }] },
        }),
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
                "minReplicas": least,
                "maxReplicas": if service.max_pods > 0 { service.max_pods } else { 100 },
                "metrics": [{ "type": "Resource", "resource": {
                    "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 },
                } }],
            },
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service { min_pods: 3, max_pods: 4, container_concurrency: 5, works_on: 5, wait_ms: 50.0, ..Service::default() }
    }

    #[test]
    fn all_columns_run_the_same_container_within_the_same_bounds() {
        let env = |object: &Value, at: &str| object.pointer(at).cloned().unwrap_or_default();
        let ours = &Column::Ours.objects("a", &service())[0];
        let stock = &Column::Stock.objects("a", &service())[0];
        let rival = Column::Rival.objects("a", &service());
        let of_ours = env(ours, "/spec/template/spec/containers/0/env");
        assert!(of_ours.to_string().contains(r#"{"name":"WAIT_MS","value":"50"}"#), "{of_ours}");
        assert_eq!(of_ours, env(stock, "/spec/template/spec/containers/0/env"));
        assert_eq!(of_ours, env(&rival[0], "/spec/template/spec/containers/0/env"));
        assert_eq!((&rival[2]["spec"]["minReplicas"], &rival[2]["spec"]["maxReplicas"]), (&json!(3), &json!(4)));
        assert_eq!(ours["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"], "4");
    }

    #[test]
    fn columns_differ_in_class_and_policy() {
        let class = |column: Column| {
            let object = column.objects("a", &service()).remove(0);
            object["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/class"].clone()
        };
        assert_eq!((class(Column::Ours), class(Column::Stock)), (json!(KANTAI_CLASS), json!(KPA_CLASS)));
        assert_eq!((Column::Ours.policy(), Column::Stock.policy()), (Some("locality"), Some("spread")));
        assert_eq!(Column::Rival.objects("a", &service())[1]["spec"]["trafficDistribution"], "PreferSameNode");
    }
}
