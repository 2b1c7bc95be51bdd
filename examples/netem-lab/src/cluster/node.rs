//! One node: launched, admitted to the cluster, and used from outside.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::process::Command;

use super::error::ClusterError;
use super::image_store::ImageStore;
use super::images::NodeImages;
use super::launch::{log_tail, node_launch};
use super::layout::{NODE_UPLINK, NodeLayout, PodCidr};
use super::network::{PeerRoute, peer_routes};
use super::node_config;
use super::node_init::{Daemon, IMAGES_READY, MAY_JOIN, NODE_FOLDER, NodePlan};
use crate::state::{is_running, process_start_ticks};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, User};

/// Long enough for a machine that compiles at the same time.
const IMAGES_WITHIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// A running node, for those who work with it.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Its name.
    pub name: String,
    /// Its number, from 1.
    pub index: u8,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The network of its pods.
    pub pod_cidr: PodCidr,
    /// Where its network namespace is mounted.
    pub netns: PathBuf,
    /// The device by which it reaches everything outside itself.
    pub uplink: &'static str,
    /// The ways to the other nodes and their pods, which the link emulator takes over.
    pub peers: Vec<PeerRoute>,
    /// The process that is the first one inside the node, by its id outside. Killing it ends all
    /// that is in the node.
    pub pid1: i32,
    /// When it was started; see [`crate::state::is_running`].
    pub pid1_start_ticks: u64,
    /// Its folder on this machine: logs, configuration, storage.
    pub folder: PathBuf,
    nsenter: PathBuf,
}

