//! The inputs of decisions: plain data, gathered once a tick.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use jiff::Timestamp;
use k8s_api::{PodAutoscalerStatus, Reachability, ServerlessServiceStatus, ServingMode};
use latency_matrix::NodeName;
use placement::CostMatrix;
use placement::problem::CostModel;
use serde::{Deserialize, Serialize};

use crate::kpa::SourceDemand;
use crate::rollout::{Counts, Pod};
use crate::room::{NodeRoom, Resources, Template};
use crate::settings::RevisionSettings;

/// One instant on two clocks: the one that conditions record, and the one that windows are
/// measured by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since some fixed instant; it never jumps.
    pub monotonic: Duration,
}

impl Now {
    /// The second that demand is recorded under.
    #[must_use]
    pub fn second(self) -> u64 {
        self.monotonic.as_secs()
    }
}

/// Everything that one tick decides on.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it was gathered.
    pub now: Now,
    /// The nodes and what lies between them.
    pub network: Arc<Network>,
    /// The nodes' room, in the order of [`Network::nodes`].
    pub room: Arc<Vec<NodeRoom>>,
    /// Every revision of this class. A revision that is missing here is forgotten.
    pub revisions: BTreeMap<RevisionKey, Inputs>,
}

/// The nodes in name order and what a request between two of them costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Counts the changes.
    pub version: u64,
    /// Cost of every ordered pair of nodes in seconds; its node list is in name order.
    pub costs: CostMatrix,
    /// How gateways choose a pod.
    pub model: CostModel,
}

impl Network {
    /// The nodes, in name order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        self.costs.nodes()
    }
}

/// Everything that the decision about one revision depends on, beside [`Network`], room and what
/// earlier decisions left in [`Memory`](crate::Memory). It is what the trace records and what
/// explain shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// What the API server holds of the revision.
    pub facts: Arc<Facts>,
    /// Its demand since the last tick. Revisions without any share one value.
    pub demand: Arc<ObservedDemand>,
    /// What the last probe of the revision's public Service answered.
    pub activator: Option<ActivatorProbe>,
}

/// What the API server holds of one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// UID of the PodAutoscaler: a revision that was recreated under the same name is another one.
    pub uid: String,
    /// The Knative Service that it belongs to; empty where Knative does not say.
    pub service: String,
    /// Generation of the PodAutoscaler.
    pub generation: i64,
    /// When the PodAutoscaler was created.
    pub created: Option<Timestamp>,
    /// The PodAutoscaler's status.
    pub status: PodAutoscalerStatus,
    /// Whether some Route refers to the revision.
    pub reachability: Reachability,
    /// What its annotations and the cluster's defaults come to.
    pub settings: RevisionSettings,
    /// Its ServerlessService, once there is one.
    pub sks: Option<ServerlessFacts>,
    /// Its pods that are neither terminating nor finished.
    pub pods: Vec<Pod>,
    /// Pods per node that its Seika asks for.
    pub seika: Counts,
    /// Replicas that its Deployment asks for.
    pub deployment: u32,
    /// Generation of its Deployment, which changes with the pod template.
    pub deployment_generation: i64,
    /// What its pod template asks of a node.
    pub template: Arc<Template>,
    /// What one more pod asks for: the template's amounts, or what an existing pod asks for where
    /// that is more, since admission may add to a pod.
    pub each: Resources,
    /// Whether source nodes may earn replicas of their own.
    pub earns_locality: bool,
    /// Whether the Seika's controller has acted on these counts.
    pub is_seika_observed: bool,
    /// Whether the revision is being handed back to the stock class.
    pub is_handing_back: bool,
    /// Whether it was handed back before and its class has come back by itself.
    pub was_handed_back: bool,
}

/// A ServerlessService, as far as decisions read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerlessFacts {
    /// Its name.
    pub name: String,
    /// Whether the PodAutoscaler controls it.
    pub is_owned: bool,
    /// Generation of the object.
    pub generation: i64,
    /// The desired mode.
    pub mode: ServingMode,
    /// What Knative's networking answered.
    pub status: Option<ServerlessServiceStatus>,
}

/// What the gateways showed of one revision since the last tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedDemand {
    /// Average demand per source node over each whole second that ended since the last tick. `None`
    /// stands for a second in which some gateway's demand is not known: it is no sample.
    pub seconds: Vec<(u64, Option<BTreeMap<NodeName, SourceDemand>>)>,
    /// Requests in flight at this instant, per source node that has any.
    pub in_flight: BTreeMap<NodeName, f64>,
    /// Seconds that requests took lately at the pods of each node, where known and asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_seconds: BTreeMap<NodeName, f64>,
    /// Whether some gateway's demand is not known at this instant, or there is no gateway.
    pub is_unknown: bool,
}

/// What answered a probe of a revision's public Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivatorProbe {
    /// When it answered, on the monotonic clock.
    pub at: Duration,
    /// Whether an activator answered.
    pub is_activator: bool,
}
