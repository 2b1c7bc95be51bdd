//! A small real cluster on this machine: a control plane and up to eight nodes, each in namespaces
//! of its own, with stock Knative on it.
//!
//! Everything that is made is written down in the [`StateFolder`] first, and removed when the
//! [`Cluster`] is dropped, whether by the end of a run, an error, Ctrl-C or a panic. What a killed
//! lab left behind, [`crate::cleanup::down`] removes.

mod apply;
pub mod cgroups;
mod error;
mod image_store;
mod images;
mod knative;
pub mod launch;
pub mod layout;
mod manifests;
pub mod network;
mod node;
mod node_config;
pub mod node_init;
pub(crate) mod readiness;
mod services;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::try_join_all;
use kube::Client;

pub use error::ClusterError;
pub use images::{NodeImage, NodeImages};
pub use knative::Setting;
pub use node::NodeHandle;

use crate::cleanup;
use crate::state::{Resource, StateFolder};
use image_store::ImageStore;
use layout::{LabSlot, NodeLayout, lay_out, netns_path};
use local_control_plane::components::Components;
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place, User};
use local_control_plane::progress::Progress;
use node::NodeMaker;

/// The desired cluster.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The names of the nodes, one to eight. The first one holds what exists once.
    pub nodes: Vec<String>,
    /// This program, which starts others inside the lab.
    pub lab_binary: PathBuf,
    /// The class of ingress for Knative Services that do not name one.
    pub ingress_class: String,
    /// The folder of the kustomization that deploys our own daemons; none leaves them out.
    pub deploy: Option<PathBuf>,
    /// Settings of Knative's besides the lab's usual ones, over which they win.
    pub settings: Vec<Setting>,
}

/// A running cluster. Dropping it removes it from this machine, unless [`Cluster::leave_running`]
/// was called.
pub struct Cluster {
    nodes: Vec<NodeHandle>,
    layouts: Vec<NodeLayout>,
    slot: LabSlot,
    system_node: String,
    // In this order: the control plane's processes end before what they live in is removed.
    control_plane: Option<ControlPlane>,
    guard: Guard,
}

/// Removes what the state folder lists when it is dropped.
struct Guard {
    state: StateFolder,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = cleanup::down(&mut self.state)
        {
            eprintln!("{error}");
        }
    }
}

impl Cluster {
    /// Makes the cluster and waits until everything in it is ready.
    ///
    /// # Errors
    /// When something cannot be made or does not get ready; what was made until then is removed.
    pub async fn up(
        spec: &ClusterSpec,
        state: StateFolder,
        components: &Components,
        images: &NodeImages,
        progress: &Progress,
    ) -> Result<Self, ClusterError> {
        let mut guard = Guard { state, armed: true };
        let step = progress.step("removing what an earlier lab left behind");
        cleanup::down(&mut guard.state)?;
        for name in ["nodes", "control-plane"] {
            let path = guard.state.path().join(name);
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ClusterError::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        step.done();

        let step = progress.step("laying the network");
        let ip = components.path(local_control_plane::components::Component::Ip)?;
        let slot = network::claim_slot(ip, &mut guard.state).await?;
        let layouts = lay_out(slot, &spec.nodes)?;
        make_cgroups(slot, &layouts, &mut guard.state)?;
        network::lay(ip, slot, &layouts, &mut guard.state).await?;
        step.done();

        let state_folder = guard.state.path().to_owned();
        let maker =
            NodeMaker { lab_binary: &spec.lab_binary, components, images, layouts: &layouts, state_folder: &state_folder };
        // Both write down what they start.
        let state = Mutex::new(&mut guard.state);
        let start_nodes = async {
            let step = progress.step("importing images that are new");
            let store = ImageStore::in_state(&state_folder);
            maker.fill(&layouts[0], &store).await?;
            step.done();
            let step = progress.step("starting the nodes' container runtimes");
            let nodes = try_join_all(layouts.iter().map(|layout| maker.launch(layout, &store))).await?;
            for node in &nodes {
                lock(&state).record_node(&node.name, node.pid1)?;
            }
            try_join_all(nodes.iter().map(node::wait_for_images)).await?;
            step.done();
            Ok::<_, ClusterError>(nodes)
        };
        let start_control_plane = async {
            let step = progress.step("starting the control plane");
            let control_plane = ControlPlane::start(&control_plane_options(slot, &state_folder), components).await?;
            for (name, pid) in control_plane.pids() {
                let pid = pid.cast_signed();
                lock(&state).record_process(name, pid)?;
                cgroups::add(&cgroups::hierarchies()?, &control_plane_cgroup(slot), pid)?;
            }
            lock(&state).set_kubeconfig(&control_plane.kubeconfig(User::Admin))?;
            step.done();
            let services = services::Services::new(&control_plane.client(), components, images, &layouts, spec)?;
            Ok::<_, ClusterError>((control_plane, services))
        };
        let ((control_plane, services), nodes) = futures::try_join!(start_control_plane, start_nodes)?;
        for (layout, node) in layouts.iter().zip(&nodes) {
            maker.admit(layout, node, &control_plane)?;
        }
        let client = control_plane.client();
        let step =
            progress.step("waiting for the nodes, applying the definitions and settings of Knative, cluster DNS and Prometheus");
        futures::try_join!(services.apply_foundations(), readiness::wait_for_nodes(&client, &nodes))?;
        step.done();
        let step = progress.step("waiting for cluster DNS");
        readiness::wait_for_workloads(&client, &nodes, &["kube-system"]).await?;
        step.done();
        let step = progress.step("waiting for Knative and our daemons");
        services.apply_programs(&control_plane.kubeconfig(User::Admin)).await?;
        readiness::wait_for_workloads(&client, &nodes, &services.namespaces()).await?;
        step.done();
        Ok(Self { nodes, slot, system_node: layouts[0].name.clone(), layouts, control_plane: Some(control_plane), guard })
    }

    /// The nodes, in the order they were given.
    #[must_use]
    pub fn nodes(&self) -> &[NodeHandle] {
        &self.nodes
    }

    /// The node with that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeHandle> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The name of the node that holds what exists once.
    #[must_use]
    pub fn system_node(&self) -> &str {
        &self.system_node
    }

    /// Everyone's place in the lab.
    #[must_use]
    pub fn layouts(&self) -> &[NodeLayout] {
        &self.layouts
    }

    /// The kubeconfig with every right.
    #[must_use]
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.guard.state.state().kubeconfig.as_deref()
    }

