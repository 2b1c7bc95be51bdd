//! Ten thousand Ingresses and fifty gateways.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_api::kingress::{BackendSplit, HttpPath, HttpRule, IngressRule, IngressSpec, IngressStatus, VISIBILITY_LOCAL};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use locality_ingress::Metrics;
use locality_ingress::demand::{Reports, SharedLoadBoard};
use locality_ingress::endpoints::LocalityPolicy;
use locality_ingress::kubernetes::{IngressObject, ObjectName, ServiceObject, ServicePort, SliceEndpoint, SliceObject};
use locality_ingress::routes::TranslateSettings;
use locality_ingress::state::{ControlPlaneState, ObjectChange, StateSettings};
use locality_ingress::xds::{Ads, ConfigStore, Connected, ListenerSettings};
use scorecards::{Figure, Goal};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gateways;

pub(crate) const INGRESSES: u32 = 10_000;
pub(crate) const GATEWAYS: usize = 50;
const PUSHES: u8 = 20;

/// An xDS server as the daemon has it, without an API server.
pub(crate) struct XdsServer {
    pub(crate) store: Arc<ConfigStore>,
    connected: Connected,
    address: String,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    stop: CancellationToken,
}

impl XdsServer {
    /// Gateways report their load to `demand` at `interval`; what follows from it is in `changes`.
    pub(crate) async fn start(
        demand: SharedLoadBoard,
        interval: Duration,
        changes: mpsc::Sender<ObjectChange>,
    ) -> anyhow::Result<Self> {
        let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, ListenerSettings::default()));
        let (connected, stop) = (Connected::default(), CancellationToken::new());
        // NACKs are counted and logged, which is enough here.
        let (nacks, _) = mpsc::channel(1);
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let reports = Reports::new(demand, store.clone(), interval, changes, stop.clone()).services();
        let ads = Ads::new(store.clone(), connected.clone(), metrics, nacks, stop.clone());
        let task = tokio::spawn(ads.serve(listener, None, reports));
        Ok(Self { store, connected, address, task, stop })
    }

    pub(crate) fn start_gateways(&self, reports: bool) -> anyhow::Result<Child> {
        let program = std::env::current_exe()?;
        let arguments = [gateways::ARGUMENT, &self.address, &GATEWAYS.to_string(), &reports.to_string()];
        Ok(Command::new(program).args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
    }

    /// Waits until every gateway has all that is in the store.
    pub(crate) async fn wait_for_all(&self) -> anyhow::Result<()> {
        let (mut gateways, revision) = (self.connected.watch(), self.store.revision().0);
        let all = gateways.wait_for(|all| all.len() == GATEWAYS && all.values().all(|one| one.in_sync_at >= Some(revision)));
        tokio::time::timeout(Duration::from_secs(120), all).await.context("not all gateways followed")??;
        Ok(())
    }

    pub(crate) async fn end(self, mut gateways: Child) -> anyhow::Result<()> {
        self.stop.cancel();
        gateways.kill().await?;
        Ok(self.task.await??)
    }
}

/// Measures all figures of this file.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    // Nobody here reports anything.
    let (changes, _no_loads) = mpsc::channel(1);
    let server = XdsServer::start(SharedLoadBoard::default(), Duration::from_secs(1), changes).await?;
    let gateways = server.start_gateways(false)?;

    let began = Instant::now();
    let mut state = state_with_revisions(&server.store, INGRESSES);
    state.publish_changes(Instant::now());
    eprintln!("translated and encoded after {:?}, memory {:.0} MiB", began.elapsed(), resident_mib()?);
    server.wait_for_all().await?;
    let cold = began.elapsed();

    let mut slowest = Duration::ZERO;
    for push in 0..PUSHES {
        // Pods come and go one at a time, and the machine is quiet in between.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let changed = Instant::now();
        state.apply_change(slice(u32::from(push), 4 + push, true));
        state.publish_changes(Instant::now());
        server.wait_for_all().await?;
        slowest = slowest.max(changed.elapsed());
    }
    let rss_mib = resident_mib()?;
    eprintln!("memory at its most {:.0} MiB, in the end {rss_mib:.0} MiB", memory_mib("VmHWM:")?);
    server.end(gateways).await?;
    Ok(vec![
        Figure { id: "scale_cold_s", value: cold.as_secs_f64(), unit: "s", goal: Goal::AtMost(10.0) },
        Figure { id: "scale_10k_push_ms", value: slowest.as_secs_f64() * 1e3, unit: "ms", goal: Goal::AtMost(50.0) },
        Figure { id: "scale_10k_rss_mib", value: rss_mib, unit: "MiB", goal: Goal::AtMost(200.0) },
    ])
}

