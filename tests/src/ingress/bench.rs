//! A real API server, the real daemon under its own RBAC, and real Envoys, in a network namespace
//! of the test's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, RevisionDemand};
use k8s_api::kingress::KIngress;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Client, Config};
use local_control_plane::components::{Component, Components, GoModule, Places, module_folders};
use local_control_plane::control_plane::{ControlPlane, User};
use local_control_plane::progress::Progress;
use serde_json::{Value, json};

use super::certificates::XdsCertificates;

/// Our ingress class.
pub const CLASS: &str = "kantai.ingress.networking.knative.dev";
/// The namespace of the daemon and the gateways.
pub(super) const NAMESPACE: &str = "kantai-system";
const RBAC: &str = include_str!("../../../deploy/locality-ingress/rbac.yaml");
/// What is not run here is at least taken by the API server.
const OTHER_MANIFESTS: [&str; 9] = [
    include_str!("../../../deploy/locality-ingress/flow-schema.yaml"),
    include_str!("../../../deploy/locality-ingress/disruption-budget.yaml"),
    include_str!("../../../deploy/locality-ingress/network-policy.yaml"),
    include_str!("../../../deploy/kantai-gateway/network-policy.yaml"),
    include_str!("../../../deploy/kantai-gateway/resource-quota.yaml"),
    include_str!("../../../deploy/locality-ingress/deployment.yaml"),
    include_str!("../../../deploy/locality-ingress/service.yaml"),
    include_str!("../../../deploy/kantai-gateway/daemonset.yaml"),
    include_str!("../../../deploy/kantai-gateway/services.yaml"),
];
const SOON: Duration = Duration::from_secs(120);

/// Where things are in the test's own network: gateways and pods of node N have the addresses
/// 10.44.N.x.
pub const NODES: [u8; 3] = [1, 2, 3];
/// The address that gateways connect to.
pub const XDS: &str = "127.0.0.1:18000";
/// Of a second replica.
pub const SECOND_XDS: &str = "127.0.0.1:18001";
/// The operators' address of the daemon.
pub const OPS: &str = "127.0.0.1:8080";
/// Of a second replica. The API server takes no loopback address for an endpoint.
pub const SECOND_OPS: &str = "10.44.3.3:8080";

/// The address of a node's gateway.
pub fn gateway_address(node: u8) -> IpAddr {
    gateway_pod_address(node, 1)
}

/// While a gateway is replaced there are two pods of it on a node: 1 and 2.
pub fn gateway_pod_address(node: u8, pod: u8) -> IpAddr {
    [10, 44, node, pod].into()
}

/// The address of a pod on a node, by its number there.
pub fn pod_address(node: u8, pod: u8) -> SocketAddr {
    ([10, 44, node, 10 + pod], 8012).into()
}

