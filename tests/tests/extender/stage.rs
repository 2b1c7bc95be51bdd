//! An API server with three nodes: node1 and node2 in zone west, 1 ms apart, and node3 in zone
//! east, 50 ms away, where the Service `cart` has its endpoint.

use std::future::Future;
use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use clap::Parser as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::events::v1::Event;
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, config_of};
use kantai_tests::daemon::Daemon;
use kantai_tests::eventually;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options as ControlPlaneOptions, Place, User};
use local_control_plane::progress::Progress;
use scheduler_extender::{Options, run};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NODES: [(&str, Ipv4Addr, &str); 3] = [
    ("node1", Ipv4Addr::new(127, 0, 2, 1), "west"),
    ("node2", Ipv4Addr::new(127, 0, 2, 2), "west"),
    ("node3", Ipv4Addr::new(127, 0, 2, 3), "east"),
];
/// What the page tells the scheduler.
const CONFIGURATION: &str = include_str!("../../../deploy/scheduler-extender/scheduler.yaml");
const ACCOUNT: &str = "scheduler-extender";
const RESOURCE: &str = "placement.kantai.dev/near";

/// The API server, and what our daemon reads.
pub(crate) struct Stage {
    control_plane: ControlPlane,
    components: Components,
    prober_port: u16,
    folder: tempfile::TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Our daemon.
pub(crate) struct Extender {
    url: String,
    ops: String,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Extender {
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = reqwest::get(format!("http://{}{path}", self.ops)).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.get("/metrics").await?.1)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

impl Stage {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let wanted = [
            Component::KubeApiserver,
            Component::Etcd,
            Component::KubeControllerManager,
            Component::KubeScheduler,
            Component::Kubectl,
        ];
        let components = tokio::task::spawn_blocking(move || Components::ensure(&wanted, &Progress::to_stderr())).await??;
        let folder = tempfile::Builder::new().prefix("kantai-extender-").tempdir()?;
        let options = ControlPlaneOptions {
            folder: folder.path().to_owned(),
            place: Place::Loopback,
            controllers: Controllers::without_nodes(),
            scheduler: false,
            lifetime: Lifetime::WithUs,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
        };
        let mut control_plane = ControlPlane::start(&options, &components).await?;
        control_plane.wait_for_controllers().await?;
        let mut stage = Self { control_plane, components, prober_port: 0, folder, tasks: Vec::new() };
        stage.serve_probers().await?;
        stage.put_objects().await?;
        Ok(stage)
    }

    async fn serve_probers(&mut self) -> anyhow::Result<()> {
        for (node, address, zone) in NODES {
            let listener = TcpListener::bind((address, self.prober_port)).await?;
            self.prober_port = listener.local_addr()?.port();
            let others = NODES.iter().filter(|(other, ..)| *other != node);
            let peers: Vec<Value> = others
                .map(|(other, _, other_zone)| {
                    let rtt = if zone == *other_zone { 0.001 } else { 0.050 };
                    json!({"to": other, "state": "known", "jitter_seconds": 0.0, "loss_ratio": 0.0, "age_seconds": 0.1,
                        "samples": 10, "rtt_seconds": {"min": rtt, "p50": rtt, "p90": rtt, "p99": rtt, "ewma": rtt}})
                })
                .collect();
            let row = json!({"from": node, "measured_at_unix_seconds": 1.5e9, "peers": peers});
            let router = Router::new().route("/v1/row", get(async move || axum::Json(row)));
            self.tasks.push(tokio::spawn(async { drop(axum::serve(listener, router).await) }));
        }
        Ok(())
    }

