//! Network namespaces and the cables between them: pure functions decide the commands for `ip`,
//! which then runs them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cgroups;
use super::layout::{CLUSTER_CIDR, CONTROL_PLANE_ADDRESS, LabSlot, NODE_NETWORK_PREFIX, NODE_UPLINK, NodeLayout, netns_path};
use crate::state::{Resource, StateError, StateFolder};
use local_control_plane::control_plane::SERVICE_RANGE;

/// Why the network could not be laid.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// `ip` could not be started.
    #[error("failed to run {program}: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `ip` refused.
    #[error("failed to {what}: {status}: {stderr}")]
    Refused {
        /// What was to be done.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// Every slot is taken.
    #[error("failed to find a free slot for the lab: {0} labs run already, or were killed and not cleaned up")]
    NoFreeSlot(usize),
    /// A setting of a namespace could not be written.
    #[error("failed to set {setting} in network namespace {netns}: {source}")]
    Setting {
        /// Which namespace.
        netns: PathBuf,
        /// Which setting.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What was made could not be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Claims the first free slot by making the lab's cable to the host: the kernel lets only one lab
/// have a device of that name.
///
/// # Errors
/// When all slots are taken or `ip` does not work.
pub async fn claim_slot(ip: &Path, state: &mut StateFolder) -> Result<LabSlot, NetworkError> {
    let mut tried = 0;
    let hierarchies = cgroups::hierarchies().unwrap_or_default();
    for slot in LabSlot::all() {
        let link = slot.host_link();
        // A lab that could not be removed whole may have lost its cable, but still has processes.
        let inhabited = !cgroups::processes(&hierarchies, &slot.cgroup()).is_empty();
        if inhabited || Path::new("/sys/class/net").join(&link).exists() {
            tried += 1;
            continue;
        }
        let batch = format!("link add {link} type veth peer name {}\n", host_cable_peer(slot));
        match run_batch(ip, None, &batch, "make the cable to the host").await {
            Ok(()) => {
                // Written down after it is made, unlike all else: before, it might have been
                // another lab's.
                state.record(Resource::Link { name: link })?;
                return Ok(slot);
            }
            Err(NetworkError::Refused { stderr, .. }) if stderr.contains("File exists") => tried += 1,
            Err(error) => return Err(error),
        }
    }
    Err(NetworkError::NoFreeSlot(tried))
}

/// Makes all namespaces, cables, addresses and routes of the lab.
///
/// # Errors
/// When the system refuses any of them.
pub async fn lay(ip: &Path, slot: LabSlot, nodes: &[NodeLayout], state: &mut StateFolder) -> Result<(), NetworkError> {
    if !is_mount_point(Path::new("/run/netns")) {
        // The first named namespace on a machine makes this a mount, which stays when the namespace
        // goes.
        state.record(Resource::Mount { path: "/run/netns".into() })?;
    }
    let control_plane = slot.control_plane_netns();
    for name in nodes.iter().map(|node| &node.netns).chain([&control_plane]) {
        state.record(Resource::NetworkNamespace { name: name.clone() })?;
        run_batch(ip, None, &format!("netns add {name}\n"), &format!("make network namespace {name}")).await?;
    }
    let host = format!(
        "link set {peer} netns {control_plane}\naddr add {}/30 dev {link}\nlink set {link} up\n",
        slot.host_address(),
        peer = host_cable_peer(slot),
        link = slot.host_link()
    );
    run_batch(ip, None, &host, "lay the cable to the host").await?;
    run_batch(ip, Some(&control_plane), &control_plane_batch(slot, nodes), "lay the control plane's network").await?;
    for node in nodes {
        let what = format!("lay the network of {}", node.name);
        run_batch(ip, Some(&node.netns), &node_batch(node, nodes), &what).await?;
    }
    for name in nodes.iter().map(|node| &node.netns).chain([&control_plane]) {
        set_up(&netns_path(name))?;
    }
    Ok(())
}

fn host_cable_peer(slot: LabSlot) -> String {
    format!("{}h", slot.prefix())
}

/// Commands for `ip -batch` in the control plane's namespace: the cable to the host, the bridge, a
/// port per node, the way to the pods.
fn control_plane_batch(slot: LabSlot, nodes: &[NodeLayout]) -> String {
    let mut batch = format!(
        "link set lo up\n\
         addr add {host_side}/30 dev {peer}\n\
         link set {peer} up\n\
         link add br0 type bridge\n\
         addr add {CONTROL_PLANE_ADDRESS}/{NODE_NETWORK_PREFIX} dev br0\n\
         link set br0 up\n",
        host_side = slot.control_plane_host_address(),
        peer = host_cable_peer(slot),
    );
    for node in nodes {
        let NodeLayout { bridge_port, netns, pod_cidr, ip, .. } = node;
        let _ = write!(
            batch,
            "link add {bridge_port} type veth peer name {NODE_UPLINK} netns {netns}\n\
             link set {bridge_port} master br0 up\n\
             route add {pod_cidr} via {ip}\n"
        );
    }
    // Nothing answers at these unless a node does: say so at once instead of sending them round.
    let _ = write!(batch, "route add unreachable {CLUSTER_CIDR}\nroute add unreachable {SERVICE_RANGE}\n");
    batch
}

/// Commands for `ip -batch` in a node's namespace.
fn node_batch(node: &NodeLayout, all: &[NodeLayout]) -> String {
    let mut batch = format!(
        "link set lo up\n\
         addr add {}/{NODE_NETWORK_PREFIX} dev {NODE_UPLINK}\n\
         link set {NODE_UPLINK} up\n\
         route add default via {CONTROL_PLANE_ADDRESS}\n",
        node.ip
    );
    for other in all.iter().filter(|other| other.index != node.index) {
        let _ = writeln!(batch, "route add {} via {}", other.pod_cidr, other.ip);
    }
    batch
}

/// Runs `ip -batch`, in a named namespace or in this process's own.
async fn run_batch(ip: &Path, netns: Option<&str>, batch: &str, what: &str) -> Result<(), NetworkError> {
    let run_error = |source| NetworkError::Run { program: ip.to_owned(), source };
    let mut command = Command::new(ip);
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run_error)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that it gave up early; its exit status and message say why.
        let _ = stdin.write_all(batch.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(run_error)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::Refused { what: what.to_owned(), status: output.status, stderr })
}

/// Lets packets pass through a namespace, whichever way they come back, and lets its processes use
/// what a node's usually may.
fn set_up(netns: &Path) -> Result<(), NetworkError> {
    let error = |setting| {
        let netns = netns.to_owned();
        move |source| NetworkError::Setting { netns, setting, source }
    };
    in_netns(netns, || {
        set("ipv4/ip_forward", "1").map_err(error("ip_forward"))?;
        // Through the link emulator packets leave by one device and come back by another.
        for scope in ["all", "default"] {
            set(&format!("ipv4/conf/{scope}/rp_filter"), "0").map_err(error("rp_filter"))?;
        }
        // As on any machine that systemd has started: every group may send echo requests.
        set("ipv4/ping_group_range", "0 2147483647").map_err(error("ping_group_range"))?;
        Ok(())
    })
    .map_err(error("the namespace to work in"))?
}

fn set(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/net").join(setting), value)
}

/// Does something in a network namespace, on a thread of its own that ends with it. Sockets opened
/// there stay in that namespace.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn in_netns<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(netns)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether something is mounted exactly there.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == path))
}

