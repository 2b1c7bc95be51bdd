//! From a request that the gateway holds, of a revision at zero, to the Seika that asks for a pod.
//! Gateway (Envoy), locality-ingress, extra-controller and API server are the real ones; Knative's
//! part of the objects and the activator, which accepts and never answers, are played here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use k8s_api::seika::Seika;
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, documents};
use kantai_tests::daemon::Daemon;
use kantai_tests::eventually;
use kantai_tests::knative::kubelets::Kubelets;
use kantai_tests::knative::probers::Probers;
use kantai_tests::knative::serverless::Serverless;
use kantai_tests::knative::stage::{Born, NAMESPACE, Stage, address};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use local_control_plane::components::{Component, Components};
use scorecards::note;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::binaries::Binaries;

const RBAC: &str = include_str!("../../../deploy/locality-ingress/rbac.yaml");
const BOOTSTRAP: &str = include_str!("../../../deploy/xds-plain/envoy.yaml");
const CLASS: &str = "kantai.ingress.networking.knative.dev";
/// Requests come at no regular times: so long after another, and some more each time.
const PAUSE: Duration = Duration::from_millis(230);
const STEP: Duration = Duration::from_millis(37);
const PATIENCE: Duration = Duration::from_secs(30);

/// Times from the request to the Seika, in milliseconds, shortest first.
pub(crate) async fn measure(components: &Components, binaries: &Binaries, wakes: usize) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(components, 3).await?;
    let client = stage.client();
    for document in documents(RBAC)? {
        apply(&client, &document).await?;
    }
    let kubelets = Kubelets::start(client.clone(), &stage.nodes[0]);
    let _serverless = Serverless::start(client.clone(), kubelets).await?;
    let _probers = Probers::start(&stage.nodes).await?;
    stage.daemon_pod("locality-ingress", &stage.nodes[0], address(1, 3)).await?;
    let activator = TcpListener::bind((address(1, 2), 8012)).await?;
    tokio::spawn(hold(activator));
    gateway_endpoints(&stage).await?;
    let names: Vec<String> = (0..wakes).map(|number| format!("hello-{number:03}")).collect();
    for name in &names {
        stage.add_revision(name, Born { at_zero: true, window_seconds: 60 }).await?;
        let activator = json!([{"addresses": [address(1, 2)], "conditions": {"ready": true}, "nodeName": stage.nodes[0],
            "targetRef": {"kind": "Pod", "name": "activator", "namespace": "knative-serving"}}]);
        apply(&client, &slice(NAMESPACE, name, "http", 8012, &activator)).await?;
        apply(&client, &ingress(name)).await?;
    }

    let _daemon = binaries.extra_controller(&stage, "one", 18080).await?;
    let arguments = [
        "--xds-plain-text".to_owned(),
        "--xds-listen=127.0.0.1:18000".to_owned(),
        format!("--ops-listen={}:8080", address(1, 3)),
        "--routes-url=http://127.0.0.1:18080/v1/routes".to_owned(),
    ];
    let (kubeconfig, log) = (stage.kubeconfig("locality-ingress").await?, stage.folder().join("locality-ingress.log"));
    let _ingress = Daemon::start(&binaries.path("locality-ingress"), &kubeconfig, &arguments, &log)?;
    let envoy = components.path(Component::Envoy)?;
    let gateways = (1..).zip(&stage.nodes).map(|(number, node)| Gateway::start(envoy, &stage, node, number));
    let _gateways: Vec<Gateway> = gateways.collect::<anyhow::Result<_>>()?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.internal.knative.dev", "v1alpha1", "Ingress"));
    let ingresses: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    eventually("every Ingress is ready", async || {
        let all = ingresses.list(&ListParams::default()).await?.items;
        let is_ready = |ingress: &&DynamicObject| {
            let conditions = ingress.data["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let ready = all.iter().filter(is_ready).count();
        Ok(if ready == wakes { Ok(()) } else { Err(format!("{ready} of {wakes}")) })
    })
    .await?;
    // What was begun ends: first statuses, first demand of all gateways.
    tokio::time::sleep(Duration::from_secs(10)).await;

    let asked = Asked::follow(stage.api()).await?;
    let mut taken = Vec::with_capacity(wakes);
    for (number, name) in (0_u32..).zip(&names) {
        let gateway = address(1 + u8::try_from(number % 3)?, 1);
        anyhow::ensure!(asked.when(name).is_none(), "a pod of {name} was asked for before anybody waited");
        let begun = Instant::now();
        let mut connection = TcpStream::connect((gateway, 8081)).await?;
        connection.write_all(format!("GET / HTTP/1.1\r\nHost: {name}.{NAMESPACE}\r\n\r\n").as_bytes()).await?;
        let at = asked.wait(name).await.with_context(|| format!("{name}, request {number}"))?;
        taken.push((at - begun).as_secs_f64() * 1000.0);
        drop(connection);
        tokio::time::sleep(PAUSE + STEP * (number % 11)).await;
    }
    taken.sort_by(f64::total_cmp);
    note(&format!(
        "wake: {wakes} revisions, one after the other; shortest {:.1} ms, longest {:.1} ms",
        taken[0],
        taken[wakes - 1]
    ));
    Ok(taken)
}

/// When each Seika was first seen to ask for pods: by a watch that was there before.
struct Asked(Arc<Mutex<BTreeMap<String, Instant>>>, Arc<tokio::sync::Notify>);

impl Asked {
    async fn follow(seikas: Api<Seika>) -> anyhow::Result<Self> {
        let version = seikas.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let asked = Self(Arc::default(), Arc::default());
        let (times, noted) = (asked.0.clone(), asked.1.clone());
        let mut events = Box::pin(seikas.watch(&WatchParams::default().timeout(290), &version).await?);
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Added(seika) | WatchEvent::Modified(seika) = event
                    && seika.spec.repurika.values().any(|count| *count > 0)
                {
                    let now = Instant::now();
                    times.lock().expect("no holder panics").entry(seika.name_any()).or_insert(now);
                    noted.notify_one();
                }
            }
        });
        Ok(asked)
    }

    fn when(&self, name: &str) -> Option<Instant> {
        self.0.lock().expect("no holder panics").get(name).copied()
    }

    async fn wait(&self, name: &str) -> anyhow::Result<Instant> {
        let seen = async {
            loop {
                if let Some(at) = self.when(name) {
                    return at;
                }
                self.1.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.context("no pod was asked for")
    }
}

/// Takes requests in and never answers: nothing has begun to serve.
async fn hold(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        held.push(connection);
    }
}

