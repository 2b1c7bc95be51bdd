//! Second step: the route table as Envoy's resources, and their way to the gateways.
//!
//! [`routes`], [`clusters`], [`listeners`] and [`assignments`] are pure; [`store`] numbers what they make, [`session`] decides what one
//! gateway is sent and when, and [`server`] is the gRPC around it.

pub mod assignments;
pub mod clusters;
pub mod listeners;
pub mod proto;
pub mod routes;
pub mod server;
pub mod session;
pub mod store;

use envoy_types::pb::google::protobuf::Any;

/// The kinds of resources we serve, in the order in which they are sent: what is referred to before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
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

impl Kind {
    /// All of them, in sending order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Assignment, Self::Secret, Self::Listener, Self::Routes];

    /// As it is on the wire.
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

    /// The kind that `type_url` means.
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

/// One encoded resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// A hash of the content, the same in every replica and after every restart, so that a gateway which reconnects is sent only what
    /// it does not have.
    pub version: u64,
    /// The content.
    pub any: Any,
}

impl Encoded {
    /// Encodes `message`.
    pub fn new<M: prost::Message + prost::Name>(message: &M) -> Self {
        let any = proto::any(message);
        Self { version: content_version(&any.value), any }
    }
}

/// FNV-1a: it has to be the same everywhere, and nothing hostile chooses what it is taken of to any gain.
fn content_version(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
