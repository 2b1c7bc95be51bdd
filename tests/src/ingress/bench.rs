//! A real API server, the real daemon under its own RBAC, and real Envoys, in a network namespace
//! of the test's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser as _;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, RevisionDemand};
use k8s_api::kingress::KIngress;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Client, Config};
use local_control_plane::components::{Component, Components, GoModule, Places, module_folders};
use local_control_plane::control_plane::{ControlPlane, User};
use local_control_plane::progress::Progress;
use locality_ingress::endpoints::Policy;
use locality_ingress::{Listeners, Options, TlsOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::certificates::{Authority, XdsCertificates};

/// Our ingress class.
pub const CLASS: &str = "kantai.ingress.networking.knative.dev";
const NAMESPACE: &str = "kantai-system";
const BOOTSTRAP: &str = include_str!("../../../deploy/xds-plain/envoy.yaml");
/// As it is deployed, over TLS, and the files that it names.
const TLS_BOOTSTRAP: &str = include_str!("../../../deploy/kantai-gateway/envoy.yaml");
const TLS_FILES: [(&str, &str); 2] = [
    ("gateway-certificate.yaml", include_str!("../../../deploy/kantai-gateway/gateway-certificate.yaml")),
    ("authority.yaml", include_str!("../../../deploy/kantai-gateway/authority.yaml")),
];
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
/// As the DaemonSet has them.
const PRE_STOP: Duration = Duration::from_secs(75);
const GRACE: Duration = Duration::from_secs(90);
/// As the bootstrap has it.
const GATEWAY_HEAP_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const SOON: Duration = Duration::from_secs(60);

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
    http: reqwest::Client,
    // Whether the daemon makes the certificates.
    self_made: bool,
    // With what gateways are served over TLS, where they are.
    certificates: Option<XdsCertificates>,
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
            gateway_heap_bytes: GATEWAY_HEAP_BYTES,
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

    /// Starts the daemon as its ServiceAccount, with the plan from `routes_url`.
    pub async fn daemon(&self, policy: Policy, routes_url: &str) -> anyhow::Result<Daemon> {
        self.daemon_through(None, policy, routes_url).await
    }

    /// A second replica: gateways reach it on another port, and its operators' port is that of the
    /// first one on another address.
    pub async fn second_daemon(&self, policy: Policy, routes_url: &str) -> anyhow::Result<Daemon> {
        let client = client_of_daemon(&self.control_plane.kubeconfig(User::Admin), None).await?;
        let listeners = Listeners { xds: listen(SECOND_XDS).await?, ops: listen(SECOND_OPS).await? };
        let mut options = options(policy, routes_url);
        options.pod.pod_name = "locality-ingress-1".to_owned();
        let stop = CancellationToken::new();
        let task = tokio::spawn(locality_ingress::run(client, options, listeners, stop.clone()));
        Ok(Daemon { stop, task: Some(task) })
    }

    /// As [`Bench::daemon`], with another way to the API server.
    pub async fn daemon_through(&self, way: Option<SocketAddr>, policy: Policy, routes_url: &str) -> anyhow::Result<Daemon> {
        let client = client_of_daemon(&self.control_plane.kubeconfig(User::Admin), way).await?;
        let listeners = Listeners { xds: listen(XDS).await?, ops: listen(OPS).await? };
        let stop = CancellationToken::new();
        let mut options = options(policy, routes_url);
        options.listening.access_log = self.access_log;
        options.tls = match &self.certificates {
            None => options.tls,
            Some(_) if self.self_made => TlsOptions::default(),
            Some(certificates) => TlsOptions {
                xds_certificate_file: Some(certificates.server.join("tls.crt")),
                xds_key_file: Some(certificates.server.join("tls.key")),
                xds_client_ca_file: Some(certificates.server.join("ca.crt")),
                xds_plain_text: false,
            },
        };
        let task = tokio::spawn(locality_ingress::run(client, options, listeners, stop.clone()));
        Ok(Daemon { stop, task: Some(task) })
    }

    /// From now on gateways are served over TLS, with certificates of `authority`.
    pub fn secure(&mut self, authority: &Authority) -> anyhow::Result<()> {
        self.certificates = Some(XdsCertificates::of(authority, self.folder.path())?);
        Ok(())
    }

    /// From now on gateways are served over TLS, with certificates that the daemon makes.
    pub fn secure_by_itself(&mut self) {
        self.certificates = Some(XdsCertificates::to_come(self.folder.path()));
        self.self_made = true;
    }

    /// Mounts the gateways' Secret where the next ones look for it, as the kubelet does.
    pub async fn mount_made_certificates(&self) -> anyhow::Result<()> {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let secret = eventually("the gateways' Secret", async || Ok(secrets.get("kantai-gateway-xds").await?)).await?;
        let folder = &self.certificates.as_ref().context("no TLS")?.gateway;
        std::fs::create_dir_all(folder)?;
        for (file, bytes) in secret.data.unwrap_or_default() {
            std::fs::write(folder.join(file), bytes.0)?;
        }
        Ok(())
    }

    /// Gives both sides new certificates of `authority`.
    pub fn renew_certificates(&self, authority: &Authority) -> anyhow::Result<()> {
        self.certificates.as_ref().context("no TLS")?.renew(authority)
    }

    /// The bootstrap: that without TLS, or as it is deployed with its files where this finds them.
    fn bootstrap(&self) -> anyhow::Result<String> {
        let Some(certificates) = &self.certificates else { return Ok(BOOTSTRAP.to_owned()) };
        let folder = self.folder.path().to_string_lossy();
        for (name, text) in TLS_FILES {
            let text = text.replace("/etc/kantai-xds", &certificates.gateway.to_string_lossy());
            std::fs::write(self.folder.path().join(name), text)?;
        }
        Ok(TLS_BOOTSTRAP.replace("/etc/envoy", &folder))
    }

    /// Starts the gateway of a node from the deployed bootstrap, and waits until it is ready.
    pub async fn gateway(&self, node: u8) -> anyhow::Result<Gateway> {
        self.gateway_pod(node, 1).await
    }

    /// As [`Bench::gateway`], as one of the two that there are while it is replaced.
    pub async fn gateway_pod(&self, node: u8, pod: u8) -> anyhow::Result<Gateway> {
        let address = gateway_pod_address(node, pod);
        let deployed_heap = format!("max_heap_size_bytes: {GATEWAY_HEAP_BYTES}");
        let replacements = [
            ("address: locality-ingress.kantai-system.svc", "address: 127.0.0.1".to_owned()),
            ("port_value: 18000", format!("port_value: {}", self.xds_port)),
            ("/run/kantai/admin.sock", self.folder.path().join(format!("admin{node}-{pod}.sock")).to_string_lossy().into_owned()),
            ("address: 0.0.0.0, port_value: 9000", format!("address: {address}, port_value: 9000")),
            (deployed_heap.as_str(), format!("max_heap_size_bytes: {}", self.gateway_heap_bytes)),
        ];
        let mut bootstrap = self.bootstrap()?;
        for (from, to) in replacements {
            anyhow::ensure!(bootstrap.contains(from), "the bootstrap has no {from:?} any more");
            bootstrap = bootstrap.replace(from, &to);
        }
        bootstrap.push_str(&format!("node:\n  metadata: {{ listen_address: \"{address}\" }}\n"));
        let path = self.folder.path().join(format!("envoy{node}-{pod}.yaml"));
        std::fs::write(&path, bootstrap)?;
        let log = std::fs::File::create(self.folder.path().join(format!("envoy{node}-{pod}.log")))?;
        let accesses = std::fs::File::create(self.accesses(node, pod))?;
        let process = Command::new(&self.envoy)
            .args(["--config-path", &path.to_string_lossy(), "--service-node", &format!("node{node}")])
            .args([
                "--service-cluster",
                "kantai-gateway",
                "--concurrency",
                "2",
                "--disable-hot-restart",
                "--drain-strategy",
                "immediate",
                "--file-flush-interval-msec",
                "100",
                "--log-level",
                "warning",
            ])
            .stdout(accesses)
            .stderr(log)
            .spawn()?;
        let gateway = Gateway { process };
        eventually("the gateway to be ready", async || {
            let ready = self.http.get(format!("http://{address}:9000/ready")).send().await?;
            anyhow::ensure!(ready.status() == 200, "{}", ready.status());
            Ok(())
        })
        .await
        .with_context(|| {
            std::fs::read_to_string(self.folder.path().join(format!("envoy{node}-{pod}.log"))).unwrap_or_default()
        })?;
        Ok(gateway)
    }

    fn accesses(&self, node: u8, pod: u8) -> PathBuf {
        self.folder.path().join(format!("envoy{node}-{pod}.out"))
    }

    /// What the gateway of a node wrote about requests.
    pub fn access_log(&self, node: u8) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.accesses(node, 1))?)
    }

    /// Makes known which gateways are ready.
    pub async fn gateways_ready(&self, nodes: &[u8]) -> anyhow::Result<()> {
        let endpoints: Vec<_> = nodes.iter().map(|&node| (gateway_address(node), node)).collect();
        self.slice(NAMESPACE, "kantai-gateway-internal", "http2", 8081, &endpoints, NAMESPACE).await
    }

    /// Makes known which gateway pods (node, and which of the two on it) are ready, and which are
    /// being ended but still serve.
    pub async fn gateway_pods_ready(&self, ready: &[(u8, u8)], ending: &[(u8, u8)]) -> anyhow::Result<()> {
        let endpoint = |&(node, pod): &(u8, u8), ready: bool| {
            json!({"addresses": [gateway_pod_address(node, pod)], "nodeName": format!("node{node}"),
                   "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
        };
        let all: Vec<_> =
            ready.iter().map(|one| endpoint(one, true)).chain(ending.iter().map(|one| endpoint(one, false))).collect();
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": NAMESPACE, "name": "kantai-gateway-internal-1",
                         "labels": {"kubernetes.io/service-name": "kantai-gateway-internal"}},
            "addressType": "IPv4", "endpoints": all, "ports": [{"name": "http2", "port": 8081}],
        }))
        .await
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