/// One way from a node to another that the link emulator takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRoute {
    /// The other node's name.
    pub to: String,
    /// The other node's address.
    pub ip: Ipv4Addr,
    /// Network and prefix of the other node's pods, as `ip route` writes it.
    pub pod_cidr: String,
}

/// The ways from one node to all others.
#[must_use]
pub fn peer_routes(node: &NodeLayout, all: &[NodeLayout]) -> Vec<PeerRoute> {
    all.iter()
        .filter(|other| other.index != node.index)
        .map(|other| PeerRoute { to: other.name.clone(), ip: other.ip, pod_cidr: other.pod_cidr.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::layout::lay_out;
    use super::*;

    fn two_nodes() -> (LabSlot, Vec<NodeLayout>) {
        let slot = LabSlot::all().next().expect("a slot");
        (slot, lay_out(slot, &["a".to_owned(), "b".to_owned()]).expect("layout"))
    }

    #[test]
    fn a_node_reaches_the_others_pods_through_the_others() {
        let (_, nodes) = two_nodes();
        assert_eq!(
            node_batch(&nodes[0], &nodes),
            "link set lo up\naddr add 10.89.0.11/24 dev eth0\nlink set eth0 up\nroute add default via 10.89.0.1\n\
             route add 10.244.2.0/24 via 10.89.0.12\n"
        );
        assert_eq!(
            peer_routes(&nodes[1], &nodes),
            [PeerRoute { to: "a".to_owned(), ip: Ipv4Addr::new(10, 89, 0, 11), pod_cidr: "10.244.1.0/24".to_owned() }]
        );
    }

    #[test]
    fn the_control_plane_has_a_port_per_node() {
        let (slot, nodes) = two_nodes();
        let batch = control_plane_batch(slot, &nodes);
        assert!(batch.contains("link add netem0n2 type veth peer name eth0 netns netem0-b\n"), "{batch}");
        assert!(batch.contains("route add 10.244.2.0/24 via 10.89.0.12\n"), "{batch}");
    }
}
