//! Peers: plain data shared by discovery and the session.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use latency_matrix::{NodeName, Protocol};

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
