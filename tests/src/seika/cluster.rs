//! A namespace with a controller of its own, under the ServiceAccount and the rights that it has in
//! a cluster.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_api::seika::{NODE_LABEL, Seika};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_control_plane::control_plane::{ControlPlane, User};
use seika_controller::ControllerOptions;
use seika_controller::controller::{Ended, run};
use seika_controller::metrics::Metrics;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::observer::Observer;
use crate::api_server::{SYSTEM_NAMESPACE, apply, config_of, documents, token_of};

const CRD: &str = include_str!("../../../deploy/seika-controller/crd.yaml");
const RBAC: &str = include_str!("../../../deploy/seika-controller/rbac.yaml");
const SAMPLE: &str = include_str!("../../../examples/manifests/seika-sample.yaml");
/// The controller's ServiceAccount.
const ACCOUNT: &str = "seika-controller";

/// One control plane for all cases; each case has a namespace and nodes of its own.
pub struct Cluster {
    control_plane: ControlPlane,
    cases: AtomicUsize,
}

impl Cluster {
    /// Starts one for tests, with our definition and rights in place.
    ///
    /// # Errors
    /// Where it does not start or refuses them.
    pub async fn start() -> anyhow::Result<Self> {
        Self::on(ControlPlane::for_tests().await?).await
    }

