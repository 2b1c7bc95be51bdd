//! Peers: plain data shared by discovery and the session.

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
    /// UDP echo, answered by the peer's responder.
    Udp,
    /// ICMP echo, answered by the peer's kernel.
    Icmp,
    /// TCP handshake, answered by the peer's kernel where a program listens.
    Tcp,
    /// HTTP GET over a new connection, from the request to the first byte of the response. Includes
    /// the server's own time.
    Http,
}

impl Protocol {
    /// Number of protocols.
    pub const COUNT: usize = 4;
    /// All protocols.
    pub const ALL: [Self; Self::COUNT] = [Self::Udp, Self::Icmp, Self::Tcp, Self::Http];

    /// The name in labels and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }

    /// Whether each probe opens a connection of its own.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Http)
    }
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's address and the port of its responder.
    pub echo: SocketAddr,
    /// The port that TCP and HTTP probes go to, at the same address.
    pub http_port: u16,
    /// The peer's zone, if known.
    pub zone: Option<Arc<str>>,
}

/// Default ports of probers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port of the responder.
    pub echo: u16,
    /// Port of `/metrics` and `/v1/row`, which is also the target of TCP and HTTP probes.
    pub http: u16,
}

impl Ports {
    /// The ports in the manifests.
    pub const DEFAULT: Self = Self { echo: 9799, http: 9798 };
}

impl Peer {
    /// A peer with default HTTP port and unknown zone.
    #[must_use]
    pub const fn at(echo: SocketAddr) -> Self {
        Self { echo, http_port: Ports::DEFAULT.http, zone: None }
    }

    /// The target of a probe by `protocol`. ICMP ignores the port.
    #[must_use]
    pub const fn target(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Udp | Protocol::Icmp => self.echo,
            Protocol::Tcp | Protocol::Http => SocketAddr::new(self.echo.ip(), self.http_port),
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.echo.ip()
    }

    /// Whether both have the same address and ports. The zone does not matter.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        (self.echo, self.http_port) == (other.echo, other.http_port)
    }
}

/// Peers by node. A node is one peer, whichever of its addresses is probed.
pub type PeerSet = BTreeMap<NodeName, Peer>;
