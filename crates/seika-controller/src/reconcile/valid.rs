//! A Seika that can be acted on, and what follows from its spec.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::core::{Expression, Selector, SelectorExt as _};

use crate::index::Owner;
use crate::manifest;
use crate::naming::revision;
use crate::plan::{Create, DesiredPods};
use crate::taints::Tolerations;
use k8s_api::seika::{OWN_KEYS, Rollout, Seika};

/// A Seika that passed validation, and what follows from its spec.
pub(super) struct Valid<'a> {
    pub(super) seika: &'a Seika,
    pub(super) owner: Owner,
    pub(super) reference: ObjectReference,
    pub(super) owner_reference: OwnerReference,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) selector: Selector,
    /// The selector as the API server's lists take it.
    pub(super) selector_text: String,
    pub(super) revision: String,
    pub(super) rollout: Rollout,
    tolerations: Tolerations,
    /// How many pods all nodes together are to have.
    pub(super) total: i32,
}

impl Valid<'_> {
    pub(super) fn asked(&self) -> DesiredPods<'_> {
        DesiredPods {
            seika: &self.owner.name,
            uid: &self.owner.uid,
            counts: &self.seika.spec.repurika,
            revision: &self.revision,
            rollout: &self.rollout,
            min_ready: SignedDuration::from_secs(self.seika.spec.min_ready_seconds.into()),
            tolerations: &self.tolerations,
        }
    }

    pub(super) fn manifest(&self, create: &Create) -> serde_json::Value {
        manifest::pod(&create.name, &create.node, &self.revision, &self.labels, &self.seika.spec.template, &self.owner_reference)
    }
}

pub(crate) fn owner_of(seika: &impl kube::Resource<DynamicType = ()>) -> Option<Owner> {
    let metadata = seika.meta();
    Some(Owner { uid: metadata.uid.clone()?, namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
}

/// What the API server's own validation cannot see, or did not when the object was stored.
pub(super) fn validate(seika: &Seika) -> Result<Valid<'_>, String> {
    let owner = owner_of(seika).ok_or("it has no UID")?;
    let selector = Selector::try_from(seika.spec.selector.clone()).map_err(|error| format!("its selector: {error}"))?;
    // The value of such a label is another one on each pod: the selector would match some and not
    // others.
    if let Some(key) = selector.clone().into_iter().find_map(|expression| own_key(&expression)) {
        return Err(format!("its selector names the label {key}, which this controller gives to the pods"));
    }
    let match_labels = seika.spec.selector.match_labels.clone().unwrap_or_default();
    let labels = manifest::labels(&match_labels, &seika.spec.template);
    if !selector.matches(&labels) {
        return Err("its selector does not match the labels of its own template".to_owned());
    }
    let owner_reference = seika.controller_owner_ref(&()).ok_or("it has no name")?;
    Ok(Valid {
        seika,
        owner,
        reference: seika.object_ref(&()),
        owner_reference,
        labels,
        selector_text: selector.to_string(),
        selector,
        revision: revision(&seika.spec.template),
        rollout: seika.spec.rollout.clone().unwrap_or_default(),
        tolerations: Tolerations::of(&seika.spec.template),
        total: seika.spec.total(),
    })
}

fn own_key(expression: &Expression) -> Option<&'static str> {
    let (Expression::In(key, _)
    | Expression::NotIn(key, _)
    | Expression::Equal(key, _)
    | Expression::NotEqual(key, _)
    | Expression::Exists(key)
    | Expression::DoesNotExist(key)) = expression;
    OWN_KEYS.into_iter().find(|own| own == key)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use k8s_api::seika::{NODE_LABEL, REVISION_LABEL};

    fn seika(selector: &serde_json::Value) -> Seika {
        let spec = json!({ "repurika": { "node1": 1, "node2": 2 }, "selector": selector,
            "template": { "metadata": { "labels": { "tier": "front", NODE_LABEL: "node1", REVISION_LABEL: "rev" } },
                "spec": { "containers": [] } } });
        let metadata = json!({ "name": "hello", "namespace": "default", "uid": "uid" });
        let seika = json!({ "apiVersion": "batch.bonavadeur.io/v1", "kind": "Seika", "metadata": metadata, "spec": spec });
        serde_json::from_value(seika).unwrap()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({ "matchLabels": { "app": "hello" }, "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
    }

    /// The API server refuses these, but may hold some from before it did.
    #[rstest]
    #[case::does_not_match_the_template(json!({ "matchLabels": { "tier": "back" } }))]
    #[case::unknown_operator(expression("tier", "Resembles", &[]))]
    #[case::does_not_exist_but_does(expression("tier", "DoesNotExist", &[]))]
    #[case::node_label(json!({ "matchLabels": { "app": "hello", NODE_LABEL: "node1" } }))]
    #[case::revision_label(json!({ "matchLabels": { "app": "hello", REVISION_LABEL: "rev" } }))]
    #[case::node_label_of_the_template(expression(NODE_LABEL, "Exists", &[]))]
    #[case::one_of_the_nodes(expression(NODE_LABEL, "In", &["node1"]))]
    #[case::not_one_of_the_nodes(expression(NODE_LABEL, "NotIn", &["node2"]))]
    fn a_seika_whose_pods_would_not_be_its_own_is_not_acted_on(#[case] selector: serde_json::Value) {
        assert!(validate(&seika(&selector)).is_err());
    }

    #[rstest]
    #[case::labels(json!({ "matchLabels": { "app": "hello" } }), "app=hello")]
    #[case::label_of_the_autoscaler(json!({ "matchLabels": { "bonavadeur.io/seika": "hello" } }), "bonavadeur.io/seika=hello")]
    #[case::expression(expression("tier", "In", &["front", "back"]), "tier in (back,front),app=hello")]
    fn what_matches_the_pods_to_be_is_acted_on(#[case] selector: serde_json::Value, #[case] text: &str) {
        let seika = seika(&selector);
        let valid = validate(&seika).map_err(|problem| panic!("{problem}")).unwrap();
        let (mut parts, mut wanted): (Vec<_>, Vec<_>) = (valid.selector_text.split(',').collect(), text.split(',').collect());
        parts.sort_unstable();
        wanted.sort_unstable();
        assert_eq!((parts, valid.total), (wanted, 3));
    }
}
