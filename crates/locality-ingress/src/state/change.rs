//! What goes into the [`ControlPlaneState`](super::ControlPlaneState).

use std::sync::Arc;

use crate::endpoints::plan::PlanChange;
use crate::kubernetes::objects::{IngressObject, NodeObject, ObjectName, SecretObject, ServiceObject, SliceObject};
use crate::kubernetes::revision::Concurrency;
use gateway_link::demand::ByServing;

/// One object, or one part of the plan, that is different now. `None` means gone.
#[derive(Debug)]
pub enum Change {
    /// An Ingress of our class that is not being deleted.
    Ingress(ObjectName, Option<Box<IngressObject>>),
    /// A Service.
    Service(ObjectName, Option<ServiceObject>),
    /// An EndpointSlice by its own name: the Service that it is of, and it.
    Slice(ObjectName, Option<(ObjectName, SliceObject)>),
    /// A node.
    Node(String, Option<NodeObject>),
    /// A TLS Secret.
    Secret(ObjectName, Option<SecretObject>),
    /// The plan.
    Plan(PlanChange),
    /// How many requests a pod of a revision takes at once; gone with the revision.
    Concurrency(ObjectName, Option<Concurrency>),
    /// What a revision has in flight from one source node.
    Load(ObjectName, LoadChange),
    /// All objects of this kind that were there at the start have been told.
    Listed(Source),
}

/// What is in flight from one source node, by the word of one replica.
#[derive(Clone, Debug)]
pub struct LoadChange {
    /// The other replica that hears the gateway; `None` where this one does.
    pub heard_by: Option<Arc<str>>,
    /// The source node.
    pub source: String,
    /// By serving node.
    pub loads: ByServing,
}

/// Where changes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
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
    /// The plan, or that it is not to be had now.
    Plan,
    /// Revisions.
    Revisions,
}

impl Source {
    /// Those without which routes would be wrong: nothing is served before each has told what there
    /// is.
    pub const ALL: [Self; 6] = [Self::Ingresses, Self::Services, Self::Slices, Self::Nodes, Self::Secrets, Self::Plan];
}
