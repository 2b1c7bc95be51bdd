//! PodAutoscaler: Knative's request for pods, one per revision.

#[cfg(feature = "objects")]
use k8s_openapi::api::core::v1::ObjectReference;
#[cfg(feature = "objects")]
use kube::{CustomResource, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionStatus};
#[cfg(feature = "objects")]
use crate::names::{CLASS_ANNOTATION, STOCK_CLASS};

/// What Knative asks for.
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
    /// How many requests one pod may serve at once; 0 is no limit.
    #[serde(default)]
    pub container_concurrency: i64,
    /// The Deployment whose pods serve the revision.
    pub scale_target_ref: ObjectReference,
    /// Whether some Route leads to the revision.
    #[serde(default)]
    pub reachability: Reachability,
    /// `http1` or `h2c`.
    pub protocol_type: String,
}

/// Whether a revision can be reached through some Route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reachability {
    /// Knative did not say yet; treated as reachable.
    #[default]
    #[serde(rename = "")]
    Unknown,
    /// Some Route leads here.
    Reachable,
    /// None does: only what is in flight is still to be served.
    Unreachable,
}

/// What the class's reconciler answers. Written through the status subresource, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerStatus {
    /// Generation of the object that this answers.
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
    /// Pods wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_scale: Option<i32>,
    /// Pods ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_scale: Option<i32>,
}

impl PodAutoscalerStatus {
    /// Traffic can be served.
    pub const ACTIVE: &'static str = "Active";
    /// All of the others.
    pub const READY: &'static str = "Ready";
    /// The ServerlessService is ready and up to date.
    pub const SKS_READY: &'static str = "SKSReady";
    /// The first pods were ready once; never reverts.
    pub const INITIALIZED: &'static str = "ScaleTargetInitialized";

    /// The condition of that type.
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
    /// The class it is of; the stock one where none is named.
    #[must_use]
    pub fn class(&self) -> &str {
        self.annotations().get(CLASS_ANNOTATION).map_or(STOCK_CLASS, String::as_str)
    }
}
