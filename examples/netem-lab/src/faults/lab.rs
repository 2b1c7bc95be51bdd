//! The running lab that faults are made in, and what is asked of its API server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Command;

use super::FaultError;
use super::firewall::{Dropped, Firewall};
use crate::load;
use crate::state::LabState;
use local_control_plane::components::{Component, Components};

/// The label by which the service chooses nodes.
pub(super) const SERVES: &str = "lab.kantai.dev/serves";

/// Where what a fault changed is written down until it is mended: the value from before.
const BEFORE: &str = "lab.kantai.dev/before";

/// Knative's settings of pods, and what its queue-proxy asks for.
const POD_SETTINGS: (&str, &str, &str) = ("knative-serving", "config-deployment", "queue-sidecar-cpu-request");

/// A lab that is up.
pub struct Lab {
    pub(super) client: Client,
    pub(super) firewall: Firewall,
    /// Every node with its first process.
    pub(super) nodes: BTreeMap<String, i32>,
    api_server: Ipv4Addr,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

pub(super) fn ask(what: &'static str) -> impl FnOnce(kube::Error) -> FaultError {
    move |source| FaultError::Ask { what, source: Box::new(source) }
}

impl Lab {
    /// Finds the lab of a state folder.
    ///
    /// # Errors
    /// When none is up, or a program is missing.
    pub async fn find(state: &LabState, components: &Components) -> Result<Self, FaultError> {
        let kubeconfig = state.kubeconfig.clone().ok_or(FaultError::NoLab)?;
        let unusable =
            |error: &dyn std::fmt::Display| FaultError::Do { what: "use the kubeconfig".to_owned(), problem: error.to_string() };
        let read = Kubeconfig::read_from(&kubeconfig).map_err(|error| unusable(&error))?;
        let config =
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(|error| unusable(&error))?;
        let host = config.cluster_url.host().unwrap_or_default();
        let api_server = host.parse().map_err(|error| unusable(&format!("{host:?}: {error}")))?;
        let client = Client::try_from(config).map_err(ask("connect"))?;
        let path = |component| components.path(component).map(std::path::Path::to_owned);
        let firewall = Firewall { nft: path(Component::Nft)?, nsenter: path(Component::Nsenter)? };
        let nodes = state.running_nodes().map(|(name, pid1)| (name.to_owned(), pid1)).collect();
        Ok(Self { client, firewall, nodes, api_server, kubectl: path(Component::Kubectl)?, kubeconfig })
    }

    pub(super) fn api_server(&self) -> Ipv4Addr {
        self.api_server
    }

    /// This program, to be started in a node.
    pub(super) fn in_node(&self, node: &str) -> Result<Command, FaultError> {
        let own = load::own_program()
            .map_err(|error| FaultError::Do { what: "find this program".to_owned(), problem: error.to_string() })?;
        let mut command = Command::new(&own);
        command.args(["exec", node, "--"]).arg(own);
        Ok(command)
    }

    /// `kubectl`, with every right.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    pub(super) async fn node_objects(&self) -> Result<Vec<Node>, FaultError> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        Ok(nodes.map_err(ask("list the nodes"))?.items)
    }

    /// Puts the label on a node, or takes it off.
    pub(super) async fn set_serves(&self, node: &str, serves: bool) -> Result<(), FaultError> {
        let patch = json!({ "metadata": { "labels": { SERVES: if serves { json!("yes") } else { Value::Null } } } });
        self.patch_node(node, patch).await
    }

    async fn patch_node(&self, node: &str, patch: Value) -> Result<(), FaultError> {
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(ask("change a node"))?;
        Ok(())
    }

    /// Takes all pods of a Deployment away, and writes down how many it had.
    pub(super) async fn scale_to_none(&self, (namespace, name): (&str, &str)) -> Result<(), FaultError> {
        let api = Api::<Deployment>::namespaced(self.client.clone(), namespace);
        let deployment = api.get(name).await.map_err(ask("read a Deployment"))?;
        let before = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let patch = json!({ "metadata": { "annotations": { BEFORE: before.to_string() } }, "spec": { "replicas": 0 } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(ask("scale a Deployment"))?;
        Ok(())
    }

    /// The names of a Deployment's pods, those that are ending among them.
    pub(super) async fn pods_of(&self, (namespace, name): (&str, &str)) -> Result<Vec<String>, FaultError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace).list(&ListParams::default()).await;
        let pods = pods.map_err(ask("list pods"))?;
        Ok(pods.iter().map(ResourceExt::name_any).filter(|pod| pod.starts_with(&format!("{name}-"))).collect())
    }

