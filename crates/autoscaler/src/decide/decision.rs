//! What a decision is.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_link::RevisionKey;
use k8s_api::{PodAutoscalerStatus, ServingMode};
use latency_matrix::NodeName;
use placement::problem::ProblemError;
use serde::Serialize;

use crate::handback::BackStep;
use crate::place::{GoalState, RevisionPlacement};
use crate::rollout::Step;
use crate::routes::Routes;
use crate::warm::Outlook;

/// The desired state of one revision.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The revision.
    pub key: RevisionKey,
    /// UID of its PodAutoscaler.
    pub uid: String,
    /// The Knative Service that it belongs to.
    pub service: String,
    /// Desired mode of the ServerlessService: through the activators, or to the pods.
    pub mode: ServingMode,
    /// The next status of the PodAutoscaler.
    pub status: PodAutoscalerStatus,
    /// Desired counts of Seika and Deployment; `None` leaves both as they are.
    pub step: Option<Step>,
    /// The next step of the hand-back to the stock class, where that is under way.
    pub back: Option<BackStep>,
    /// Desired pods per node, and pods that found no node.
    pub target: RevisionPlacement,
    /// The demand that they were placed by, per source node in name order.
    pub demand: Arc<[(NodeName, f64)]>,
    /// Which way each node's requests go; `None` while no pod is ready.
    pub routes: Option<Arc<Routes>>,
    /// Whether to probe the public Service for an activator.
    pub probe_activator: bool,
    /// How the number of pods came about.
    pub count: Count,
    /// Where the next request is likely to come from, of a revision that asks for warm pods; empty
    /// where nothing is known of earlier demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// Whether the goal for the response time can be met; `None` without a goal or steady demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<GoalState>,
}

/// How the number of pods came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Count {
    /// Desired pods; `None` if unknown.
    pub want: Option<u32>,
    /// Pods that are ready.
    pub ready: u32,
    /// Demand over the stable window, in the metric's unit, where known.
    pub stable_demand: Option<f64>,
    /// Demand over the panic window, in the metric's unit, where known.
    pub panic_demand: Option<f64>,
    /// The result of the KPA's formulae before bounds; `None` without data.
    pub asked: Option<u32>,
    /// Pods that source nodes have earned ([`earned`](crate::earned)).
    pub earned: BTreeMap<NodeName, u32>,
    /// Whether the panic window rules.
    pub is_panicking: bool,
}

/// A decision that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to place revision {key}")]
pub struct DecideError {
    /// The revision.
    pub key: RevisionKey,
    /// Why.
    #[source]
    pub source: ProblemError,
}
