//! PodAutoscaler: Knative's request for pods, one per revision.

#[cfg(feature = "objects")]
use k8s_openapi::api::core::v1::ObjectReference;
#[cfg(feature = "objects")]
use kube::{CustomResource, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionStatus};
#[cfg(feature = "objects")]
use crate::names::{CLASS_ANNOTATION, STOCK_CLASS};

/// The specification.
#[cfg(feature = "objects")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.internal.knative.dev",
    version = "v1alpha1",
    kind = "PodAutoscaler",
    plural = "podautoscalers",
    namespaced,
    status = "PodAutoscalerStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerSpec {
    /// The maximum of concurrent requests of a pod; 0 means no limit.
    #[serde(default)]
    pub container_concurrency: i64,
    /// The Deployment whose pods serve the revision.
    #[serde(default)]
    pub scale_target_ref: ObjectReference,
    /// Whether any Route refers to the revision.
    #[serde(default)]
    pub reachability: Reachability,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
}

/// Whether any Route refers to a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reachability {
    /// A Route refers to it.
    Reachable,
    /// No Route does: only requests in flight still need pods.
    Unreachable,
    /// Not decided yet, or a word that we do not know; treated as reachable.
    #[default]
    #[serde(rename = "", other)]
    Unknown,
}

/// The status, replaced as a whole through the status subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerStatus {
    /// The observed generation.
    #[serde(default)]
    pub observed_generation: i64,
    /// Active, Ready, SKSReady, ScaleTargetInitialized.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The public Service.
    #[serde(default)]
    pub service_name: String,
    /// The private Service.
    #[serde(default)]
    pub metrics_service_name: String,
    /// Desired pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_scale: Option<i32>,
    /// Ready pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_scale: Option<i32>,
}

impl PodAutoscalerStatus {
    /// The revision can serve traffic.
    pub const ACTIVE: &'static str = "Active";
    /// All other conditions are True.
    pub const READY: &'static str = "Ready";
    /// The ServerlessService is ready and up to date.
    pub const SKS_READY: &'static str = "SKSReady";
    /// The first pods were ready once; it never reverts.
    pub const INITIALIZED: &'static str = "ScaleTargetInitialized";

    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether the first pods were ready once.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.condition(Self::INITIALIZED).is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

#[cfg(feature = "objects")]
impl PodAutoscaler {
    /// Its class; the stock class if it names none.
    #[must_use]
    pub fn class(&self) -> &str {
        self.annotations().get(CLASS_ANNOTATION).map_or(STOCK_CLASS, String::as_str)
    }
}

#[cfg(feature = "objects")]
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One that cannot be read would keep all others from being listed.
    #[test]
    fn what_other_classes_or_later_releases_write_is_read_all_the_same() {
        let object = json!({
            "metadata": {"name": "other-00001"},
            "spec": {"reachability": "Perhaps"},
            "status": {"conditions": [{"type": "Active", "status": "Maybe"}]},
        });
        let read: PodAutoscaler = serde_json::from_value(object).unwrap();
        assert_eq!(read.spec.reachability, Reachability::Unknown);
        assert_eq!(read.status.unwrap_or_default().conditions[0].status, ConditionStatus::Unknown);
        assert_eq!(serde_json::to_value(Reachability::Unknown).unwrap(), "");
        let object = json!({"metadata": {"name": "other-00001"}, "spec": {"mode": ""}});
        let read: crate::ServerlessService = serde_json::from_value(object).unwrap();
        assert_eq!(read.spec.mode, crate::ServingMode::Serve);
    }
}