/// All Ingresses and revisions: the first `with_pods` have pods, the others are at zero, where
/// activators stand in.
pub(crate) fn state_with_revisions(store: &Arc<ConfigStore>, with_pods: u32) -> ControlPlaneState {
    let settings = StateSettings {
        policy: LocalityPolicy::Locality,
        translate: TranslateSettings {
            internal_gateway: "internal.example".into(),
            internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
        },
        activators: ObjectName::new("knative-serving", "activator-service"),
        bounds_retransmissions: None,
        fallback_certificate: None,
        gateway_service: ObjectName::new("kantai-system", "kantai-gateway-internal"),
        own_service: ObjectName::new("kantai-system", "locality-ingress"),
        own_pod: "locality-ingress-0".into(),
    };
    let mut state = ControlPlaneState::new(store.clone(), settings);
    for number in 0..INGRESSES {
        for change in service(number, number < with_pods) {
            state.apply_change(change);
        }
    }
    state
}

pub(crate) fn resident_mib() -> anyhow::Result<f64> {
    memory_mib("VmRSS:")
}

fn memory_mib(which: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).with_context(|| format!("no {which}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// One Knative Service as Serving makes it: four names, one revision with pods on three nodes.
fn service(number: u32, has_pods: bool) -> [ObjectChange; 3] {
    let name = format!("service-{number:05}");
    let revision = format!("{name}-00001");
    let set = [("Knative-Serving-Namespace", "default"), ("Knative-Serving-Revision", &revision)];
    let rule = |hosts: Vec<String>, visibility: &str| {
        let split = BackendSplit {
            service_namespace: "default".into(),
            service_name: revision.clone(),
            service_port: IntOrString::Int(80),
            percent: 100,
            append_headers: set.map(|(header, value)| (header.to_owned(), value.to_owned())).into(),
        };
        let path = HttpPath { splits: vec![split], ..HttpPath::default() };
        IngressRule { hosts, visibility: visibility.to_owned(), http: Some(HttpRule { paths: vec![path] }) }
    };
    let local = ["", ".svc", ".svc.cluster.local"].map(|suffix| format!("{name}.default{suffix}")).to_vec();
    let rules = vec![rule(local, VISIBILITY_LOCAL), rule(vec![format!("{name}.default.example.com")], "")];
    let spec = IngressSpec { rules, ..IngressSpec::default() }.defaulted();
    let status = IngressStatus::default();
    let ingress = IngressObject { uid: String::new(), generation: 1, created_unix_seconds: 0, spec, status };
    let port = ServicePort { name: "http".into(), number: 80, http2: false };
    let public = ServiceObject { ports: vec![port], external_name: None, pods_of: None, of_revision: false };
    [
        ObjectChange::Ingress(ObjectName::new("default", name), Some(Box::new(ingress))),
        ObjectChange::Service(ObjectName::new("default", revision), Some(public)),
        slice(number, 3, has_pods),
    ]
}

fn slice(number: u32, pods: u8, has_pods: bool) -> ObjectChange {
    let revision = format!("service-{number:05}-00001");
    let endpoint = |pod: u8| {
        let [_, _, high, low] = number.to_be_bytes();
        SliceEndpoint {
            address: [10, pod, high, low].into(),
            node: Some(format!("node{}", (number + u32::from(pod)) % 50)),
            ready: true,
            serving_last: false,
            pod: None,
            stand_in: !has_pods,
        }
    };
    let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints: (0..pods).map(endpoint).collect() };
    let owner = ObjectName::new("default", &revision);
    ObjectChange::Slice(ObjectName::new("default", format!("{revision}-x")), Some((owner, slice)))
}
