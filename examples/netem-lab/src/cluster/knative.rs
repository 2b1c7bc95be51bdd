//! Stock Knative Serving, as it is shipped: its own YAML, read from the folders of its Go modules,
//! with only the image names and an operator's usual settings changed. Pure functions from
//! documents to documents.

use serde_json::{Map, Value, json};

/// The file names below Serving's `config/core`, and those of its sibling modules that Serving's
/// own tree only links to.
pub(super) mod files {
    /// In Serving: definitions of its own kinds.
    pub(in crate::cluster) const SERVING_CRDS: &str = "config/core/300-resources";
    /// In Serving, one by one or as folders: what must be there before anything runs.
    pub(in crate::cluster) const SERVING_BASE: [&str; 4] = [
        "config/core/100-namespace.yaml",
        "config/core/200-roles",
        "config/core/200-serviceaccount.yaml",
        "config/core/configmaps",
    ];
    /// In Serving: the object that makes nodes fetch the queue-proxy's image early. Its kind is one
    /// of the caching module's.
    pub(in crate::cluster) const SERVING_CACHE: &str = "config/core/999-cache.yaml";
    /// In Serving: what guards its objects.
    pub(in crate::cluster) const SERVING_WEBHOOKS: &str = "config/core/webhooks";
    /// In Serving: the programs.
    pub(in crate::cluster) const SERVING_DEPLOYMENTS: [&str; 4] = [
        "config/core/deployments/activator.yaml",
        "config/core/deployments/autoscaler.yaml",
        "config/core/deployments/controller.yaml",
        "config/core/deployments/webhook.yaml",
    ];
    /// In networking: definitions of kinds.
    pub(in crate::cluster) const NETWORKING_CRDS: [&str; 4] =
        ["config/ingress.yaml", "config/serverlessservice.yaml", "config/certificate.yaml", "config/domain-claim.yaml"];
    /// In networking: its settings.
    pub(in crate::cluster) const NETWORKING_BASE: [&str; 1] = ["config/config-network.yaml"];
    /// In caching: definitions of kinds.
    pub(in crate::cluster) const CACHING_CRDS: [&str; 1] = ["config/image.yaml"];
}

/// A setting of Knative's: a key of one of its ConfigMaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The ConfigMap: `config-autoscaler`.
    pub config: String,
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What the operator of this cluster chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnativeSettings {
    /// The class of ingress for services that do not name one.
    pub(super) ingress_class: String,
    /// How many nodes there are, and so how many activators.
    pub(super) nodes: usize,
    /// The node for what exists once.
    pub(super) system_node: String,
    /// The queue-proxy's image.
    pub(super) queue_image: String,
    /// What else; these win over the lab's usual ones.
    pub(super) more: Vec<Setting>,
}

/// The settings, as changes to the shipped ConfigMaps. A later one wins.
fn config_edits(settings: &KnativeSettings) -> Vec<(&str, &str, String)> {
    let mut edits = vec![
        ("config-network", "ingress-class", settings.ingress_class.clone()),
        // Names below this domain are those by which services are called from outside.
        ("config-domain", "example.com", String::new()),
        ("config-autoscaler", "allow-zero-initial-scale", "true".to_owned()),
        // The shortest that Knative allows: a run need not wait for the usual half minute.
        ("config-autoscaler", "scale-to-zero-grace-period", "6s".to_owned()),
        // A function may know the node that it runs on.
        ("config-features", "kubernetes.podspec-fieldref", "enabled".to_owned()),
        // And choose nodes.
        ("config-features", "kubernetes.podspec-nodeselector", "enabled".to_owned()),
        ("config-deployment", "queue-sidecar-image", settings.queue_image.clone()),
        // A pod that cannot start is reported after two minutes instead of ten.
        ("config-deployment", "progress-deadline", "120s".to_owned()),
        // Many pods share few cores; what a pod asks for decides only where it may be put.
        ("config-deployment", "queue-sidecar-cpu-request", "10m".to_owned()),
        ("config-deployment", "queue-sidecar-memory-request", "16Mi".to_owned()),
    ];
    edits.extend(settings.more.iter().map(|more| (more.config.as_str(), more.key.as_str(), more.value.clone())));
    edits
}

/// Changes the shipped ConfigMaps to the settings. Others pass through.
pub(super) fn apply_settings(documents: &mut [Value], settings: &KnativeSettings) {
    let edits = config_edits(settings);
    for document in documents.iter_mut().filter(|document| document["kind"] == "ConfigMap") {
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        for (_, key, value) in edits.iter().filter(|(config, ..)| *config == name) {
            let Some(fields) = document.as_object_mut() else { continue };
            let data = fields.entry("data").or_insert_with(|| Value::Object(Map::new()));
            data[*key] = json!(value);
        }
    }
}

