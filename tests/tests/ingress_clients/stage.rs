//! Gateways as they are deployed, and what they are told, without an API server: what changes is
//! noted here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_api::kingress::{BackendSplit, HttpPath, HttpRule, IngressRule, IngressSpec, IngressStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;
use locality_ingress::Metrics;
use locality_ingress::demand::{Reports, SharedLoadBoard};
use locality_ingress::endpoints::LocalityPolicy;
use locality_ingress::kubernetes::{
    IngressObject, NodeObject, ObjectName, SecretObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject,
};
use locality_ingress::routes::TranslateSettings;
use locality_ingress::state::{ControlPlaneState, ObjectChange, StateSettings};
use locality_ingress::xds::{Ads, ConfigStore, Connected, ListenerSettings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const BOOTSTRAP: &str = include_str!("../../../deploy/xds-plain/envoy.yaml");
const XDS: &str = "127.0.0.1:18000";
const PATIENCE: Duration = Duration::from_secs(60);
/// The Service that is another name of the gateways' internal listeners.
pub(crate) const OURSELVES: &str = "kantai-gateway-internal.kantai-system.svc.cluster.local";

/// Runs `test` on threads of a network namespace that ends with them: any address may be had, and
/// nothing of the machine's own is touched.
pub(crate) fn in_own_network<F: Future<Output = anyhow::Result<()>>>(test: impl FnOnce(PathBuf) -> F) -> anyhow::Result<()> {
    // Making components may need the machine's network.
    let components = Components::ensure(&[Component::Envoy, Component::Ip], &Progress::to_stderr())?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("failed to make a network namespace: these tests run as root")?;
    ip(components.path(Component::Ip)?, "link set lo up")?;
    for address in ["10.44.1.1/32", "10.44.1.11/32", "10.44.1.12/32", "10.44.3.11/32", "fd44::1/128", "fd44::11/128"] {
        ip(components.path(Component::Ip)?, &format!("address add {address} dev lo"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    runtime.block_on(test(components.path(Component::Envoy)?.to_owned()))
}

pub(crate) fn ip(program: &std::path::Path, arguments: &str) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments.split(' ')).status()?;
    anyhow::ensure!(status.success(), "failed to run ip {arguments}");
    Ok(())
}

/// How a stage is set up.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) listening: ListenerSettings,
    pub(crate) fallback_certificate: Option<ObjectName>,
    /// The addresses of the gateway's pod: with them it listens on all that it has.
    pub(crate) pod_addresses: Option<&'static str>,
    /// Whether the gateway's node is known to bound retransmissions.
    pub(crate) bounds_retransmissions: bool,
}

/// The configuration of a gateway of node1.
pub(crate) struct Stage {
    state: ControlPlaneState,
    store: Arc<ConfigStore>,
    connected: Connected,
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
    stop: CancellationToken,
}

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn named(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

impl Stage {
    pub(crate) async fn start(envoy: PathBuf, plan: Plan) -> anyhow::Result<Self> {
        let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, plan.listening));
        let kernel = "6.15".parse().ok();
        let settings = StateSettings {
            policy: LocalityPolicy::Locality,
            translate: TranslateSettings {
                internal_gateway: OURSELVES.to_owned(),
                internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
            },
            activators: ObjectName::new("knative-serving", "activator-service"),
            bounds_retransmissions: kernel,
            fallback_certificate: plan.fallback_certificate.clone(),
            gateway_service: ObjectName::new("kantai-system", "kantai-gateway-internal"),
            own_service: ObjectName::new("kantai-system", "locality-ingress"),
            own_pod: "locality-ingress-0".into(),
        };
        let mut state = ControlPlaneState::new(store.clone(), settings);
        if plan.bounds_retransmissions {
            state.apply_change(ObjectChange::Node("node1".into(), Some(NodeObject { zone: None, kernel, is_silent: false })));
        }
        let (stop, connected) = (CancellationToken::new(), Connected::default());
        let (changes, _) = tokio::sync::mpsc::channel(1);
        let reports = Reports::new(SharedLoadBoard::default(), store.clone(), Duration::from_secs(1), changes, stop.clone());
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let (nacks, mut refused) = tokio::sync::mpsc::channel(64);
        let ads = Ads::new(store.clone(), connected.clone(), metrics, nacks, stop.clone());
        tokio::spawn(ads.serve(TcpListener::bind(XDS).await?, None, reports.services()));
        tokio::spawn(async move {
            if let Some(report) = refused.recv().await {
                panic!("the gateway refused an update: {report:?}");
            }
        });
        let mut stage = Self { state, store, connected, folder: tempfile::tempdir()?, gateway: None, stop };
        stage.state.publish_changes(Instant::now());
        stage.gateway(&envoy, plan.pod_addresses)?;
        Ok(stage)
    }

    fn gateway(&mut self, envoy: &std::path::Path, pod_addresses: Option<&str>) -> anyhow::Result<()> {
        let socket = self.folder.path().join("admin.sock");
        let replacements = [
            ("address: locality-ingress.kantai-system.svc", "address: 127.0.0.1".to_owned()),
            ("/run/kantai/admin.sock", socket.to_string_lossy().into_owned()),
        ];
        let mut bootstrap = BOOTSTRAP.to_owned();
        for (from, to) in replacements {
            anyhow::ensure!(bootstrap.contains(from), "the bootstrap has no {from:?} any more");
            bootstrap = bootstrap.replace(from, &to);
        }
        let path = self.folder.path().join("envoy.yaml");
        std::fs::write(&path, bootstrap)?;
        let metadata = match pod_addresses {
            Some(addresses) => format!("pod_addresses: \"{addresses}\""),
            None => "listen_address: \"10.44.1.1\"".to_owned(),
        };
        let log = std::fs::File::create(self.log())?;
        let process = Command::new(envoy)
            .args(["--config-path", &path.to_string_lossy(), "--service-node", "node1", "--service-cluster", "kantai-gateway"])
            .args(["--config-yaml", &format!("node: {{ metadata: {{ {metadata} }} }}")])
            .args(["--concurrency", "2", "--disable-hot-restart", "--drain-strategy", "immediate", "--log-level", "warning"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.gateway = Some(Gateway(process));
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("envoy.log")
    }

    pub(crate) fn note(&mut self, change: ObjectChange) {
        self.state.apply_change(change);
    }

    /// Waits until the gateway has all that was noted.
    pub(crate) async fn settled(&mut self) -> anyhow::Result<()> {
        self.state.publish_changes(Instant::now());
        let (revision, began) = (self.store.revision().0, Instant::now());
        while self.connected.in_sync_at("node1") != Some(revision) {
            anyhow::ensure!(
                began.elapsed() < PATIENCE,
                "the gateway does not follow: {}",
                std::fs::read_to_string(self.log()).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A gateway confirms a listener before its threads take connections with it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    /// A Service of one port, 80, that leads to these addresses, each with the number of its node.
    pub(crate) fn service(&mut self, name: &str, http2: bool, endpoints: &[(u8, SocketAddr)]) {
        let port_name = if http2 { "http2" } else { "http" };
        let port = ServicePort { name: port_name.into(), number: 80, http2 };
        self.note(ObjectChange::Service(named(name), Some(ServiceObject { ports: vec![port], ..ServiceObject::default() })));
        let endpoint = |&(node, address): &(u8, SocketAddr)| SliceEndpoint {
            address: address.ip(),
            node: Some(format!("node{node}")),
            ready: true,
            serving_last: false,
            pod: None,
            stand_in: false,
        };
        let number = endpoints.first().map_or(8012, |(_, address)| address.port());
        let slice = SliceObject { ports: vec![(port_name.into(), number)], endpoints: endpoints.iter().map(endpoint).collect() };
        self.note(ObjectChange::Slice(named(&format!("{name}-x")), Some((named(name), slice))));
    }

    pub(crate) fn ingress(&mut self, name: &str, rules: Vec<IngressRule>, change: impl FnOnce(&mut IngressSpec)) {
        let mut spec = IngressSpec { rules, ..IngressSpec::default() };
        change(&mut spec);
        let spec = spec.defaulted();
        let ingress =
            IngressObject { uid: name.into(), generation: 1, created_unix_seconds: 0, spec, status: IngressStatus::default() };
        self.note(ObjectChange::Ingress(named(name), Some(Box::new(ingress))));
    }

    pub(crate) fn certificate(&mut self, name: &str, hosts: &[&str]) -> anyhow::Result<rcgen::Certificate> {
        let made = rcgen::generate_simple_self_signed(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let secret = SecretObject {
            certificate_pem: made.cert.pem().into_bytes(),
            key_pem: made.signing_key.serialize_pem().into_bytes(),
            authority_pem: None,
        };
        self.note(ObjectChange::Secret(named(name), Some(secret)));
        Ok(made.cert)
    }
}

/// Requests for `hosts` go where `paths` say.
pub(crate) fn rule(hosts: &[&str], visibility: &str, paths: Vec<HttpPath>) -> IngressRule {
    IngressRule {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        visibility: visibility.to_owned(),
        http: Some(HttpRule { paths }),
    }
}

/// All go to one Service.
pub(crate) fn to(service: &str) -> HttpPath {
    let split = BackendSplit {
        service_namespace: "default".into(),
        service_name: service.into(),
        service_port: IntOrString::Int(80),
        percent: 100,
        append_headers: BTreeMap::new(),
    };
    HttpPath { splits: vec![split], ..HttpPath::default() }
}

pub(crate) const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 1, 1));
