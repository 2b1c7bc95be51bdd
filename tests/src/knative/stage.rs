//! A real API server with nodes, the daemons' pods and revisions as objects.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use k8s_api::seika::Seika;
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use local_control_plane::components::Components;
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place, User};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::audit::Audit;
use crate::api_server::{SYSTEM_NAMESPACE, apply, documents, token_of};
use crate::eventually;

/// The namespace of all revisions.
pub const NAMESPACE: &str = "default";
/// The daemon that is measured.
pub const ACCOUNT: &str = "extra-controller";
const MANIFESTS: [&str; 5] = [
    include_str!("../../../deploy/seika-controller/crd.yaml"),
    include_str!("../../../deploy/seika-controller/rbac.yaml"),
    include_str!("../../../deploy/extra-controller/service-account.yaml"),
    include_str!("../../../deploy/extra-controller/rbac.yaml"),
    include_str!("../../../deploy/latency-probe/pins.yaml"),
];
const DEFINITIONS: [(&str, &str, &str); 4] = [
    ("autoscaling.internal.knative.dev", "PodAutoscaler", "podautoscalers"),
    ("networking.internal.knative.dev", "ServerlessService", "serverlessservices"),
    ("networking.internal.knative.dev", "Ingress", "ingresses"),
    ("serving.knative.dev", "Revision", "revisions"),
];

/// The API server and what is on it.
pub struct Stage {
    // Before the folder, so that its processes end before what they write into goes.
    control_plane: ControlPlane,
    /// What the extra-controller writes.
    pub audit: Audit,
    /// The nodes, in name order.
    pub nodes: Vec<String>,
    folder: TempDir,
}

/// What Knative knows of a revision that is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Born {
    /// Whether it has run before and is at zero now; otherwise its Deployment begins with one pod.
    /// A daemon that runs already may see it before its status says so, and gives it its first pod.
    pub at_zero: bool,
    /// In seconds; the KPA's shortest is 6.
    pub window_seconds: u32,
}

