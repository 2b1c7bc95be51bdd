//! What stands in for the parts that this test does without: kubelets and scheduler, Knative's
//! ServerlessService controller, gateways and probers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use gateway_link::RevisionKey;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, Gateway, Load, RevisionDemand};
use k8s_api::seika::NODE_LABEL;
use k8s_api::{ConditionStatus, ServerlessService, ServingMode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What all gateways hold, and have answered, of the one revision, by node. A request takes a
/// second.
#[derive(Clone, Default)]
pub(crate) struct Gateways(Arc<Mutex<BTreeMap<&'static str, Held>>>);

#[derive(Clone, Copy)]
struct Held {
    requests: u32,
    since: Instant,
    /// Before `since`.
    answered: f64,
    /// Before `since`: requests that were ever taken in.
    arrived: u64,
}

impl Held {
    fn answered(&self) -> f64 {
        self.answered + f64::from(self.requests) * self.since.elapsed().as_secs_f64()
    }

    fn load(&self) -> Load {
        let answered = self.answered();
        let finished = answered.floor() as u64;
        Load {
            in_flight: self.requests.into(),
            arrived: self.arrived + u64::from(self.requests) + (finished - self.answered.floor() as u64),
            finished,
            failed: 0,
            busy_seconds: answered,
        }
    }
}

impl Gateways {
    /// From now on the gateway of `node` has this many requests in flight: as one is answered, the
    /// next arrives.
    pub(crate) fn hold(&self, node: &'static str, requests: u32) {
        let mut all = self.0.lock().expect("no holder panics");
        let before = all.get(node);
        let (answered, arrived) = before.map_or((0.0, 0), |held| (held.answered(), held.load().arrived));
        all.insert(node, Held { requests, since: Instant::now(), answered, arrived });
    }

    /// The event of the ingress replica that is connected to all gateways.
    fn event(&self, version: u64, revision: &str) -> DemandEvent {
        let held = self.0.lock().expect("no holder panics");
        let nodes = ["node1", "node2", "node3"];
        let gateways = (1..).zip(nodes).map(|(stream, node)| Gateway { stream, node: node.to_owned(), age_seconds: 0.0 });
        let loads = held.iter().map(|(node, held)| ((*node).to_owned(), BTreeMap::from([((*node).to_owned(), held.load())])));
        let demand = vec![RevisionDemand { key: RevisionKey::new("default", revision), loads: loads.collect() }];
        let gateways = gateways.collect();
        if version > 0 {
            return DemandEvent::Update { version, gateways, gone: vec![], demand, removed: vec![], held: vec![] };
        }
        let instance = "the only one".to_owned();
        DemandEvent::Snapshot { instance, running_seconds: 0.0, version, parts_left: 0, gateways, demand }
    }

    /// Serves the stream of demand, as locality-ingress does.
    pub(crate) async fn serve(&self, address: Ipv4Addr, revision: &'static str) -> anyhow::Result<u16> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let stream = move |State(gateways): State<Gateways>| async move {
            let lines = futures::stream::unfold(0, move |version| {
                let gateways = gateways.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(if version == 0 { 0 } else { 50 })).await;
                    Some((Ok::<_, std::convert::Infallible>(gateways.event(version, revision).to_line()), version + 1))
                }
            });
            axum::body::Body::from_stream(lines)
        };
        let router = Router::new().route(DEMAND_PATH, get(stream)).with_state(self.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(port)
    }
}

/// Serves each node's row of the matrix: node1 and node2 a millisecond apart, node3 fifty from
/// both.
pub(crate) async fn serve_probers(nodes: &[(&'static str, Ipv4Addr)]) -> anyhow::Result<u16> {
    let mut port = 0;
    for &(node, address) in nodes {
        let listener = TcpListener::bind((address, port)).await?;
        port = listener.local_addr()?.port();
        let others = nodes.iter().map(|&(other, _)| other).filter(|&other| other != node);
        let peers: Vec<Value> = others
            .map(|other| {
                let rtt_seconds = if [node, other].contains(&"node3") { 0.050 } else { 0.001 };
                json!({"to": other, "state": "known", "jitter_seconds": 0.0, "loss_ratio": 0.0, "age_seconds": 0.1, "samples": 10,
                    "rtt_seconds": {"min": rtt_seconds, "p50": rtt_seconds, "p90": rtt_seconds, "p99": rtt_seconds, "ewma": rtt_seconds}})
            })
            .collect();
        let row = json!({"from": node, "measured_at_unix_seconds": 1.5e9, "peers": peers});
        let router = Router::new().route("/v1/row", get(async move || axum::Json(row)));
        tokio::spawn(async { axum::serve(listener, router).await });
    }
    Ok(port)
}

/// A pod that stands for a daemon's: ready, on `node`, with `address`.
pub(crate) async fn daemon_pod(client: &Client, name: &str, node: &str, address: SocketAddr) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kantai-system");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": format!("{name}-{node}"), "labels": {"app.kubernetes.io/name": name}},
        "spec": {"nodeName": node, "containers": [{"name": name, "image": format!("dev.local/{name}")}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    set_ready(&pods, &format!("{name}-{node}"), &address.ip().to_string()).await
}

async fn set_ready(pods: &Api<Pod>, name: &str, address: &str) -> anyhow::Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Scheduler and kubelets in one: pods are bound where they must go (bootstrap pods to node1), are
/// ready a moment later, and go when they are deleted. Runs until the task is dropped.
pub(crate) async fn kubelets(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    loop {
        for pod in pods.list(&ListParams::default()).await? {
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let gone = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                ignore_missing(gone.map(drop))?;
            } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
                let node = pod.labels().get(NODE_LABEL).map_or("node1", String::as_str);
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
                let bound: Result<Value, _> = pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
                ignore_missing(bound.map(drop))?;
            } else if pod.status.as_ref().is_none_or(|status| status.phase.as_deref() != Some("Running")) {
                set_ready(&pods, &name, "10.0.0.1").await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn ignore_missing(result: Result<(), kube::Error>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => Ok(other?),
    }
}

/// Knative's part: a ServerlessService's status follows its spec and the revision's ready pods.
pub(crate) async fn serverless_services(client: Client) -> anyhow::Result<()> {
    let all: Api<ServerlessService> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    loop {
        for sks in all.list(&ListParams::default()).await? {
            let name = sks.name_any();
            let selected = pods.list(&ListParams::default().labels(&format!("serving.knative.dev/revision={name}"))).await?;
            let any_ready = selected.iter().any(|pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
            });
            let activators = sks.spec.mode == ServingMode::Proxy || !any_ready;
            let held = sks.status.clone().unwrap_or_default();
            let condition = |kind: &str, holds: bool| {
                let status = if holds { "True" } else { "Unknown" };
                let same = held
                    .conditions
                    .iter()
                    .find(|condition| condition.kind == kind && (condition.status == ConditionStatus::True) == holds);
                let since =
                    same.and_then(|condition| condition.last_transition_time).unwrap_or_else(k8s_openapi::jiff::Timestamp::now);
                json!({"type": kind, "status": status, "lastTransitionTime": since.to_string()})
            };
            let status = json!({
                "observedGeneration": sks.metadata.generation, "serviceName": name, "privateServiceName": format!("{name}-private"),
                "conditions": [condition("ActivatorEndpointsPopulated", activators), condition("Ready", any_ready)],
            });
            if serde_json::to_value(&held)? != status {
                let written = all.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
                ignore_missing(written.map(drop))?;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
