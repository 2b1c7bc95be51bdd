//! The scenario's Knative Service as an object. Pure.

use serde_json::{Value, json};

use crate::scenario::Service;

/// The object to apply.
pub(super) fn knative_service(service: &Service) -> Value {
    let mut env = vec![json!({ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } })];
    env.extend(
        service.env.iter().filter(|(name, _)| *name != "NODE_NAME").map(|(name, value)| json!({ "name": name, "value": value })),
    );
    let mut container = json!({ "image": service.image, "ports": [{ "containerPort": 8080 }], "env": env });
    if !service.args.is_empty() {
        container["args"] = json!(service.args);
    }
    let mut spec = json!({ "containers": [container] });
    if service.container_concurrency > 0 {
        spec["containerConcurrency"] = json!(service.container_concurrency);
    }
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": { "name": service.name, "namespace": service.namespace },
        "spec": { "template": {
            "metadata": { "annotations": {
                "autoscaling.knative.dev/class": service.class,
                "autoscaling.knative.dev/window": format!("{}s", service.window_seconds),
                "autoscaling.knative.dev/target": service.target.to_string(),
            } },
            "spec": spec,
        } },
    })
}

/// By which programs in the cluster reach it.
pub(super) fn url(service: &Service, path: &str) -> String {
    format!("http://{}.{}.svc.cluster.local{path}", service.name, service.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{DEFAULT_SCENARIO, Overrides, Scenario};

    #[test]
    fn the_default_scenario_asks_for_what_the_manifest_shows() {
        let scenario = Scenario::from_text(DEFAULT_SCENARIO, "built in", &Overrides::default()).unwrap();
        let manifest: Value = serde_saphyr::from_str(include_str!("../../../manifests/hello.yaml")).unwrap();
        assert_eq!(knative_service(&scenario.service), manifest);
    }

    #[test]
    fn arguments_environment_and_limits_are_passed_on() {
        let text = r#"name = "x"
nodes = { count = 1 }
[service]
name = "greeter"
namespace = "shop"
image = "i"
args = ["--loud"]
env = { MOOD = "good", NODE_NAME = "ignored" }
container_concurrency = 5
target = 2.5
"#;
        let scenario = Scenario::from_text(text, "x", &Overrides::default()).unwrap();
        let object = knative_service(&scenario.service);
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!(spec["containerConcurrency"], 5);
        assert_eq!(spec["containers"][0]["args"], json!(["--loud"]));
        assert_eq!(spec["containers"][0]["env"].as_array().unwrap().len(), 2);
        assert_eq!(object["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/target"], "2.5");
        assert_eq!(url(&scenario.service, "/?a=b"), "http://greeter.shop.svc.cluster.local/?a=b");
    }
}
