//! A real API server with what Knative would have put there for one revision.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser as _;
use extra_controller::{Options, run_with};
use k8s_api::seika::Seika;
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServiceAccount};
use kantai_tests::api_server::config_of;
use kantai_tests::knative::audit::Audit;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt as _};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options as ControlPlaneOptions, Place};
use local_control_plane::progress::Progress;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fakes::{self, Gateways};

pub(crate) const REVISION: &str = "hello-00001";
const NODES: [(&str, Ipv4Addr); 3] =
    [("node1", Ipv4Addr::new(127, 0, 1, 1)), ("node2", Ipv4Addr::new(127, 0, 1, 2)), ("node3", Ipv4Addr::new(127, 0, 1, 3))];
const MANIFESTS: [&str; 5] = [
    include_str!("../../../deploy/seika-controller/crd.yaml"),
    include_str!("../../../deploy/extra-controller/service-account.yaml"),
    include_str!("../../../deploy/extra-controller/rbac.yaml"),
    include_str!("../../../deploy/latency-probe/pins.yaml"),
    include_str!("../../../deploy/hand-back/rbac.yaml"),
];

const SERVICE: &str = include_str!("../../../deploy/extra-controller/service.yaml");

/// The API server, and everything around our daemon.
pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    pub(crate) gateways: Gateways,
    /// What our daemons write.
    pub(crate) audit: Audit,
    _folder: tempfile::TempDir,
    ingress_port: u16,
    prober_port: u16,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) api: String,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    /// Asks it to stop, and waits.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await?
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = reqwest::get(format!("http://{}{path}", self.api)).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }
}

