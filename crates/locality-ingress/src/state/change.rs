//! The input of [`ControlPlaneState`](super::ControlPlaneState).

use std::sync::Arc;

use crate::endpoints::plan::PlanChange;
use crate::kubernetes::objects::{
    IngressObject, NodeObject, ObjectName, RevisionObject, SecretObject, ServiceObject, SliceObject,
};
use gateway_link::demand::ByServing;

/// A changed object or a changed part of the routes. `None` stands for a deleted one.
#[derive(Debug)]
pub enum ObjectChange {
    /// An Ingress of our class without a deletionTimestamp.
    Ingress(ObjectName, Option<Box<IngressObject>>),
    /// A Service.
    Service(ObjectName, Option<ServiceObject>),
    /// An EndpointSlice by its own name, with the Service that it belongs to.
    Slice(ObjectName, Option<(ObjectName, SliceObject)>),
    /// A node.
    Node(String, Option<NodeObject>),
    /// A TLS Secret.
    Secret(ObjectName, Option<SecretObject>),
    /// Routes of revisions.
    Plan(PlanChange),
    /// A revision; `None` when it is deleted.
    Revision(ObjectName, Option<RevisionObject>),
    /// Whether Knative's ConfigMap `config-autoscaler` sets `target-burst-capacity` for revisions
    /// that do not set it.
    BurstCapacityDefault(bool),
    /// Requests in flight of a revision from one source node.
    Load(ObjectName, LoadChange),
    /// All objects of this source that existed at the start were delivered.
    Listed(ChangeSource),
}

/// Requests in flight from one source node, as one replica counts them.
#[derive(Clone, Debug)]
pub struct LoadChange {
    /// The other replica that the gateway reports to; `None` if it reports to this one.
    pub heard_by: Option<Arc<str>>,
    /// The source node.
    pub source: String,
    /// By serving node.
    pub loads: ByServing,
}

/// Sources of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeSource {
    /// Ingresses.
    Ingresses,
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Nodes.
    Nodes,
    /// Secrets.
    Secrets,
    /// The routes, or the failure to get them.
    Plan,
    /// Revisions.
    Revisions,
    /// Knative's settings.
    Settings,
}

impl ChangeSource {
    /// The sources without which the configuration would be wrong: nothing is published before each
    /// was listed.
    pub const ALL: [Self; 6] = [Self::Ingresses, Self::Services, Self::Slices, Self::Nodes, Self::Secrets, Self::Plan];
}