    /// Puts our definition and rights in place on `control_plane`.
    ///
    /// # Errors
    /// Where it refuses them.
    pub async fn on(control_plane: ControlPlane) -> anyhow::Result<Self> {
        let client = control_plane.client();
        apply(&client, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM_NAMESPACE } })).await?;
        for manifest in documents(CRD)?.into_iter().chain(documents(RBAC)?) {
            apply(&client, &manifest).await?;
        }
        until("the definition is served", async || {
            Ok(Api::<Seika>::all(client.clone()).list(&ListParams::default()).await.is_ok())
        })
        .await?;
        Ok(Self { control_plane, cases: AtomicUsize::new(0) })
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// A client with the controller's own rights.
    ///
    /// # Errors
    /// Where the API server gives out no token.
    pub async fn controllers_client(&self) -> anyhow::Result<Client> {
        Ok(k8s_api::client::client(self.controllers_config().await?)?)
    }

    /// The configuration of a client with the controller's own rights.
    ///
    /// # Errors
    /// Where the API server gives out no token.
    pub async fn controllers_config(&self) -> anyhow::Result<kube::Config> {
        config_of(&self.control_plane, ACCOUNT).await
    }

    /// A kubeconfig with the controller's own rights, for a process.
    ///
    /// # Errors
    /// Where the API server gives out no token or the file cannot be written.
    pub async fn controllers_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let admins = std::fs::read_to_string(self.control_plane.kubeconfig(User::Admin))?;
        let mut kubeconfig: Value = serde_saphyr::from_str(&admins)?;
        kubeconfig["users"][0]["user"] = json!({ "token": token_of(&self.control_plane, ACCOUNT).await? });
        let path = self.control_plane.folder().join("kubeconfig/seika-controller");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(kubeconfig.to_string().as_bytes())?;
        Ok(path)
    }

    /// Lets a controller have its Lease in `namespace`, with the rights that it has in its own, so
    /// that several can lead at once.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn allow_lease_in(&self, namespace: &str) -> anyhow::Result<()> {
        let of_lease = |manifest: &Value| matches!(manifest["kind"].as_str(), Some("Role" | "RoleBinding"));
        for mut manifest in documents(RBAC)?.into_iter().filter(of_lease) {
            manifest["metadata"]["namespace"] = json!(namespace);
            apply(&self.client(), &manifest).await?;
        }
        Ok(())
    }

    /// A new namespace with `node_count` nodes and a controller.
    pub async fn case(&self, node_count: usize) -> anyhow::Result<Case> {
        let mut case = self.case_without_controller(node_count).await?;
        case.controller = Some(self.controller(&case.namespace).await?);
        Ok(case)
    }

    /// The same without a controller.
    pub async fn case_without_controller(&self, node_count: usize) -> anyhow::Result<Case> {
        let number = self.cases.fetch_add(1, Ordering::Relaxed);
        let nodes = (1..=node_count).map(|node| format!("c{number}-node{node}")).collect();
        let case = self.case_number(number, nodes).await?;
        for node in &case.nodes {
            case.add_node(node).await?;
        }
        Ok(case)
    }

    /// A new namespace for nodes that are there already, without a controller.
    pub async fn case_on(&self, nodes: &[String]) -> anyhow::Result<Case> {
        self.case_number(self.cases.fetch_add(1, Ordering::Relaxed), nodes.to_owned()).await
    }

    async fn case_number(&self, number: usize, nodes: Vec<String>) -> anyhow::Result<Case> {
        let namespace = format!("case-{number}");
        let client = self.client();
        let named = Namespace {
            metadata: kube::api::ObjectMeta { name: Some(namespace.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &named).await?;
        let case = Case {
            pods: Api::namespaced(client.clone(), &namespace),
            seikas: Api::namespaced(client.clone(), &namespace),
            nodes,
            client,
            namespace,
            controller: None,
        };
        // Pods of a namespace need its service account.
        let accounts: Api<ServiceAccount> = Api::namespaced(case.client.clone(), &case.namespace);
        until("the namespace has its service account", async || Ok(accounts.get_opt("default").await?.is_some())).await?;
        Ok(case)
    }

    /// A controller for `namespace`.
    pub async fn controller(&self, namespace: &str) -> anyhow::Result<Controller> {
        Ok(Controller::start(self.controllers_client().await?, namespace))
    }
}

/// A controller at work; dropping it is a kill.
pub struct Controller {
    stop: CancellationToken,
    task: JoinHandle<Result<(), Ended>>,
}

impl Controller {
    /// Starts one that looks after `namespace`.
    pub fn start(client: Client, namespace: &str) -> Self {
        Self::with_metrics(client, namespace, Metrics::new(&mut prometheus_client::registry::Registry::default()))
    }

    /// The same, counting in `metrics`.
    pub fn with_metrics(client: Client, namespace: &str, metrics: Metrics) -> Self {
        let stop = CancellationToken::new();
        let options = ControllerOptions { namespace: Some(namespace.to_owned()), ..ControllerOptions::default() };
        let own_pod = event_writer::pod(SYSTEM_NAMESPACE, ACCOUNT);
        let task = tokio::spawn(run(client, options, own_pod, metrics, stop.clone()));
        Self { stop, task }
    }

    /// Lets it finish what it is doing.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok((&mut self.task).await??)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A namespace, its nodes and its controller.
pub struct Case {
    /// Its name.
    pub namespace: String,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// A client with every right.
    pub client: Client,
    /// The namespace's pods.
    pub pods: Api<Pod>,
    /// The namespace's Seikas.
    pub seikas: Api<Seika>,
    /// Its controller, if it has one.
    pub controller: Option<Controller>,
}

impl Case {
    /// The seed's sample with these counts, by node number from 1.
    pub fn sample(&self, counts: &[i32]) -> anyhow::Result<Value> {
        let mut sample = documents(SAMPLE)?.remove(0);
        sample["metadata"]["namespace"] = json!(self.namespace);
        sample["spec"]["repurika"] = self.counts(counts);
        Ok(sample)
    }

    /// `spec.repurika` with these counts, by node number from 1.
    pub fn counts(&self, counts: &[i32]) -> Value {
        self.nodes.iter().zip(counts).map(|(node, count)| (node.clone(), json!(count))).collect::<serde_json::Map<_, _>>().into()
    }

    /// Creates a Seika.
    pub async fn create(&self, seika: Value) -> anyhow::Result<Seika> {
        Ok(self.seikas.create(&PostParams::default(), &serde_json::from_value(seika)?).await?)
    }

    /// Sets the counts of `hello`.
    pub async fn set(&self, counts: &[i32]) -> anyhow::Result<()> {
        let patch = json!({ "spec": { "repurika": self.counts(counts) } });
        self.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Adds a node that is ready.
    pub async fn add_node(&self, name: &str) -> anyhow::Result<()> {
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "Here", "message": "",
            "lastHeartbeatTime": null, "lastTransitionTime": null }] } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await?;
        // The API server taints what is new; who would take that away are controllers that do not
        // run here.
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": { "taints": [] } }))).await?;
        Ok(())
    }

    /// Removes a node.
    pub async fn remove_node(&self, name: &str) -> anyhow::Result<()> {
        Api::<Node>::all(self.client.clone()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Active pods in name order.
    pub async fn active(&self) -> anyhow::Result<Vec<Pod>> {
        let pods = self.pods.list(&ListParams::default()).await?;
        Ok(pods.items.into_iter().filter(is_active).collect())
    }

    /// UIDs of active pods by name. A name alone is no pod: that of one that is gone may be taken
    /// again.
    pub async fn uids(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(self.active().await?.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }

    /// Active pods of Seikas per node, in the order of the nodes.
    pub async fn per_node(&self) -> anyhow::Result<Vec<usize>> {
        let mut pods = self.active().await?;
        pods.retain(is_of_a_seika);
        Ok(self.nodes.iter().map(|node| pods.iter().filter(|pod| node_of(pod) == node).count()).collect())
    }

    /// Waits until [`Case::per_node`] says so.
    pub async fn until_per_node(&self, wanted: &[usize]) -> anyhow::Result<()> {
        let last = Mutex::new(Vec::new());
        let reached = until(&format!("pods per node are {wanted:?}"), async || {
            let now = self.per_node().await?;
            let done = now == wanted;
            *last.lock().unwrap() = now;
            Ok(done)
        })
        .await;
        reached.with_context(|| format!("they are {:?}", last.lock().unwrap()))
    }

    /// Waits until `holds` says yes of the Seika `hello`.
    pub async fn until_status(&self, what: &str, holds: impl Fn(&Seika) -> bool) -> anyhow::Result<Seika> {
        let last = Mutex::new(None);
        let reached = until(what, async || {
            let seika = self.seikas.get("hello").await?;
            let done = holds(&seika);
            *last.lock().unwrap() = Some(seika);
            Ok(done)
        })
        .await;
        let last = last.into_inner().unwrap();
        reached.with_context(|| format!("the status is {:#?}", last.as_ref().map(|seika| &seika.status)))?;
        last.context("no status")
    }

    /// Does the scheduler's part.
    pub async fn bind(&self, pod: &Pod) -> anyhow::Result<()> {
        let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod.name_any() },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node_of(pod) } });
        let _: Value = self.pods.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await?;
        Ok(())
    }

    /// Does the scheduler's and the kubelet's part: binds the pod and makes it ready.
    pub async fn make_ready(&self, pod: &Pod) -> anyhow::Result<()> {
        if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
            self.bind(pod).await?;
        }
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let status = json!({ "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }] } });
        self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// [`Case::make_ready`] for all active pods.
    pub async fn make_all_ready(&self) -> anyhow::Result<()> {
        for pod in self.active().await? {
            self.make_ready(&pod).await?;
        }
        Ok(())
    }

    /// Counts, from now on, every pod that comes and goes.
    pub async fn observe(&self) -> anyhow::Result<Observer> {
        Observer::start(self.pods.clone()).await
    }
}

/// The node that a pod of a Seika is for.
pub fn node_of(pod: &Pod) -> &str {
    pod.labels().get(NODE_LABEL).map_or("", String::as_str)
}

/// It is neither going nor finished.
pub fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

/// A Seika controls it.
pub fn is_of_a_seika(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| owner.kind == "Seika" && owner.controller == Some(true))
}

/// Polls until `holds`, for at most a minute: the garbage collector looks for new kinds of owners
/// only twice a minute.
pub async fn until(what: &str, holds: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
