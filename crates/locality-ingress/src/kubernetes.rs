//! The API server: `watches`, the `objects` that they deliver, and status writes.

pub(crate) mod cluster_domain;
pub mod convert;
pub(crate) mod kernel;
pub(crate) mod objects;
pub(crate) mod revision;
pub(crate) mod status_writer;
pub(crate) mod watches;

pub use cluster_domain::cluster_domain;
pub use kernel::{Release, bounds_retransmissions_here};
pub use objects::{
    Concurrency, Endpoint, IngressObject, NodeObject, ObjectName, RevisionObject, RoutingObjects, SecretObject, ServiceObject,
    ServicePort, SliceEndpoint, SliceObject,
};
