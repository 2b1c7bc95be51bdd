//! Who has which name and address. Every address of the cluster is chosen here; all of them but the
//! host's end of one cable exist only inside the lab's own network namespaces, so that two labs may
//! use the same ones.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use thiserror::Error;

/// The most nodes a lab can have.
pub const MAX_NODES: usize = 8;
/// The most labs that can run on one machine at once.
pub const MAX_LABS: u8 = 16;
/// The control plane's address on the wire between the nodes; it is also the nodes' gateway to each
/// other.
pub const CONTROL_PLANE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// Length of the prefix of the network that the control plane and the nodes share.
pub const NODE_NETWORK_PREFIX: u8 = 24;
/// All pod addresses.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// The Service address of the cluster's DNS, within
/// [`local_control_plane::control_plane::SERVICE_RANGE`].
pub const DNS_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The cluster's DNS domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Which of the labs on this machine this is. All names the machine can see start with
/// [`LabSlot::prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabSlot(u8);

impl LabSlot {
    /// All slots, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_LABS).map(Self)
    }

    /// What the names of the lab's namespaces, devices and control groups start with.
    #[must_use]
    pub fn prefix(self) -> String {
        format!("netem{}", self.0)
    }

    /// The parent control group of everything in the lab.
    #[must_use]
    pub fn cgroup(self) -> String {
        format!("/{}", self.prefix())
    }

    /// The device on the host through which the lab's API server is reached.
    #[must_use]
    pub fn host_link(self) -> String {
        self.prefix()
    }

    /// The host's address on that device, for a /30 network.
    #[must_use]
    pub fn host_address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 0, self.0 * 4 + 1)
    }

    /// The control plane's address at the other end: the API server's, for the host and for the
    /// nodes.
    #[must_use]
    pub fn control_plane_host_address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 0, self.0 * 4 + 2)
    }

    /// Name of the control plane's network namespace.
    #[must_use]
    pub fn control_plane_netns(self) -> String {
        format!("{}-control-plane", self.prefix())
    }
}

/// What is wrong with the list of nodes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// None, or too many.
    #[error("failed to lay out {0} nodes: between 1 and {MAX_NODES} are possible")]
    NodeCount(usize),
    /// Kubernetes would refuse the name.
    #[error(
        "failed to use node name {0:?}: lower-case letters, digits and dashes, at most 40, starting and ending with a letter or digit"
    )]
    NodeName(String),
    /// The same name twice.
    #[error("failed to use node name {0:?} twice")]
    DuplicateNode(String),
}

/// One node's place in the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLayout {
    /// The node's name.
    pub name: String,
    /// Its number, from 1.
    pub index: u8,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The network of its pods.
    pub pod_cidr: PodCidr,
    /// Name of its network namespace.
    pub netns: String,
    /// The control plane's end of the node's cable (a port of the bridge there).
    pub bridge_port: String,
    /// The control group in which the kubelet keeps the pods.
    pub pod_cgroup: String,
    /// The control group of kubelet, containerd and kube-proxy.
    pub daemon_cgroup: String,
}

impl NodeLayout {
    /// Where the network namespace is mounted.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        netns_path(&self.netns)
    }
}

/// Where a named network namespace is mounted.
#[must_use]
pub fn netns_path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// The device by which a node reaches everything outside itself, as the node sees it.
pub const NODE_UPLINK: &str = "eth0";

/// A /24 network of pod addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCidr(u8);

impl PodCidr {
    /// The lowest address.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.0, 0)
    }

    /// The length of its prefix.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        24
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len())
    }
}

/// Gives every node its place.
///
/// # Errors
/// When the number of nodes or one of their names is impossible.
pub fn lay_out(slot: LabSlot, names: &[String]) -> Result<Vec<NodeLayout>, LayoutError> {
    if names.is_empty() || names.len() > MAX_NODES {
        return Err(LayoutError::NodeCount(names.len()));
    }
    let mut seen = BTreeSet::new();
    (1u8..)
        .zip(names)
        .map(|(index, name)| {
            if !is_node_name(name) {
                return Err(LayoutError::NodeName(name.clone()));
            }
            if !seen.insert(name) {
                return Err(LayoutError::DuplicateNode(name.clone()));
            }
            let prefix = slot.prefix();
            Ok(NodeLayout {
                name: name.clone(),
                index,
                ip: Ipv4Addr::new(10, 89, 0, 10 + index),
                pod_cidr: PodCidr(index),
                netns: format!("{prefix}-{name}"),
                // A device name holds at most 15 bytes, so the node's name cannot be part of it.
                bridge_port: format!("{prefix}n{index}"),
                pod_cgroup: format!("{}/{name}", slot.cgroup()),
                daemon_cgroup: format!("{}/{name}.daemons", slot.cgroup()),
            })
        })
        .collect()
}

fn is_node_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 40
        && name.chars().all(|c| allowed(c) || c == '-')
        && name.starts_with(allowed)
        && name.ends_with(allowed)
        // The control plane's namespace is called so.
        && name != "control-plane"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn slot(number: usize) -> LabSlot {
        LabSlot::all().nth(number).expect("a slot")
    }

    #[test]
    fn nodes_have_their_own_names_and_addresses() {
        let nodes = lay_out(slot(2), &names(&["osaka", "kobe"])).expect("layout");
        assert_eq!(nodes[1].ip, Ipv4Addr::new(10, 89, 0, 12));
        assert_eq!(nodes[1].pod_cidr.to_string(), "10.244.2.0/24");
        assert_eq!(nodes[1].netns, "netem2-kobe");
        assert_eq!(nodes[1].bridge_port, "netem2n2");
    }

    #[test]
    fn labs_do_not_share_addresses_on_the_host() {
        let addresses: BTreeSet<_> =
            LabSlot::all().flat_map(|slot| [slot.host_address(), slot.control_plane_host_address()]).collect();
        assert_eq!(addresses.len(), usize::from(MAX_LABS) * 2);
        assert!(LabSlot::all().all(|slot| slot.host_link().len() <= 15));
    }

    #[test]
    fn impossible_lists_are_refused() {
        assert_eq!(lay_out(slot(0), &[]), Err(LayoutError::NodeCount(0)));
        let many: Vec<_> = (0..9).map(|n| format!("n{n}")).collect();
        assert_eq!(lay_out(slot(0), &many), Err(LayoutError::NodeCount(9)));
        assert_eq!(lay_out(slot(0), &names(&["a", "a"])), Err(LayoutError::DuplicateNode("a".to_owned())));
        for bad in ["", "A", "-a", "a-", "a_b", "control-plane", "../a"] {
            assert_eq!(lay_out(slot(0), &names(&[bad])), Err(LayoutError::NodeName(bad.to_owned())), "{bad:?}");
        }
    }
}