impl Stage {
    /// Starts it with this many nodes, inside [`super::network::in_own_network`].
    ///
    /// # Errors
    /// Where it does not start or refuses what is put there.
    pub async fn start(components: &Components, node_count: u8) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("kantai-scorecard-").tempdir()?;
        let audit = Audit::of(ACCOUNT, folder.path())?;
        let options = Options {
            folder: folder.path().to_owned(),
            place: Place::Loopback,
            controllers: Controllers::without_nodes(),
            scheduler: false,
            lifetime: Lifetime::WithUs,
            api_server_flags: audit.api_server_flags(),
            controller_manager_flags: Vec::new(),
        };
        let mut control_plane = ControlPlane::start(&options, components).await?;
        control_plane.wait_for_controllers().await?;
        let nodes = (1..=node_count).map(|node| format!("node{node:02}")).collect();
        let stage = Self { control_plane, audit, nodes, folder };
        stage.furnish().await?;
        Ok(stage)
    }

    async fn furnish(&self) -> anyhow::Result<()> {
        let client = self.client();
        for namespace in [SYSTEM_NAMESPACE, "knative-serving"] {
            apply(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
        }
        for (group, kind, plural) in DEFINITIONS {
            apply(&client, &definition(group, kind, plural)).await?;
        }
        for manifest in MANIFESTS {
            for document in documents(manifest)? {
                apply(&client, &document).await?;
            }
        }
        // Knative's shortest grace period instead of the usual half minute.
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
            "data": {"scale-to-zero-grace-period": "6s"}});
        apply(&client, &config).await?;
        eventually("the namespace has its service account", async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
            Ok(accounts.get_opt("default").await?.ok_or_else(|| "none".to_owned()))
        })
        .await?;
        eventually("the definitions are served", async || {
            let seikas = Api::<Seika>::all(client.clone()).list(&ListParams::default()).await.is_ok();
            let autoscalers = Api::<PodAutoscaler>::all(client.clone()).list(&ListParams::default()).await.is_ok();
            let services = Api::<ServerlessService>::all(client.clone()).list(&ListParams::default()).await.is_ok();
            Ok(if seikas && autoscalers && services { Ok(()) } else { Err("not yet".to_owned()) })
        })
        .await?;
        for (number, node) in (1..).zip(&self.nodes) {
            self.add_node(node).await?;
            for daemon in ["kantai-gateway", "latency-probe"] {
                self.daemon_pod(daemon, node, address(number, 1)).await?;
            }
        }
        Ok(())
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

    /// Where files of a measurement may be; they go with the stage.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Objects of a kind, among the revisions.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// A kubeconfig with a daemon's own rights.
    ///
    /// # Errors
    /// Where the API server gives out no token or the file cannot be written.
    pub async fn kubeconfig(&self, account: &str) -> anyhow::Result<PathBuf> {
        let admins = std::fs::read_to_string(self.control_plane.kubeconfig(User::Admin))?;
        let mut kubeconfig: Value = serde_saphyr::from_str(&admins)?;
        kubeconfig["users"][0]["user"] = json!({ "token": token_of(&self.control_plane, account).await? });
        let path = self.folder().join(format!("kubeconfig-{account}"));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(kubeconfig.to_string().as_bytes())?;
        Ok(path)
    }

    async fn add_node(&self, name: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}}))?).await?;
        self.set_node_ready(name, "True").await?;
        // Nodes are born with a taint that the node lifecycle controller would take away.
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await?;
        Ok(())
    }

    /// Sets the Ready condition of a node as its kubelet would (`True`, `False`), or as Kubernetes
    /// does for a silent kubelet (`Unknown`).
    ///
    /// # Errors
    /// What the API server says.
    pub async fn set_node_ready(&self, name: &str, status: &str) -> anyhow::Result<()> {
        let status = json!({"status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": status}]}});
        Api::<Node>::all(self.client()).patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
        Ok(())
    }

    /// A pod that stands for a daemon's: ready, on `node`, with `address`.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn daemon_pod(&self, name: &str, node: &str, address: IpAddr) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), SYSTEM_NAMESPACE);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-{node}"), "labels": {"app.kubernetes.io/name": name}},
            "spec": {"nodeName": node, "containers": [{"name": name, "image": format!("dev.local/{name}")}]},
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        set_ready(&pods, &format!("{name}-{node}"), true, Some(address)).await
    }

    /// What Knative makes for a revision: its Deployment and its PodAutoscaler.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn add_revision(&self, name: &str, born: Born) -> anyhow::Result<()> {
        let uid = format!("uid-of-{name}");
        let labels = json!({"serving.knative.dev/revision": name, "serving.knative.dev/revisionUID": uid,
            "serving.knative.dev/service": name});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": format!("{name}-deployment"), "namespace": NAMESPACE, "labels": labels},
            "spec": {"replicas": if born.at_zero { 0 } else { 1 },
                "selector": {"matchLabels": {"serving.knative.dev/revisionUID": uid}},
                "template": {"metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "user-container", "image": "dev.local/kantai/hello:0.1.0"}]}}},
        });
        apply(&self.client(), &deployment).await?;
        let autoscaler = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {
                "autoscaling.knative.dev/class": k8s_api::CLASS, "autoscaling.knative.dev/metric": "",
                "autoscaling.knative.dev/target": "10",
                "autoscaling.knative.dev/window": format!("{}s", born.window_seconds.max(6))}},
            "spec": {"protocolType": "http1", "reachability": "Reachable",
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{name}-deployment")}},
        });
        let autoscalers = self.api::<PodAutoscaler>();
        autoscalers.create(&PostParams::default(), &serde_json::from_value(autoscaler)?).await?;
        if born.at_zero {
            let condition =
                |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = json!({"status": {"observedGeneration": 1, "conditions": [condition("Active", "False"),
                condition("Ready", "False"), condition("ScaleTargetInitialized", "True")]}});
            autoscalers.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        }
        Ok(())
    }

    /// Knative deletes a revision: what depends on it is the garbage collector's.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn remove_revision(&self, name: &str) -> anyhow::Result<()> {
        self.api::<PodAutoscaler>().delete(name, &DeleteParams::background()).await?;
        let deployments = self.api::<k8s_openapi::api::apps::v1::Deployment>();
        deployments.delete(&format!("{name}-deployment"), &DeleteParams::background()).await?;
        Ok(())
    }
}

/// The address of the `host`-th thing on the `node`-th node, both from 1.
#[must_use]
pub fn address(node: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, 44, node, host).into()
}

/// The kubelet's part of a pod's status.
///
/// # Errors
/// What the API server says.
pub async fn set_ready(pods: &Api<Pod>, name: &str, is_ready: bool, address: Option<IpAddr>) -> anyhow::Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let mut status = json!({"phase": "Running",
        "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }, "lastTransitionTime": now}]});
    if let Some(address) = address {
        status["podIP"] = json!(address);
    }
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

fn definition(group: &str, kind: &str, plural: &str) -> Value {
    let version = if group == "serving.knative.dev" { "v1" } else { "v1alpha1" };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    })
}

/// The revision that a pod belongs to.
#[must_use]
pub fn revision_of(pod: &Pod) -> Option<&str> {
    pod.labels().get("serving.knative.dev/revision").map(String::as_str)
}

/// Whether a pod is ready and is not going.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let says_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    says_ready && pod.metadata.deletion_timestamp.is_none()
}