/// Places the programs: an activator on every node, everything else once, on the system node; and
/// asks for little.
pub(super) fn place_deployments(documents: &mut [Value], settings: &KnativeSettings) {
    for document in documents.iter_mut().filter(|document| document["kind"] == "Deployment") {
        let labels = document["spec"]["selector"]["matchLabels"].clone();
        if document["metadata"]["name"] == "activator" {
            document["spec"]["replicas"] = json!(settings.nodes);
            document["spec"]["template"]["spec"]["affinity"] = json!({
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [{
                        "labelSelector": { "matchLabels": labels },
                        "topologyKey": "kubernetes.io/hostname",
                    }],
                },
            });
            // With a pod on every node and none to spare, one must go before its successor can
            // come.
            document["spec"]["strategy"] =
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } });
        } else {
            document["spec"]["template"]["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": settings.system_node });
        }
        if let Some(containers) = document["spec"]["template"]["spec"]["containers"].as_array_mut() {
            for container in containers {
                container["resources"]["requests"] = json!({ "cpu": "10m", "memory": "50Mi" });
            }
        }
    }
}

/// Puts everything in a Deployment on one node.
pub(super) fn pin_deployments(documents: &mut [Value], node: &str) {
    for document in documents.iter_mut().filter(|document| document["kind"] == "Deployment") {
        document["spec"]["template"]["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    }
}

/// Replaces every text, wherever it stands, for which `image` knows an image. Returns the
/// placeholders it does not know.
pub(super) fn replace_images(value: &mut Value, image: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    match value {
        Value::String(text) if text.starts_with("ko://") || text.starts_with("component://") => match image(text) {
            Some(found) => {
                *text = found;
                Vec::new()
            }
            None => vec![text.clone()],
        },
        Value::Array(items) => items.iter_mut().flat_map(|item| replace_images(item, image)).collect(),
        Value::Object(fields) => fields.values_mut().flat_map(|field| replace_images(field, image)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KnativeSettings {
        KnativeSettings {
            ingress_class: "an.ingress".to_owned(),
            nodes: 3,
            system_node: "kobe".to_owned(),
            queue_image: "dev.local/lab/queue:1".to_owned(),
            more: Vec::new(),
        }
    }

    #[test]
    fn what_a_run_asks_for_wins_over_the_labs_usual_settings() {
        let setting = |key: &str, value: &str| Setting {
            config: "config-autoscaler".to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let more = vec![setting("scale-to-zero-grace-period", "30s"), setting("pod-autoscaler-class", "a.class")];
        let mut documents = [json!({ "kind": "ConfigMap", "metadata": { "name": "config-autoscaler" } })];
        apply_settings(&mut documents, &KnativeSettings { more, ..settings() });
        let data = &documents[0]["data"];
        assert_eq!((&data["scale-to-zero-grace-period"], &data["pod-autoscaler-class"]), (&json!("30s"), &json!("a.class")));
    }

    #[test]
    fn settings_are_written_over_what_was_shipped_also_where_there_was_nothing() {
        let mut documents = [
            json!({ "kind": "ConfigMap", "metadata": { "name": "config-network" }, "data": { "_example": "x" } }),
            json!({ "kind": "ConfigMap", "metadata": { "name": "config-domain" } }),
            json!({ "kind": "Secret", "metadata": { "name": "config-domain" } }),
        ];
        apply_settings(&mut documents, &settings());
        assert_eq!(documents[0]["data"], json!({ "_example": "x", "ingress-class": "an.ingress" }));
        assert_eq!(documents[1]["data"], json!({ "example.com": "" }));
        assert_eq!(documents[2].get("data"), None);
    }

    #[test]
    fn activators_are_one_per_node_and_the_rest_on_the_system_node() {
        let deployment = |name: &str| {
            json!({
                "kind": "Deployment",
                "metadata": { "name": name },
                "spec": {
                    "selector": { "matchLabels": { "app": name } },
                    "template": { "spec": { "containers": [{ "resources": { "requests": { "cpu": "300m" }, "limits": { "cpu": "1" } } }] } },
                },
            })
        };
        let mut documents = [deployment("activator"), deployment("controller")];
        place_deployments(&mut documents, &settings());
        assert_eq!(documents[0]["spec"]["replicas"], 3);
        let anti = &documents[0]["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
        assert_eq!(anti["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]["matchLabels"]["app"], "activator");
        assert_eq!(documents[1]["spec"].get("replicas"), None);
        assert_eq!(documents[1]["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/hostname"], "kobe");
        let resources = &documents[1]["spec"]["template"]["spec"]["containers"][0]["resources"];
        assert_eq!(resources, &json!({ "requests": { "cpu": "10m", "memory": "50Mi" }, "limits": { "cpu": "1" } }));
    }

    #[test]
    fn images_are_replaced_wherever_they_stand_and_unknown_ones_named() {
        let mut document = json!({ "spec": [{ "image": "ko://a" }, { "image": "plain" }], "data": { "q": "component://b" } });
        let unknown = replace_images(&mut document, &|name| (name == "ko://a").then(|| "dev.local/a:1".to_owned()));
        assert_eq!(
            document,
            json!({ "spec": [{ "image": "dev.local/a:1" }, { "image": "plain" }], "data": { "q": "component://b" } })
        );
        assert_eq!(unknown, ["component://b"]);
    }
}
