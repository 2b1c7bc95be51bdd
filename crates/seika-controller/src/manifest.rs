//! The pod that is asked of the API server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

use crate::naming::node_label;
use k8s_api::seika::{NODE_ANNOTATION, NODE_LABEL, PodTemplate, REVISION_LABEL};

/// The labels of a Seika's pods, but for the node's: those that the selector wants, and the
/// template's own.
#[must_use]
pub fn labels(match_labels: &BTreeMap<String, String>, template: &PodTemplate) -> BTreeMap<String, String> {
    let mut labels = match_labels.clone();
    labels.extend(template.metadata.labels.clone());
    labels
}

/// The pod `name` for `node`: the template, tied to the node, with the owner.
#[must_use]
pub fn pod(
    name: &str,
    node: &str,
    revision: &str,
    labels: &BTreeMap<String, String>,
    template: &PodTemplate,
    owner: &OwnerReference,
) -> Value {
    let mut labels = labels.clone();
    let label = node_label(node);
    let mut annotations = template.metadata.annotations.clone();
    // A template that was copied from a pod may name another node, and the pod would be taken for
    // that node's.
    annotations.remove(NODE_ANNOTATION);
    if label != node {
        annotations.insert(NODE_ANNOTATION.to_owned(), node.to_owned());
    }
    labels.insert(NODE_LABEL.to_owned(), label);
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let mut spec = template.spec.clone();
    tie_to_node(&mut spec, node);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels, "annotations": annotations, "ownerReferences": [owner] },
        "spec": spec,
    })
}

/// Requires `node`, beside whatever the template requires already. The name of the Node object is
/// what counts: its host name label may differ or be missing. `spec.nodeName` would pass over the
/// scheduler, and with it over taints and resources, so it is dropped.
fn tie_to_node(spec: &mut Map<String, Value>, node: &str) {
    spec.remove("nodeName");
    let this_node = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let path = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let required = path.into_iter().try_fold(spec, |object, key| child(object, key, json!({}))?.as_object_mut());
    // What has the wrong type is left as it is: the API server then says so, which is better than a
    // guess.
    let Some(terms) = required.and_then(|required| child(required, "nodeSelectorTerms", json!([]))?.as_array_mut()) else {
        return;
    };
    if terms.is_empty() {
        terms.push(json!({ "matchFields": [this_node] }));
        return;
    }
    // Terms are alternatives, so each of them has to say it. A term that says nothing matches no
    // node, and would match this one if anything were added to it.
    for term in terms.iter_mut().filter_map(Value::as_object_mut).filter(|term| says_something(term)) {
        if let Some(fields) = child(term, "matchFields", json!([])).and_then(Value::as_array_mut) {
            fields.push(this_node.clone());
        }
    }
}

/// The value of `key`, which is made `empty` if it is not there.
fn child<'a>(object: &'a mut Map<String, Value>, key: &str, empty: Value) -> Option<&'a mut Value> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = empty;
    }
    Some(value)
}

fn says_something(term: &Map<String, Value>) -> bool {
    ["matchExpressions", "matchFields"]
        .iter()
        .any(|key| term.get(*key).and_then(Value::as_array).is_some_and(|list| !list.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tied(value: Value) -> Value {
        let Value::Object(mut spec) = value else { panic!("a spec is an object") };
        tie_to_node(&mut spec, "node1");
        Value::Object(spec)
    }

    fn required(terms: &Value) -> Value {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
    }

    fn this_node() -> Value {
        json!({ "key": "metadata.name", "operator": "In", "values": ["node1"] })
    }

    #[test]
    fn a_plain_pod_is_tied_to_its_node_by_name() {
        assert_eq!(tied(json!({})), required(&json!([{ "matchFields": [this_node()] }])));
        assert_eq!(tied(json!({ "affinity": null })), required(&json!([{ "matchFields": [this_node()] }])));
    }

    #[test]
    fn every_alternative_of_the_template_is_kept_and_narrowed() {
        let ssd = json!({ "key": "disk", "operator": "In", "values": ["ssd"] });
        let field = json!({ "key": "metadata.name", "operator": "NotIn", "values": ["node9"] });
        let terms = json!([{ "matchExpressions": [ssd] }, { "matchFields": [field] }]);
        let wanted = json!([
            { "matchExpressions": [ssd], "matchFields": [this_node()] },
            { "matchFields": [field, this_node()] },
        ]);
        assert_eq!(tied(required(&terms)), required(&wanted));
    }

    #[test]
    fn a_term_that_matches_nothing_goes_on_matching_nothing() {
        assert_eq!(tied(required(&json!([{}]))), required(&json!([{}])));
    }

    #[test]
    fn other_wishes_of_the_template_stay() {
        let template = json!({
            "nodeSelector": { "zone": "a" },
            "nodeName": "node7",
            "affinity": {
                "podAntiAffinity": { "x": 1 },
                "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [1] },
            },
        });
        let pod = tied(template);
        assert_eq!(pod["nodeSelector"], json!({ "zone": "a" }));
        assert_eq!(pod["affinity"]["podAntiAffinity"], json!({ "x": 1 }));
        assert_eq!(pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"], json!([1]));
        assert_eq!(pod.get("nodeName"), None);
    }

    #[test]
    fn labels_are_those_of_selector_template_node_and_revision() {
        let mut template = PodTemplate::default();
        template.metadata.labels.insert("tier".into(), "front".into());
        let labels = labels(&[("app".to_owned(), "hello".to_owned())].into(), &template);
        let pod = pod("hello-node1-x", "node1", "rev", &labels, &template, &OwnerReference::default());
        let wanted = json!({ "app": "hello", "tier": "front", NODE_LABEL: "node1", REVISION_LABEL: "rev" });
        assert_eq!(pod["metadata"]["labels"], wanted);
        assert_eq!(pod["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn a_node_that_the_template_names_in_our_annotation_is_not_the_pods() {
        let mut template = PodTemplate::default();
        template.metadata.annotations.insert(NODE_ANNOTATION.into(), "node9".into());
        template.metadata.annotations.insert("other".into(), "stays".into());
        let pod = pod("p", "node1", "rev", &BTreeMap::new(), &template, &OwnerReference::default());
        assert_eq!(pod["metadata"]["annotations"], json!({ "other": "stays" }));
    }

    #[test]
    fn a_node_name_too_long_for_a_label_is_kept_in_an_annotation() {
        let node = "n".repeat(100);
        let template = PodTemplate::default();
        let pod = pod("p", &node, "rev", &BTreeMap::new(), &template, &OwnerReference::default());
        assert_eq!(pod["metadata"]["annotations"][NODE_ANNOTATION], json!(node));
        assert_eq!(pod["metadata"]["labels"][NODE_LABEL], json!(node_label(&node)));
    }
}