/// Runs `test` with everything that is needed, on threads of a network namespace that ends with
/// them. Nothing of the machine's own network is touched, so any port is free and any address may
/// be had.
pub fn in_own_network<F: Future<Output = anyhow::Result<()>>>(test: impl FnOnce(Components) -> F) -> anyhow::Result<()> {
    // Making components may need the machine's network.
    let wanted = [
        Component::KubeApiserver,
        Component::Etcd,
        Component::KubeControllerManager,
        Component::Envoy,
        Component::Ip,
        Component::Nft,
    ];
    let components = Components::ensure(&wanted, &Progress::to_stderr())?;
    // Threads that this one starts from now on, and processes that they start, are in the new
    // namespace, too.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("failed to make a network namespace: these tests run as root")?;
    let ip = components.path(Component::Ip)?;
    let run = |arguments: &str| -> anyhow::Result<()> {
        let status = Command::new(ip).args(arguments.split(' ')).status()?;
        anyhow::ensure!(status.success(), "failed to run ip {arguments}");
        Ok(())
    };
    run("link set lo up")?;
    for node in NODES {
        for host in [1, 2, 3, 11, 12, 13, 14] {
            run(&format!("address add 10.44.{node}.{host}/32 dev lo"))?;
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    runtime.block_on(test(components))
}

/// An API server with our definitions and rights, and whatever was started beside it.
pub struct Bench {
    /// A client with every right.
    pub client: Client,
    /// The API server.
    pub control_plane: ControlPlane,
    /// Envoy's program.
    pub envoy: PathBuf,
    /// Where files of this bench are.
    pub folder: tempfile::TempDir,
    /// Whether the daemon that is started next has gateways log requests.
    pub access_log: bool,
    /// Where the gateways that are started next get their configuration.
    pub xds_port: u16,
    /// What the gateways that are started next may have in memory.
    pub gateway_heap_bytes: u64,
    pub(super) http: reqwest::Client,
    // Whether the daemon makes the certificates.
    pub(super) self_made: bool,
    // With what gateways are served over TLS, where they are.
    pub(super) certificates: Option<XdsCertificates>,
}

impl Bench {
    /// Starts one.
    pub async fn start(components: &Components) -> anyhow::Result<Self> {
        let control_plane = ControlPlane::for_tests().await?;
        let bench = Self {
            client: control_plane.client(),
            control_plane,
            envoy: components.path(Component::Envoy)?.to_owned(),
            folder: tempfile::tempdir()?,
            access_log: false,
            xds_port: 18000,
            gateway_heap_bytes: super::gateway::HEAP_BYTES,
            http: reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(SOON).build()?,
            certificates: None,
            self_made: false,
        };
        let folders = tokio::task::spawn_blocking(|| {
            let places = Places::from_env()?;
            module_folders(&places, GoModule::KnativeServing, &["knative.dev/networking", "knative.dev/serving"])
        })
        .await??;
        for definition in [folders[0].join("config/ingress.yaml"), folders[1].join("config/core/300-resources/revision.yaml")] {
            bench.apply_yaml(&std::fs::read_to_string(definition)?).await?;
        }
        for name in [NAMESPACE, "knative-serving"] {
            bench.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
        }
        bench.apply_yaml(RBAC).await?;
        for node in NODES {
            bench.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node{node}")}})).await?;
        }
        let started = Instant::now();
        let ingresses: Api<KIngress> = Api::all(bench.client.clone());
        while ingresses.list(&kube::api::ListParams::default()).await.is_err() {
            anyhow::ensure!(started.elapsed() < SOON, "the Ingress definition is not served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for manifest in OTHER_MANIFESTS {
            bench.apply_yaml(manifest).await?;
        }
        Ok(bench)
    }

    /// A Service without a selector with port 80 called `port_name`.
    pub async fn service(&self, namespace: &str, name: &str, port_name: &str) -> anyhow::Result<()> {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {"ports": [{"name": port_name, "port": 80, "targetPort": 8012}]},
        }))
        .await
    }

    /// A revision whose pods take this many requests at once.
    pub async fn limited_revision(&self, name: &str, at_once: usize) -> anyhow::Result<()> {
        eventually("revisions to be served", async || {
            self.apply(json!({
                "apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": {"namespace": "default", "name": name},
                "spec": {"containerConcurrency": at_once, "containers": [{"name": "user-container", "image": "none"}]},
            }))
            .await
        })
        .await
    }

    /// The endpoints of a Service: address and node of each, and the namespace that their pods are
    /// in.
    pub async fn slice(
        &self,
        namespace: &str,
        service: &str,
        port_name: &str,
        port: u16,
        endpoints: &[(IpAddr, u8)],
        pod_namespace: &str,
    ) -> anyhow::Result<()> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, node)| {
                json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": format!("node{node}"),
                       "targetRef": {"kind": "Pod", "name": format!("p{node}"), "namespace": pod_namespace}})
            })
            .collect();
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": port_name, "port": port}, {"name": "http-istio", "port": port}],
        }))
        .await
    }

    /// The endpoints of a revision: pods of it.
    pub async fn pods(&self, service: &str, pods: &[(u8, u8)]) -> anyhow::Result<()> {
        let endpoints: Vec<_> = pods.iter().map(|&(node, pod)| (pod_address(node, pod).ip(), node)).collect();
        self.slice("default", service, "http", 8012, &endpoints, "default").await
    }

    /// A revision that has its Service, and pods.
    pub async fn revision(&self, name: &str, pods: &[(u8, u8)]) -> anyhow::Result<()> {
        self.service("default", name, "http").await?;
        self.pods(name, pods).await
    }

    /// Makes or changes an object.
    pub async fn apply(&self, object: Value) -> anyhow::Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().context("no type")?;
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.metadata.name.clone().context("no name")?;
        let strict =
            PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::apply("test").force() };
        api.patch(&name, &strict, &Patch::Apply(&object)).await?;
        Ok(())
    }

    async fn apply_yaml(&self, text: &str) -> anyhow::Result<()> {
        for document in text.split("\n---\n").filter(|document| document.lines().any(|line| line.starts_with("kind:"))) {
            self.apply(serde_saphyr::from_str(document)?).await?;
        }
        Ok(())
    }

    /// An Ingress of our class with one host, internal and external, whose requests go to `splits`.
    pub async fn ingress(&self, name: &str, splits: &[(&str, u32)]) -> anyhow::Result<()> {
        let splits: Vec<_> = splits
            .iter()
            .map(|(service, percent)| {
                json!({"serviceNamespace": "default", "serviceName": service, "servicePort": 80, "percent": percent,
                       "appendHeaders": {"Knative-Serving-Revision": service, "Knative-Serving-Namespace": "default"}})
            })
            .collect();
        let paths = json!({"paths": [{"splits": splits}]});
        self.apply(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {"namespace": "default", "name": name, "annotations": {"networking.knative.dev/ingress.class": CLASS}},
            "spec": {"httpOption": "Enabled", "rules": [
                {"hosts": [format!("{name}.default"), format!("{name}.default.svc.cluster.local")], "visibility": "ClusterLocal", "http": paths},
                {"hosts": [format!("{name}.default.example.com")], "visibility": "ExternalIP", "http": paths},
            ]},
        }))
        .await
    }

    /// Where the API server is.
    pub fn api_server(&self) -> anyhow::Result<SocketAddr> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.control_plane.kubeconfig(User::Admin))?;
        let server = kubeconfig.clusters.into_iter().find_map(|named| named.cluster?.server).context("no server")?;
        let uri: http::Uri = server.parse()?;
        Ok(SocketAddr::new(uri.host().context("no host")?.parse()?, uri.port_u16().unwrap_or(443)))
    }

    /// The Ingresses of the namespace `default`.
    pub fn ingresses(&self) -> Api<KIngress> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits until the Ingress says Ready for its newest generation. How long that took.
    pub async fn ready(&self, name: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let ingress = self.ingresses().get(name).await?;
            let ready = ingress.status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            if ready && ingress.status.observed_generation == ingress.metadata.generation {
                return Ok(started.elapsed());
            }
            anyhow::ensure!(started.elapsed() < SOON, "not ready: {:?}", ingress.status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One request through the gateway of a node: the status, and who answered.
    pub async fn get(&self, node: u8, port: u16, host: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let url = format!("http://{}{path}", SocketAddr::new(gateway_address(node), port));
        let response = self.http.get(url).header("host", host).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// One request over TLS to the external listener of a node, which must show exactly this
    /// certificate for the host.
    pub async fn get_tls(&self, node: u8, host: &str, certificate: &rcgen::Certificate) -> anyhow::Result<String> {
        let mut config = Config::new(format!("https://{}:8443", gateway_address(node)).parse()?);
        config.root_cert = Some(vec![certificate.der().to_vec()]);
        config.tls_server_name = Some(host.to_owned());
        let request = http::Request::get("/").header("host", host).body(Vec::new())?;
        Ok(Client::try_from(config)?.request_text(request).await?)
    }

    /// What the daemon says about a host as seen from a node.
    pub async fn explain(&self, host: &str, node: u8) -> anyhow::Result<Value> {
        let url = format!("http://{OPS}{}?host={host}&node=node{node}", locality_ingress::EXPLAIN_PATH);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// The first line of the daemon's stream of demand: all that is known.
    pub async fn demand(&self) -> anyhow::Result<Vec<RevisionDemand>> {
        let url = format!("http://{OPS}{DEMAND_PATH}");
        let mut response = self.http.get(url).send().await?.error_for_status()?;
        let chunk = response.chunk().await?.context("the stream of demand ended")?;
        match serde_json::from_slice(&chunk)? {
            DemandEvent::Snapshot { demand, .. } => Ok(demand),
            other => anyhow::bail!("the stream of demand begins with {other:?}"),
        }
    }

    /// What the statistics page of a node's gateway says about `filter`.
    pub async fn stats(&self, node: u8, filter: &str) -> anyhow::Result<String> {
        let url = format!("http://{}:9000/stats/prometheus?filter={filter}", gateway_address(node));
        Ok(self.http.get(url).send().await?.text().await?)
    }

    /// `count` requests for `host` through the internal listener of a node's gateway: how many each
    /// backend answered.
    pub async fn shares(&self, node: u8, host: &str, count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let (status, who) = self.get(node, 8081, host, "/").await?;
            let key = if status == 200 { who } else { status.to_string() };
            *shares.entry(key).or_default() += 1;
        }
        Ok(shares)
    }
}

/// Tries until it works.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > SOON => return Err(error.context(format!("gave up waiting for {what}"))),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
