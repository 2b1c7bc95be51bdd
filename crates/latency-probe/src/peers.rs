//! Who is probed: plain data between the sources of peers and the prober.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for NodeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() { Err("a node's name must not be empty") } else { Ok(text.into()) }
    }
}

/// How a peer is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Echo between probers.
    Udp,
    /// ICMP echo, which every kernel answers.
    Icmp,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Icmp];

    /// A stable name for labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// How to reach a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, and the port its responder listens on.
    pub echo: SocketAddr,
    /// The zone it is in, where that is known.
    pub zone: Option<Arc<str>>,
}

impl Peer {
    /// A peer of which nothing but its echo address is known.
    #[must_use]
    pub const fn at(echo: SocketAddr) -> Self {
        Self { echo, zone: None }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.echo.ip()
    }
}

/// The peers by node. A node is one peer, whichever of its addresses is probed.
pub type PeerSet = BTreeMap<NodeName, Peer>;
