//! What is known of a gateway when its resources are built.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The identity of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayView {
    /// Its node.
    pub node: String,
    /// The only address that it listens on, if it requested one.
    pub listen_address: Option<IpAddr>,
    /// The addresses of its pod, if they are known; the kubelet probes the first one.
    pub pod_addresses: Vec<IpAddr>,
}

impl GatewayView {
    /// A gateway on `node` of which nothing else is known.
    pub fn of_node(node: impl Into<String>) -> Self {
        Self { node: node.into(), listen_address: None, pod_addresses: Vec::new() }
    }

    /// The address to listen on. The IPv6 wildcard only if the pod has an IPv6 address: a kernel
    /// without IPv6 would refuse it.
    #[must_use]
    pub fn listens_on(&self) -> IpAddr {
        self.listen_address.unwrap_or_else(|| match self.pod_addresses.iter().any(IpAddr::is_ipv6) {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        })
    }

    /// The address at which it reaches its own listeners.
    pub(super) fn itself(&self) -> IpAddr {
        self.listen_address.unwrap_or_else(|| match self.pod_addresses.first() {
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        })
    }
}
