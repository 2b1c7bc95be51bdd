//! ServerlessService: whether a revision's public Service leads to its pods or to the activators.

#[cfg(feature = "objects")]
use k8s_openapi::api::core::v1::ObjectReference;
#[cfg(feature = "objects")]
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionStatus};

/// What the autoscaler class asks of Knative's networking.
#[cfg(feature = "objects")]
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.internal.knative.dev",
    version = "v1alpha1",
    kind = "ServerlessService",
    plural = "serverlessservices",
    namespaced,
    status = "ServerlessServiceStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceSpec {
    /// Where the public Service leads.
    #[serde(default)]
    pub mode: ServingMode,
    /// The Deployment; its selector becomes that of the private Service.
    #[serde(default)]
    pub object_ref: ObjectReference,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
    /// How many activators; 0 is all of them, which lets every gateway use the one on its own node.
    #[serde(default)]
    pub num_activators: i32,
}

/// Where a revision's public Service leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServingMode {
    /// To the activators.
    Proxy,
    /// To the pods, while any is ready. Also what a word means that we do not know.
    #[default]
    #[serde(other)]
    Serve,
}

/// What Knative's networking answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceStatus {
    /// Generation of the object that this answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, EndpointsPopulated, ActivatorEndpointsPopulated.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The public Service.
    #[serde(default)]
    pub service_name: String,
    /// The private Service.
    #[serde(default)]
    pub private_service_name: String,
}

impl ServerlessServiceStatus {
    /// Ready.
    pub const READY: &'static str = "Ready";
    /// The public Service leads to activators.
    pub const ACTIVATORS: &'static str = "ActivatorEndpointsPopulated";

    /// The condition of that type, where it is True.
    #[must_use]
    pub fn holds(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind && condition.status == ConditionStatus::True)
    }
}