async fn gateway_endpoints(stage: &Stage) -> anyhow::Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": "kantai-gateway-internal"},
        "spec": {"ports": [{"name": "http2", "port": 80, "targetPort": 8081}]}});
    apply(&stage.client(), &service).await?;
    let gateway = |(number, node): (u8, &String)| {
        json!({"addresses": [address(number, 1)], "conditions": {"ready": true, "serving": true}, "nodeName": node,
            "targetRef": {"kind": "Pod", "name": format!("kantai-gateway-{node}"), "namespace": SYSTEM_NAMESPACE}})
    };
    let gateways: Vec<serde_json::Value> = (1..).zip(&stage.nodes).map(gateway).collect();
    apply(&stage.client(), &slice(SYSTEM_NAMESPACE, "kantai-gateway-internal", "http2", 8081, &json!(gateways))).await
}

fn slice(namespace: &str, service: &str, port_name: &str, port: u16, endpoints: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": port_name, "port": port}]})
}

fn ingress(name: &str) -> serde_json::Value {
    let split = json!({"serviceNamespace": NAMESPACE, "serviceName": name, "servicePort": 80, "percent": 100,
        "appendHeaders": {"Knative-Serving-Revision": name, "Knative-Serving-Namespace": NAMESPACE}});
    json!({"apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": {"namespace": NAMESPACE, "name": name, "annotations": {"networking.knative.dev/ingress.class": CLASS}},
        "spec": {"httpOption": "Enabled", "rules": [{"hosts": [format!("{name}.{NAMESPACE}")], "visibility": "ClusterLocal",
            "http": {"paths": [{"splits": [split]}]}}]}})
}

/// The gateway of a node, from the deployed bootstrap.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        // It is about to go with its network in any case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Gateway {
    fn start(envoy: &Path, stage: &Stage, node: &str, number: u8) -> anyhow::Result<Self> {
        let own = address(number, 1);
        let socket = stage.folder().join(format!("admin-{node}.sock"));
        let replacements = [
            ("address: locality-ingress.kantai-system.svc", "address: 127.0.0.1".to_owned()),
            ("/run/kantai/admin.sock", socket.to_string_lossy().into_owned()),
            ("address: 0.0.0.0, port_value: 9000", format!("address: {own}, port_value: 9000")),
        ];
        let mut bootstrap = BOOTSTRAP.to_owned();
        for (from, to) in replacements {
            anyhow::ensure!(bootstrap.contains(from), "the bootstrap has no {from:?} any more");
            bootstrap = bootstrap.replace(from, &to);
        }
        bootstrap.push_str(&format!("node:\n  metadata: {{ listen_address: \"{own}\" }}\n"));
        let path = stage.folder().join(format!("envoy-{node}.yaml"));
        std::fs::write(&path, bootstrap)?;
        let log = std::fs::File::create(stage.folder().join(format!("envoy-{node}.log")))?;
        let process = Command::new(envoy)
            .args(["--config-path", &path.to_string_lossy(), "--service-node", node, "--service-cluster", "kantai-gateway"])
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start envoy")?;
        Ok(Self(process))
    }
}