    /// A client with every right; nothing when the cluster is down.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.control_plane.as_ref().map(ControlPlane::client)
    }

    /// Applies the objects in YAML files, one after the other.
    ///
    /// # Errors
    /// When a file cannot be read, the API server refuses an object, or the cluster is down.
    pub async fn apply_files(&self, files: &[PathBuf]) -> Result<(), ClusterError> {
        let applier = apply::Applier::new(self.client().ok_or(ClusterError::Down)?);
        for file in files {
            applier.apply_in_order(&apply::read_documents(file)?).await?;
        }
        Ok(())
    }

    /// The state folder, for those who make something that has to be removed with the cluster.
    pub fn state(&mut self) -> &mut StateFolder {
        &mut self.guard.state
    }

    /// The control group of those who help the lab but are not part of the cluster, such as a link
    /// emulator with a process of its own.
    #[must_use]
    pub fn helpers_cgroup(&self) -> String {
        helpers_cgroup(self.slot)
    }

    /// Lets the cluster run on when this value and this process are gone. [`cleanup::down`] on its
    /// state folder removes it.
    pub fn leave_running(mut self) {
        self.guard.armed = false;
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.leave_running();
        }
    }

    /// Removes the cluster from this machine. Dropping does the same, but cannot report what
    /// resisted.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(mut self) -> Result<(), ClusterError> {
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.stop();
        }
        let result = cleanup::down(&mut self.guard.state);
        self.guard.armed = false;
        Ok(result?)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

fn lock<'a, T>(mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn control_plane_cgroup(slot: LabSlot) -> String {
    format!("{}/control-plane", slot.cgroup())
}

fn helpers_cgroup(slot: LabSlot) -> String {
    format!("{}/helpers", slot.cgroup())
}

fn make_cgroups(slot: LabSlot, layouts: &[NodeLayout], state: &mut StateFolder) -> Result<(), ClusterError> {
    let hierarchies = cgroups::hierarchies()?;
    state.record(Resource::Cgroup { path: slot.cgroup() })?;
    cgroups::create(&hierarchies, &slot.cgroup(), true)?;
    cgroups::create(&hierarchies, &control_plane_cgroup(slot), false)?;
    cgroups::create(&hierarchies, &helpers_cgroup(slot), false)?;
    for layout in layouts {
        cgroups::create(&hierarchies, &layout.pod_cgroup, true)?;
        cgroups::create(&hierarchies, &layout.daemon_cgroup, false)?;
    }
    Ok(())
}

fn control_plane_options(slot: LabSlot, folder: &Path) -> Options {
    Options {
        folder: folder.join("control-plane"),
        place: Place::Namespace {
            file: netns_path(&slot.control_plane_netns()),
            address: slot.control_plane_host_address().into(),
        },
        controllers: Controllers::All,
        scheduler: true,
        lifetime: Lifetime::MayOutliveUs,
        // The API server is not on a node and has no kube-proxy: it calls webhooks at their pods.
        api_server_flags: vec!["--enable-aggregator-routing=true".to_owned()],
        controller_manager_flags: Vec::new(),
    }
}
