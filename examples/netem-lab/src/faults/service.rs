//! The service that is under load while things fail.

use serde_json::{Value, json};

use super::lab::SERVES;
use crate::scenario::KANTAI_CLASS;

pub(super) const NAMESPACE: &str = "default";
pub(super) const NAME: &str = "steadfast";

/// How many pods it always has: more than one, so that one can be lost to a node.
pub(super) const PODS: usize = 2;

/// By which pods of it are found.
pub(super) fn label() -> String {
    format!("serving.knative.dev/service={NAME}")
}

pub(super) fn url() -> String {
    format!("http://{NAME}.{NAMESPACE}.svc.cluster.local/")
}

/// The object to apply.
pub(super) fn object() -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": { "template": {
            "metadata": { "annotations": {
                "autoscaling.knative.dev/class": KANTAI_CLASS,
                "autoscaling.knative.dev/min-scale": PODS.to_string(),
                "autoscaling.knative.dev/window": "12s",
                "autoscaling.knative.dev/target": "10",
            } },
            "spec": {
                "nodeSelector": { SERVES: "yes" },
                "containers": [{
                    "image": "dev.local/kantai/hello:0.1.0",
                    "ports": [{ "containerPort": 8080 }],
                    "env": [{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
                }],
            },
        } },
    })
}