impl Cluster {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let audit = Audit::of("extra-controller", folder.path())?;
        let control_plane = control_plane(folder.path(), &audit).await?;
        let client = control_plane.client();
        for namespace in ["kantai-system", "knative-serving"] {
            apply(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
        }
        let definitions = [
            definition("autoscaling.internal.knative.dev", "PodAutoscaler", "podautoscalers"),
            definition("networking.internal.knative.dev", "ServerlessService", "serverlessservices"),
            definition("serving.knative.dev", "Revision", "revisions"),
        ];
        for definition in &definitions {
            apply(&client, definition).await?;
        }
        for document in MANIFESTS.iter().flat_map(|manifest| manifest.split("\n---\n")) {
            apply(&client, &serde_saphyr::from_str::<Value>(document)?).await?;
        }
        let gateways = Gateways::default();
        let ingress_port = gateways.serve(NODES[0].1, REVISION).await?;
        // Knative's shortest grace period: the test need not wait for the usual half minute.
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
            "data": {"scale-to-zero-grace-period": "6s"}});
        apply(&client, &config).await?;
        let prober_port = fakes::serve_probers(&NODES).await?;
        for (node, address) in NODES {
            let nodes: Api<Node> = Api::all(client.clone());
            nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": node}}))?).await?;
            let status = json!({"status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}]}});
            nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(status)).await?;
            untaint(&nodes, node).await?;
            service_account(&client, "kantai-system").await?;
            fakes::daemon_pod(&client, "kantai-gateway", node, (address, 9000).into()).await?;
            fakes::daemon_pod(&client, "latency-probe", node, (address, prober_port).into()).await?;
        }
        fakes::daemon_pod(&client, "locality-ingress", NODES[0].0, (NODES[0].1, ingress_port).into()).await?;
        until("the definitions are served", async || {
            let seikas = Api::<Seika>::all(client.clone()).list(&ListParams::default()).await.is_ok();
            let autoscalers = Api::<PodAutoscaler>::all(client.clone()).list(&ListParams::default()).await.is_ok();
            Ok(seikas && autoscalers && Api::<ServerlessService>::all(client.clone()).list(&ListParams::default()).await.is_ok())
        })
        .await?;
        let stop = CancellationToken::new();
        let metrics = seika_controller::metrics::Metrics::new(&mut prometheus_client::registry::Registry::default());
        let options = seika_controller::ControllerOptions::default();
        let own_pod = event_writer::pod("kantai-system", "seika-controller");
        let seikas = seika_controller::controller::run(client.clone(), options, own_pod, metrics, stop.clone());
        let loud = async |name: &str, part: anyhow::Result<()>| {
            if let Err(error) = part {
                eprintln!("{name}: {error:#}");
            }
        };
        let (kubelets, services) = (fakes::kubelets(client.clone()), fakes::serverless_services(client));
        let tasks = vec![
            tokio::spawn(async move { loud("seikas", seikas.await.map_err(Into::into)).await }),
            tokio::spawn(async move { loud("kubelets", kubelets.await).await }),
            tokio::spawn(async move { loud("serverless services", services.await).await }),
        ];
        Ok(Self { control_plane, gateways, audit, _folder: folder, ingress_port, prober_port, tasks, stop })
    }

    /// Our daemon, under its own ServiceAccount and rights, as the instance `name`.
    pub(crate) async fn daemon(&self, name: &str) -> anyhow::Result<Daemon> {
        self.daemon_with(name, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn daemon_with(&self, name: &str, further: &[&str]) -> anyhow::Result<Daemon> {
        let api = free_address()?;
        let mut arguments = vec![
            "extra-controller".to_owned(),
            format!("--api-listen={api}"),
            "--ops-listen=127.0.0.1:0".to_owned(),
            format!("--ingress-port={}", self.ingress_port),
            format!("--prober-port={}", self.prober_port),
            "--latency-interval=1s".to_owned(),
            format!("--pod-name={name}"),
        ];
        arguments.extend(further.iter().map(|&argument| argument.to_owned()));
        let options = Options::try_parse_from(arguments)?;
        let stop = CancellationToken::new();
        let client = Client::try_from(config_of(&self.control_plane, "extra-controller").await?)?;
        // Services have no address here that anybody answers at.
        let prober = std::sync::Arc::new(|_| Box::pin(async { true }) as futures::future::BoxFuture<'static, bool>);
        let task = tokio::spawn(run_with(options, client, prober, stop.clone()));
        Ok(Daemon { api, stop, task })
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.control_plane.client(), "default")
    }

    /// What Knative makes for a revision: a Deployment with one pod, and the PodAutoscaler.
    pub(crate) async fn revision(&self) -> anyhow::Result<()> {
        self.revision_of(&json!({"containers": [{"name": "user-container", "image": "dev.local/kantai/hello:0.1.0"}]})).await
    }

    /// The same for pods of this spec.
    pub(crate) async fn revision_of(&self, pods: &Value) -> anyhow::Result<()> {
        let labels = json!({
            "serving.knative.dev/revision": REVISION, "serving.knative.dev/revisionUID": "uid-1", "serving.knative.dev/service": "hello",
        });
        let deployment = format!("{REVISION}-deployment");
        apply(
            &self.control_plane.client(),
            &json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": deployment, "namespace": "default", "labels": labels},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"serving.knative.dev/revisionUID": "uid-1"}},
                    "template": {"metadata": {"labels": labels}, "spec": pods}},
            }),
        )
        .await?;
        apply(
            &self.control_plane.client(),
            &json!({
                "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
                "metadata": {"name": REVISION, "namespace": "default", "labels": labels, "annotations": {
                    "autoscaling.knative.dev/class": "miporin.autoscaling.bonavadeur.io", "autoscaling.knative.dev/metric": "",
                    "autoscaling.knative.dev/target": "10", "autoscaling.knative.dev/window": "6s"}},
                "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
                    "protocolType": "http1", "reachability": "Reachable"},
            }),
        )
        .await
    }

    /// A pod that stands for one of our daemon on `node`, and its name.
    pub(crate) async fn own_pod(&self, node: &str) -> anyhow::Result<String> {
        let client = self.control_plane.client();
        fakes::daemon_pod(&client, "extra-controller", node, (Ipv4Addr::LOCALHOST, 18080).into()).await?;
        Ok(format!("extra-controller-{node}"))
    }

    /// The pods that our daemon's Service selects.
    pub(crate) async fn behind_the_service(&self) -> anyhow::Result<Vec<String>> {
        let service: Service = serde_saphyr::from_str(SERVICE)?;
        let selector = service.spec.and_then(|spec| spec.selector).context("the Service selects nothing")?;
        let selector: Vec<String> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client(), "kantai-system");
        let pods = pods.list(&ListParams::default().labels(&selector.join(","))).await?;
        Ok(pods.iter().map(kube::ResourceExt::name_any).collect())
    }

    /// Somebody labels a pod as the one that leads.
    pub(crate) async fn label_leading(&self, pod: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client(), "kantai-system");
        let label = json!({"metadata": {"labels": {extra_controller::LEADS: "true"}}});
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(label)).await?;
        Ok(())
    }

    /// The switch.
    pub(crate) async fn toggle(&self, on: bool) -> anyhow::Result<()> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config-ikukantai", "namespace": "default"},
            "data": {"ikukantai-miporin-enable-yukari": on.to_string()}});
        apply(&self.control_plane.client(), &map).await
    }

    /// Speaks as the account of the Job that comes before an uninstall.
    pub(crate) async fn hand_back_client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(config_of(&self.control_plane, "kantai-hand-back").await?)?)
    }

    pub(crate) async fn autoscaler(&self) -> anyhow::Result<PodAutoscaler> {
        Ok(self.api().get(REVISION).await?)
    }

    /// Status of a condition of the PodAutoscaler: `True`, `False`, `Unknown`, or empty.
    pub(crate) async fn condition(&self, kind: &str) -> anyhow::Result<String> {
        let status = self.autoscaler().await?.status.unwrap_or_default();
        Ok(status.condition(kind).map(|condition| format!("{:?}", condition.status)).unwrap_or_default())
    }

    /// The Seika's counts; `None` where there is no Seika.
    pub(crate) async fn counts(&self) -> anyhow::Result<Option<Vec<(String, i32)>>> {
        let seika = self.api::<Seika>().get_opt(REVISION).await?;
        Ok(seika.map(|seika| seika.spec.repurika.into_iter().collect()))
    }

    pub(crate) async fn replicas(&self) -> anyhow::Result<i32> {
        let deployment = self.api::<Deployment>().get(&format!("{REVISION}-deployment")).await?;
        Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// Nodes of the revision's pods that are not going, in order.
    pub(crate) async fn pods(&self) -> anyhow::Result<Vec<String>> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await?;
        let mut nodes: Vec<String> = pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| pod.spec.and_then(|spec| spec.node_name).unwrap_or_default())
            .collect();
        nodes.sort();
        Ok(nodes)
    }
}

