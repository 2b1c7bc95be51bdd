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
    /// A TCP connection being made, which the kernel of whoever listens there answers.
    Tcp,
    /// HTTP GET over a fresh connection, from the request to the first byte of the answer: includes the server's own time.
    Http,
}

impl Protocol {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All protocols.
    pub const ALL: [Self; Self::COUNT] = [Self::Udp, Self::Icmp, Self::Tcp, Self::Http];

    /// A stable name for labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }

    /// Whether a probe is a connection of its own, not a packet among others.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Http)
    }
}

/// How to reach a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, and the port its responder listens on.
    pub echo: SocketAddr,
    /// The port of the same address that TCP and HTTP probes go to.
    pub http_port: u16,
    /// The zone it is in, where that is known.
    pub zone: Option<Arc<str>>,
}

/// The ports that probers listen on where nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The responder of UDP probes.
    pub echo: u16,
    /// `/metrics` and the others; also what TCP and HTTP probes go to.
    pub http: u16,
}

impl Ports {
    /// As the manifests have them.
    pub const DEFAULT: Self = Self { echo: 9799, http: 9798 };
}

impl Peer {
    /// A peer of which nothing but its echo address is known.
    #[must_use]
    pub const fn at(echo: SocketAddr) -> Self {
        Self { echo, http_port: Ports::DEFAULT.http, zone: None }
    }

    /// Where a probe by `protocol` goes. The port is of no meaning for ICMP.
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

    /// Whether `other` is reached the same way. Zones do not matter for that.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        (self.echo, self.http_port) == (other.echo, other.http_port)
    }
}

/// The peers by node. A node is one peer, whichever of its addresses is probed.
pub type PeerSet = BTreeMap<NodeName, Peer>;