    /// Lets every queue-proxy from now on ask for so much, and writes down what it asked for.
    pub(super) async fn let_queue_proxies_ask_for(&self, cpu: &str) -> Result<(), FaultError> {
        let (namespace, name, key) = POD_SETTINGS;
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let settings = api.get(name).await.map_err(ask("read Knative's settings"))?;
        let before = settings.data.and_then(|mut data| data.remove(key)).unwrap_or_default();
        let patch = json!({ "metadata": { "annotations": { BEFORE: before } }, "data": { key: cpu } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(ask("change Knative's settings"))?;
        Ok(())
    }

    /// Stops the kubelets of all nodes, or lets them go on.
    pub(super) fn signal_kubelets(&self, signal: Signal) -> Result<(), FaultError> {
        let failed = |problem: String| FaultError::Do { what: "signal the kubelets".to_owned(), problem };
        for pid1 in self.nodes.values() {
            let kubelets = processes_in(*pid1, "kubelet").map_err(|error| failed(error.to_string()))?;
            if kubelets.is_empty() {
                return Err(failed("a node has none".to_owned()));
            }
            for pid in kubelets {
                kill(Pid::from_raw(pid), signal).map_err(|error| failed(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Keeps a node and its pods from the control plane.
    pub(crate) async fn cut_off(&self, node: &str) -> Result<(), FaultError> {
        self.firewall.put_up(self.first_process(node)?, Dropped::ApiServer(self.api_server)).await
    }

    /// Lets a node and its pods reach the control plane again.
    pub(crate) async fn reconnect(&self, node: &str) -> Result<(), FaultError> {
        self.firewall.take_down(self.first_process(node)?).await
    }

    fn first_process(&self, node: &str) -> Result<i32, FaultError> {
        let unknown = || FaultError::Do { what: format!("find node {node}"), problem: "it does not run".to_owned() };
        self.nodes.get(node).copied().ok_or_else(unknown)
    }

    /// Undoes every fault there may be. May be called at any time.
    ///
    /// # Errors
    /// When the cluster does not let it; what could be undone is.
    pub async fn mend(&self) -> Result<(), FaultError> {
        let mut first = self.signal_kubelets(Signal::SIGCONT);
        for pid1 in self.nodes.values() {
            first = first.and(self.firewall.take_down(*pid1).await);
        }
        // A node that was cut off until now reports first, without our help.
        first.and(self.mend_objects().await)
    }

    async fn mend_objects(&self) -> Result<(), FaultError> {
        for name in self.nodes.keys() {
            let patch = json!({ "metadata": { "labels": { SERVES: "yes" } }, "spec": { "unschedulable": null } });
            self.patch_node(name, patch).await?;
        }
        let deployments = Api::<Deployment>::all(self.client.clone()).list(&ListParams::default()).await;
        for deployment in deployments.map_err(ask("list Deployments"))? {
            let Some(before) = deployment.annotations().get(BEFORE).and_then(|text| text.parse::<i32>().ok()) else { continue };
            let patch = json!({ "metadata": { "annotations": { BEFORE: null } }, "spec": { "replicas": before } });
            Api::<Deployment>::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
                .patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(ask("scale a Deployment"))?;
        }
        let (namespace, name, key) = POD_SETTINGS;
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let settings = api.get(name).await.map_err(ask("read Knative's settings"))?;
        if let Some(before) = settings.annotations().get(BEFORE) {
            let before = if before.is_empty() { Value::Null } else { json!(before) };
            let patch = json!({ "metadata": { "annotations": { BEFORE: null } }, "data": { key: before } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(ask("change Knative's settings"))?;
        }
        Ok(())
    }

    /// Takes off the nodes what [`mend`](Self::mend) leaves on them.
    pub(super) async fn forget_labels(&self) -> Result<(), FaultError> {
        for name in self.nodes.keys() {
            self.set_serves(name, false).await?;
        }
        Ok(())
    }
}

/// The processes of this name in the process namespace of a node with this first process.
fn processes_in(pid1: i32, name: &str) -> std::io::Result<Vec<i32>> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let of_node = namespace(pid1)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse::<i32>().ok()) else { continue };
        // Any of them may end meanwhile.
        let is_called = std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        if is_called && namespace(pid).is_ok_and(|its| its == of_node) {
            found.push(pid);
        }
    }
    Ok(found)
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("nodes", &self.nodes).field("api_server", &self.api_server).finish_non_exhaustive()
    }
}