/// The daemon in a process of its own, until that is killed: for the scorecard, which shares this
/// bench.
pub async fn serve(kubeconfig: &Path, policy: Policy, routes_url: &str) -> anyhow::Result<()> {
    let listeners = Listeners { xds: listen(XDS).await?, ops: listen(OPS).await? };
    let client = client_of_daemon(kubeconfig, None).await?;
    let options = Options { tls: TlsOptions::default(), ..options(policy, routes_url) };
    Ok(locality_ingress::run(client, options, listeners, CancellationToken::new()).await?)
}

/// Whoever has every right speaks as the daemon's ServiceAccount, and then has no other rights than
/// that.
async fn client_of_daemon(kubeconfig: &Path, way: Option<SocketAddr>) -> anyhow::Result<Client> {
    let mut kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    if let Some(way) = way {
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://{way}"));
        }
    }
    for info in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:locality-ingress"));
        info.impersonate_groups = Some(vec!["system:serviceaccounts".into(), "system:authenticated".into()]);
    }
    Ok(k8s_api::client::client(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}

fn options(policy: Policy, routes_url: &str) -> Options {
    let mut options = Options::parse_from(["locality-ingress", "--xds-plain-text", "--pod-name=locality-ingress-0"]);
    options.policy = policy;
    options.routes.url = routes_url.to_owned();
    options.cluster_domain = Some("cluster.local".to_owned());
    options
}

/// A port of our own may still be closing down.
async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    eventually("the port to be free", async || Ok(TcpListener::bind(address).await?)).await
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

/// The daemon; it stops with this.
pub struct Daemon {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<Result<(), locality_ingress::DaemonError>>>,
}

impl Daemon {
    /// Stops it and waits until it has ended.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await??;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A running Envoy; it is killed with this.
pub struct Gateway {
    process: Child,
}

impl Gateway {
    /// Ends as a pod of the DaemonSet does: it goes on until its preStop hook is over, and is
    /// killed when its grace is. For the scorecard.
    pub async fn end_as_a_pod(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        tokio::time::sleep(PRE_STOP).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.id().cast_signed()), nix::sys::signal::SIGTERM)?;
        while self.process.try_wait()?.is_none() && began.elapsed() < GRACE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
