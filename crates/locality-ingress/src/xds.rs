//! Second step: the route table as Envoy resources, and their delivery to the gateways.
//!
//! [`route_configuration`], `clusters`, [`listeners`] and `assignments` build resources and are
//! pure. `store` holds them by revision, `session` decides what one gateway is sent and when,
//! and `server` is the gRPC around it. A resource that is the same for all gateways is in memory
//! once, also while it is being sent.

mod accept;
mod access_log;
mod answer;
mod assignments;
mod changes;
pub(crate) mod cluster_endpoints;
pub(crate) mod clusters;
pub(crate) mod connected;
pub(crate) mod gateway_view;
pub(crate) mod held_log;
pub(crate) mod listeners;
pub(crate) mod overflow;
pub(crate) mod proto;
pub(crate) mod refusal;
pub(crate) mod route_configuration;
pub(crate) mod server;
mod session;
pub(crate) mod store;
mod subscription;

use std::borrow::Borrow;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

pub use assignments::load_assignment;
pub use cluster_endpoints::ClusterEndpoints;
pub use clusters::cluster;
pub use connected::Connected;
pub use gateway_view::GatewayView;
pub use listeners::{DEFAULT_REQUEST_HEADERS_KIB, GatewayPorts, ListenerSettings, listeners};
pub use refusal::Nack;
pub use route_configuration::route_configuration;
pub use server::{Ads, NackReport};
pub use session::XdsSession;
pub use store::{ConfigStore, StoreRevision, Update};

/// The kinds of resources, in sending order: a resource is sent before those that refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// `Cluster`.
    Cluster,
    /// `ClusterLoadAssignment`, the only one that differs by node.
    Assignment,
    /// `Secret`.
    Secret,
    /// `Listener`.
    Listener,
    /// `RouteConfiguration`.
    Routes,
}

impl ResourceKind {
    /// All of them, in sending order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Assignment, Self::Secret, Self::Listener, Self::Routes];

    /// The type URL on the wire.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Assignment => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind with this `type_url`.
    #[must_use]
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// A short name for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Assignment => "eds",
            Self::Secret => "sds",
            Self::Listener => "lds",
            Self::Routes => "rds",
        }
    }
}

/// The name of a resource. All sessions share the store's names, so a known name costs a session
/// one pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(Arc<String>);

impl ResourceName {
    /// The name `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Hash, equality and order are those of the text.
impl Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One encoded resource. Clones share the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// A hash of the content, equal in every replica and after restarts, so that a gateway that
    /// reconnects is sent only what it lacks.
    pub version: NonZeroU64,
    /// The encoded message of the type that belongs to its [`ResourceKind`].
    pub content: Bytes,
}

impl Encoded {
    /// Encodes `message`.
    pub fn new<M: prost::Message>(message: &M) -> Self {
        Self::from(message.encode_to_vec())
    }
}

impl Encoded {
    /// The message with `more` fields appended: repeated fields are concatenated, and of others the
    /// last one counts.
    #[must_use]
    pub fn and(&self, more: &[u8]) -> Self {
        Self::from([&self.content, more].concat())
    }
}

impl From<Vec<u8>> for Encoded {
    fn from(content: Vec<u8>) -> Self {
        Self { version: content_version(&content), content: content.into_boxed_slice().into() }
    }
}

/// FNV-1a: the hash must be equal everywhere, and nobody gains by a collision.
fn content_version(bytes: &[u8]) -> NonZeroU64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
}