impl NodeHandle {
    /// A command that runs a program inside the node's network, file system and host name: it finds
    /// Services by their names, and is routed like everything else on the node. The program is not
    /// one of the node's processes, and is the caller's to end.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.nsenter);
        command.arg("--target").arg(self.pid1.to_string()).args(["--net", "--mount", "--uts", "--"]).arg(program);
        command
    }

    /// Whether the node runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        is_running(self.pid1, self.pid1_start_ticks)
    }

    fn log(&self) -> PathBuf {
        init_log(&self.folder)
    }

    /// Ends everything in the node at once, and waits until it is gone.
    async fn kill(&self) {
        while self.is_running() {
            // It may have ended meanwhile, which is what is wanted.
            let _ = kill(Pid::from_raw(self.pid1), Signal::SIGKILL);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn init_log(folder: &Path) -> PathBuf {
    folder.join("logs/node-init.log")
}

/// What every node is launched with.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeMaker<'a> {
    pub lab_binary: &'a Path,
    pub components: &'a Components,
    pub images: &'a NodeImages,
    pub layouts: &'a [NodeLayout],
    pub state_folder: &'a Path,
}

impl NodeMaker<'_> {
    /// Makes the node's folder and namespaces and starts its container runtime. The kubelet waits
    /// for [`NodeMaker::admit`].
    pub(super) async fn launch(&self, layout: &NodeLayout, store: &ImageStore) -> Result<NodeHandle, ClusterError> {
        let folder = self.state_folder.join("nodes").join(&layout.name);
        let archives = if in_memory(self.state_folder)? {
            // Nothing can be linked into memory.
            self.images.archives()
        } else {
            store.copy_to(&folder).await?;
            Vec::new()
        };
        self.launch_in(layout, folder, archives).await
    }

    /// Imports what the store lacks, by something that is a node but for its name: the layout is
    /// that of any node, before it is launched.
    pub(super) async fn fill(&self, layout: &NodeLayout, store: &ImageStore) -> Result<(), ClusterError> {
        if in_memory(self.state_folder)? {
            return Ok(());
        }
        let Some(mut filling) = store.fill(self.images).await? else { return Ok(()) };
        let archives = std::mem::take(&mut filling.archives);
        let importer = self.launch_in(layout, filling.folder.clone(), archives).await?;
        let imported = wait_for_images(&importer).await;
        // Its data is whole on disk at any time, like that of any machine that loses power.
        importer.kill().await;
        imported?;
        filling.finish()
    }

    async fn launch_in(&self, layout: &NodeLayout, folder: PathBuf, archives: Vec<PathBuf>) -> Result<NodeHandle, ClusterError> {
        self.write_folder(layout, &folder, archives)?;
        let log = init_log(&folder);
        let netns = layout.netns_path();
        let output = node_launch(self.lab_binary, &layout.daemon_cgroup, &netns, &log, &folder.join("plan.json"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .await
            .map_err(ClusterError::run(self.lab_binary))?;
        let pid1: Option<i32> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
        let started = pid1.and_then(|pid| process_start_ticks(pid).map(|ticks| (pid, ticks)));
        let Some((pid1, pid1_start_ticks)) = started else {
            let mut reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if reason.is_empty() {
                reason = log_tail(&log, 15);
            }
            return Err(ClusterError::NodeDied { node: layout.name.clone(), log: reason });
        };
        Ok(NodeHandle {
            name: layout.name.clone(),
            index: layout.index,
            ip: layout.ip,
            pod_cidr: layout.pod_cidr,
            netns,
            uplink: NODE_UPLINK,
            peers: peer_routes(layout, self.layouts),
            pid1,
            pid1_start_ticks,
            folder,
            nsenter: self.components.path(Component::Nsenter)?.to_owned(),
        })
    }

    fn write_folder(&self, layout: &NodeLayout, folder: &Path, images: Vec<PathBuf>) -> Result<(), ClusterError> {
        for name in ["logs", "cni", "storage"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(ClusterError::file("create", &path))?;
        }
        for stale in [MAY_JOIN, IMAGES_READY] {
            // Usually not there: it is when the node is launched again.
            let _ = fs::remove_file(folder.join(stale));
        }
        let own = Path::new(NODE_FOLDER);
        let containerd = node_config::containerd(
            self.components.path(Component::Runc)?,
            self.components.path(Component::CniPlugins)?,
            &own.join("cni"),
            &self.images.pause,
        );
        write(&folder.join("containerd.toml"), containerd.as_bytes())?;
        write_json(&folder.join("cni/pods.conflist"), &node_config::cni(layout))?;
        let runtime = Daemon {
            name: "containerd".to_owned(),
            program: self.components.path(Component::Containerd)?.to_owned(),
            arguments: vec!["--config".to_owned(), own.join("containerd.toml").display().to_string()],
        };
        let plan = NodePlan {
            name: layout.name.clone(),
            folder: folder.to_owned(),
            storage_in_memory: in_memory(self.state_folder)?,
            resolv_conf: node_config::resolv_conf(),
            hosts: node_config::hosts(self.layouts),
            path: self.program_path()?,
            ctr: self.components.path(Component::Ctr)?.to_owned(),
            images,
            runtime,
        };
        write_json(&folder.join("plan.json"), &plan)
    }

    /// Where a node's daemons find each other and the system's tools.
    fn program_path(&self) -> Result<String, ClusterError> {
        let mut folders = BTreeSet::new();
        for component in
            [Component::ContainerdShim, Component::Runc, Component::Nft, Component::Conntrack, Component::Iptables, Component::Ip]
        {
            folders.extend(self.components.path(component)?.parent().map(Path::to_path_buf));
        }
        folders.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
        Ok(folders.join(":"))
    }

    /// Signs the node's certificates and lets its kubelet and kube-proxy start.
    pub(super) fn admit(&self, layout: &NodeLayout, node: &NodeHandle, control_plane: &ControlPlane) -> Result<(), ClusterError> {
        let files = control_plane.admit_node(&layout.name, layout.ip.into())?;
        let own = Path::new(NODE_FOLDER);
        let secrets = node.folder.join("secrets");
        fs::create_dir_all(&secrets).map_err(ClusterError::file("create", &secrets))?;
        // Copied, because the node has its own view of the file system, in which the originals may
        // be hidden.
        let copy = |from: &Path, name: &str| {
            fs::copy(from, secrets.join(name)).map_err(ClusterError::file("copy", from))?;
            Ok::<_, ClusterError>(own.join("secrets").join(name))
        };
        let kubeconfig = copy(&files.kubeconfig, "kubelet.kubeconfig")?;
        let authority = copy(&files.client_authority, "client-ca.crt")?;
        let certificate = copy(&files.serving_certificate, "kubelet.crt")?;
        let key = copy(&files.serving_key, "kubelet.key")?;
        let proxy_kubeconfig = copy(&control_plane.kubeconfig(User::KubeProxy), "kube-proxy.kubeconfig")?;

        let kubelet_config = node_config::kubelet(layout, &authority, &certificate, &key);
        write_json(&node.folder.join("kubelet.json"), &kubelet_config)?;
        write_json(&node.folder.join("kube-proxy.json"), &node_config::kube_proxy(layout, &proxy_kubeconfig))?;
        let daemons = [
            Daemon {
                name: "kubelet".to_owned(),
                program: self.components.path(Component::Kubelet)?.to_owned(),
                arguments: node_config::kubelet_arguments(layout, &own.join("kubelet.json"), &kubeconfig),
            },
            Daemon {
                name: "kube-proxy".to_owned(),
                program: self.components.path(Component::KubeProxy)?.to_owned(),
                arguments: vec![format!("--config={}", own.join("kube-proxy.json").display())],
            },
        ];
        // Appears at once with all its content, because the node looks at it as soon as it is
        // there.
        let next = node.folder.join("may-join.next");
        write_json(&next, &daemons)?;
        let may_join = node.folder.join(MAY_JOIN);
        fs::rename(&next, &may_join).map_err(ClusterError::file("write", &may_join))
    }
}

/// Whether what nodes write must be kept in memory: layers cannot be laid on a file system that
/// itself consists of layers, as in a container.
fn in_memory(state_folder: &Path) -> Result<bool, ClusterError> {
    let file_system = statfs(state_folder).map_err(|errno| ClusterError::file("examine", state_folder)(errno.into()))?;
    Ok(file_system.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// Waits until the node's container runtime has all images.
pub(super) async fn wait_for_images(node: &NodeHandle) -> Result<(), ClusterError> {
    let begun = Instant::now();
    while !node.folder.join(IMAGES_READY).exists() {
        check(node)?;
        if begun.elapsed() > IMAGES_WITHIN {
            return Err(ClusterError::ImagesLate {
                node: node.name.clone(),
                waited: begun.elapsed(),
                log: log_tail(&node.log(), 15),
            });
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// An error if the node has ended.
pub(super) fn check(node: &NodeHandle) -> Result<(), ClusterError> {
    if node.is_running() {
        return Ok(());
    }
    Err(ClusterError::NodeDied { node: node.name.clone(), log: log_tail(&node.log(), 15) })
}

fn write_json(path: &Path, content: &impl Serialize) -> Result<(), ClusterError> {
    let bytes = serde_json::to_vec_pretty(content).map_err(|source| ClusterError::file("write", path)(source.into()))?;
    write(path, &bytes)
}

fn write(path: &Path, content: &[u8]) -> Result<(), ClusterError> {
    fs::write(path, content).map_err(ClusterError::file("write", path))
}