/// As [`ControlPlane::for_tests`], with an account of what our daemons write.
async fn control_plane(folder: &Path, audit: &Audit) -> anyhow::Result<ControlPlane> {
    let wanted = [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager];
    let components = tokio::task::spawn_blocking(move || Components::ensure(&wanted, &Progress::to_stderr())).await??;
    let options = ControlPlaneOptions {
        folder: folder.to_owned(),
        place: Place::Loopback,
        controllers: Controllers::without_nodes(),
        scheduler: false,
        lifetime: Lifetime::WithUs,
        api_server_flags: audit.api_server_flags(),
        controller_manager_flags: Vec::new(),
    };
    let mut control_plane = ControlPlane::start(&options, &components).await?;
    control_plane.wait_for_controllers().await?;
    Ok(control_plane)
}

async fn untaint(nodes: &Api<Node>, node: &str) -> anyhow::Result<()> {
    // Nodes are born with a taint that the node lifecycle controller would take away.
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await?;
    Ok(())
}

async fn service_account(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    until("the namespace has its service account", async || Ok(accounts.get_opt("default").await?.is_some())).await
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

fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

pub(crate) async fn apply(client: &Client, manifest: &Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(manifest.clone())?;
    let types = object.types.clone().context("a manifest without a kind")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let mut found = kube::discovery::pinned_kind(client, &gvk).await;
    // A definition is served a moment after it was made.
    for _ in 0..1_200 {
        if found.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = kube::discovery::pinned_kind(client, &gvk).await;
    }
    let (resource, _) = found?;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&object.name_any(), &PatchParams::apply("test").force(), &Patch::Apply(manifest)).await?;
    Ok(())
}

/// Waits for something; says how long it took.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        anyhow::ensure!(begun.elapsed() < kantai_tests::PATIENCE * 2, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("{:>7.0?}  {what}", begun.elapsed());
    Ok(())
}
