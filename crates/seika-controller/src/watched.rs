//! Pods as the watch reads them. Most of a pod, above all its managed fields, is skipped while it
//! is parsed: building all of it for thousands of pods, only to drop it, would be most of the cost
//! of watching them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// A pod, as far as it is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedPod {
    /// Without its managed fields.
    #[serde(deserialize_with = "metadata")]
    pub(crate) metadata: ObjectMeta,
    /// Where it is.
    pub(crate) spec: WatchedPodSpec,
    /// How it is.
    pub(crate) status: Option<PodStatus>,
}

/// Of what is asked of a pod, what is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WatchedPodSpec {
    /// The node that it is bound to.
    pub(crate) node_name: Option<String>,
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        labels: read.labels,
        annotations: read.annotations,
        owner_references: read.owner_references,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "hello-node1-x", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:30Z",
                "labels": { "app": "hello" }, "annotations": { "a": "b" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Seika", "name": "hello", "uid": "s", "controller": true }],
                "managedFields": [{ "manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": {} } }],
            },
            "spec": { "nodeName": "node1", "containers": [{ "name": "hello" }] },
            "status": { "phase": "Running" },
        })
    }

    #[test]
    fn what_is_looked_at_is_what_the_whole_pod_has() {
        let watched: WatchedPod = serde_json::from_value(whole()).unwrap();
        let pod: Pod = serde_json::from_value(whole()).unwrap();
        assert_eq!(watched.metadata, ObjectMeta { managed_fields: None, ..pod.metadata });
        assert_eq!(watched.spec.node_name, pod.spec.and_then(|spec| spec.node_name));
        assert_eq!(watched.status, pod.status);
    }
}