    async fn put_objects(&self) -> anyhow::Result<()> {
        let client = self.client();
        let system = serde_json::from_value(json!({"metadata": {"name": SYSTEM_NAMESPACE}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &system).await?;
        for document in kantai_tests::api_server::documents(include_str!("../../../deploy/scheduler-extender/rbac.yaml"))? {
            apply(&client, &document).await?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        until("the namespace has its service account", async || Ok(accounts.get_opt("default").await?.is_some())).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        for (node, address, zone) in NODES {
            let labels = json!({"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": node});
            let object = serde_json::from_value(json!({"metadata": {"name": node, "labels": labels}}))?;
            nodes.create(&PostParams::default(), &object).await?;
            let room = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
            let status = json!({"status": {"capacity": room, "allocatable": room,
                "conditions": [{"type": "Ready", "status": "True"}]}});
            nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(status)).await?;
            // Nodes are born with a taint that the node lifecycle controller would take away.
            nodes.patch(node, &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await?;
            let label = json!({"app.kubernetes.io/name": "latency-probe"});
            self.running(SYSTEM_NAMESPACE, &format!("prober-{node}"), node, &label, address).await?;
        }
        self.running("default", "cart", "node3", &json!({"app": "cart"}), Ipv4Addr::new(10, 0, 0, 3)).await?;
        // Who is scheduled before endpoints are known goes anywhere.
        let service = kantai_tests::api_server::documents(include_str!("../../../examples/manifests/near.yaml"))?.remove(0);
        apply(&client, &service).await?;
        let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
        until("the service has its endpoint", async || {
            let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=cart")).await?;
            let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) == Some(true);
            Ok(slices.items.iter().any(|slice| slice.endpoints.iter().any(ready)))
        })
        .await
    }

    /// A pod that is bound and ready.
    async fn running(&self, namespace: &str, name: &str, node: &str, labels: &Value, address: Ipv4Addr) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let pod = json!({"metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "one", "image": "none"}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    fn client(&self) -> Client {
        self.control_plane.client()
    }

    fn in_default(&self) -> Api<Pod> {
        Api::namespaced(self.client(), "default")
    }

    /// Our daemon, under its own rights, once it knows what lies between all nodes.
    pub(crate) async fn extender(&self, further: &[&str]) -> anyhow::Result<Extender> {
        let (listen, ops) = (free_address()?, free_address()?);
        let mut arguments = vec![
            ACCOUNT.to_owned(),
            format!("--extender-listen={listen}"),
            format!("--ops-listen={ops}"),
            format!("--prober-port={}", self.prober_port),
            "--latency-interval=1s".to_owned(),
        ];
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        let options = Options::try_parse_from(arguments)?;
        let client = Client::try_from(config_of(&self.control_plane, ACCOUNT).await?)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(options, client, stop.clone()));
        let extender = Extender { url: format!("http://{listen}/any/prefix"), ops, stop, task };
        until("all pairs are known", async || {
            let metrics = extender.metrics().await.unwrap_or_default();
            let is_ready = extender.get("/readyz").await.is_ok_and(|(code, _)| code == 200);
            Ok(is_ready && metrics.contains("kantai_scheduler_extender_latency_pairs_known 6"))
        })
        .await?;
        Ok(extender)
    }

    /// The real scheduler with the configuration that ships, after `change` to what it says of us.
    pub(crate) async fn scheduler(&self, extender: &Extender, change: impl FnOnce(&mut Value)) -> anyhow::Result<Daemon> {
        let mut configuration: Value = serde_saphyr::from_str(CONFIGURATION)?;
        let kubeconfig = self.control_plane.kubeconfig(User::KubeScheduler);
        configuration["clientConnection"] = json!({"kubeconfig": kubeconfig});
        configuration["leaderElection"] = json!({"leaderElect": false});
        let ours = &mut configuration["extenders"][0];
        ours["urlPrefix"] = json!(extender.url);
        // On a busy machine the first answer may be late, and a late one is no answer.
        ours["httpTimeout"] = json!("20s");
        change(ours);
        let path = self.folder.path().join("scheduler.yaml");
        std::fs::write(&path, configuration.to_string())?;
        let arguments = [format!("--config={}", path.display()), "--secure-port=0".to_owned()];
        let log = self.folder.path().join("scheduler.log");
        Daemon::start(self.components.path(Component::KubeScheduler)?, &kubeconfig, &arguments, &log)
    }

    /// kubectl with every right, at the root of the repository.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.components.path(Component::Kubectl)?);
        command.arg("--kubeconfig").arg(self.control_plane.kubeconfig(User::Admin)).args(arguments);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let output = command.kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A pod with annotations of ours, and perhaps the resource by which the scheduler asks for it.
    pub(crate) async fn pod(&self, name: &str, annotations: &Value, is_managed: bool) -> anyhow::Result<()> {
        let named = annotations.as_object().into_iter().flatten();
        let annotations: serde_json::Map<String, Value> =
            named.map(|(key, value)| (format!("placement.kantai.dev/{key}"), value.clone())).collect();
        let limits = if is_managed { json!({RESOURCE: "1"}) } else { json!({}) };
        let pod = json!({"metadata": {"name": name, "annotations": annotations},
            "spec": {"containers": [{"name": "one", "image": "none", "resources": {"limits": limits}}]}});
        self.in_default().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, pod: &str) -> anyhow::Result<Pod> {
        Ok(self.in_default().get(pod).await?)
    }

    pub(crate) async fn pods(&self, labels: &str) -> anyhow::Result<Vec<Pod>> {
        Ok(self.in_default().list(&ListParams::default().labels(labels)).await?.items)
    }

    /// The node of a pod, once it has one.
    pub(crate) async fn bound(&self, pod: &str) -> anyhow::Result<String> {
        eventually(&format!("{pod} is bound"), || async {
            let found = self.get(pod).await?;
            Ok(node_of(&found).map(str::to_owned).ok_or_else(|| format!("{:?}", found.status)))
        })
        .await
    }

    /// The notes of a pod's events of this reason.
    pub(crate) async fn events(&self, pod: &str, reason: &str) -> anyhow::Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client(), "default");
        let all = events.list(&ListParams::default()).await?;
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some(reason) && event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some(pod))
        };
        Ok(all.items.into_iter().filter(is_it).filter_map(|event| event.note).collect())
    }

    pub(crate) async fn cordon(&self, node: &str, is_cordoned: bool) -> anyhow::Result<()> {
        let spec = json!({"spec": {"unschedulable": is_cordoned}});
        Api::<Node>::all(self.client()).patch(node, &PatchParams::default(), &Patch::Merge(spec)).await?;
        Ok(())
    }
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> anyhow::Result<()> {
    eventually(what, || {
        let holds = holds();
        async { Ok(if holds.await? { Ok(()) } else { Err("not yet".to_owned()) }) }
    })
    .await
}

fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
