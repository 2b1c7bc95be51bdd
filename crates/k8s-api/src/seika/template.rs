//! A pod template, kept as written.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What each pod of a Seika looks like. The spec is plain JSON, so that fields this program does
/// not know are not lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Labels and annotations.
    #[serde(skip_serializing_if = "TemplateMeta::is_empty")]
    pub metadata: TemplateMeta,
    /// The pod's spec.
    pub spec: Map<String, Value>,
}

/// The metadata that pods get from their template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMeta {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

impl From<PodTemplateSpec> for PodTemplate {
    fn from(template: PodTemplateSpec) -> Self {
        let metadata = template.metadata.unwrap_or_default();
        let spec = match template.spec.map(serde_json::to_value) {
            Some(Ok(Value::Object(spec))) => spec,
            // A PodSpec has string keys only and serialises to an object, always; no spec is an
            // empty one.
            _ => Map::new(),
        };
        Self {
            metadata: TemplateMeta {
                labels: metadata.labels.unwrap_or_default(),
                annotations: metadata.annotations.unwrap_or_default(),
            },
            spec,
        }
    }
}
