//! Bursts at a service whose pods take only so many requests at once, and calm at the same kind of
//! service: `cargo lab -- burst`.
//!
//! Three services of Kantai's class with containerConcurrency 5, one pod to begin with and at most
//! eight, and a time-out of 60 s; none says anything of target-burst-capacity. The first gets 30
//! requests a second of one second each for a minute, the second 500 such requests at once; both
//! enter one node. The third gets 20 short requests a second from every node, and is looked at once
//! its pods are where they are needed.

mod figures;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{Cluster, NodeHandle};
use crate::load::{self, Outcome};
use crate::report::ReportError;
use crate::scenario::KANTAI_CLASS;
use local_control_plane::progress::Progress;

use figures::{Calm, arrived_at_activators};
pub use figures::{Figure, Report};

const NAMESPACE: &str = "default";
const IMAGE: &str = "dev.local/kantai/hello:0.1.0";
const INGRESS: (&str, &str) = ("kantai-system", "app.kubernetes.io/name=locality-ingress");

const CONCURRENCY: u32 = 5;
const MOST_PODS: u32 = 8;
const TIMEOUT_SECONDS: u32 = 60;

const STEADY_RATE: f64 = 30.0;
const STEADY_SECONDS: f64 = 60.0;
const AT_ONCE: usize = 500;
const CALM_RATE: f64 = 20.0;
/// What the controller may take to bring pods to every node, and how long is measured after that.
const CALM_SETTLES_SECONDS: f64 = 60.0;
const CALM_SECONDS: f64 = 60.0;

const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why the bursts could not be run. A request that fails is no such error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum BurstError {
    /// The cluster is down.
    #[error("failed to run the bursts: the cluster is down")]
    NoCluster,
    /// The API server refused something.
    #[error("failed to {what}")]
    Api {
        /// What was asked of it.
        what: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// A service does not come up.
    #[error("failed to start service {service}: not Ready within {} s", READY_WITHIN.as_secs())]
    NotReady {
        /// Its name.
        service: String,
    },
    /// The load could not be started.
    #[error("failed to send requests from node {node}")]
    Load {
        /// The node.
        node: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The report could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Runs the bursts on a cluster that is up, and writes `report.json` into `folder`.
///
/// # Errors
/// When they cannot be run at all.
pub async fn run(cluster: &Cluster, folder: PathBuf, progress: &Progress) -> Result<Report, BurstError> {
    let runner = Runner { client: cluster.client().ok_or(BurstError::NoCluster)?, cluster, progress };
    let entry = cluster.nodes().first().ok_or(BurstError::NoCluster)?;

    let url = runner.start("steady-burst", "/?wait_ms=1000").await?;
    progress.line(format_args!("{STEADY_RATE} requests a second of 1 s enter {} for {STEADY_SECONDS} s", entry.name));
    let steady = runner.send(entry, &url, ["--rate", &STEADY_RATE.to_string(), "--seconds", &STEADY_SECONDS.to_string()]).await?;
    let steady_held = runner.held("steady-burst").await?;
    runner.stop("steady-burst").await?;

    let url = runner.start("sudden-burst", "/?wait_ms=1000").await?;
    progress.line(format_args!("{AT_ONCE} requests of 1 s enter {} at once", entry.name));
    // Each worker sends once: answers come later than the time is over.
    let sudden = runner.send(entry, &url, ["--workers", &AT_ONCE.to_string(), "--seconds", "0.9"]).await?;
    let sudden_held = runner.held("sudden-burst").await?;
    runner.stop("sudden-burst").await?;

    let url = runner.start("calm", "/").await?;
    progress.line(format_args!("{CALM_RATE} short requests a second enter every node"));
    let calm = runner.calm(&url).await?;
    runner.stop("calm").await?;

    let report = Report::new(&steady, steady_held, &sudden, sudden_held, AT_ONCE, &calm);
    report.write(&folder)?;
    Ok(report)
}

struct Runner<'a> {
    client: Client,
    cluster: &'a Cluster,
    progress: &'a Progress,
}

impl Runner<'_> {
    fn services(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("serving.knative.dev", "v1", "Service");
        Api::namespaced_with(self.client.clone(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "services"))
    }

    /// Starts a service, waits until it is Ready, and gives the URL of `path` of it.
    async fn start(&self, name: &str, path: &str) -> Result<String, BurstError> {
        let failed = |source| BurstError::Api { what: format!("start service {name}"), source: Box::new(source) };
        let services = self.services();
        services.patch(name, &PatchParams::apply("netem-lab"), &Patch::Apply(service(name))).await.map_err(failed)?;
        let began = Instant::now();
        while !is_ready(&services.get(name).await.map_err(failed)?.data) {
            if began.elapsed() > READY_WITHIN {
                return Err(BurstError::NotReady { service: name.to_owned() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.progress.line(format_args!("{name} is Ready after {:.1} s", began.elapsed().as_secs_f64()));
        Ok(format!("http://{name}.{NAMESPACE}.svc.cluster.local{path}"))
    }

    async fn stop(&self, name: &str) -> Result<(), BurstError> {
        let failed = |source| BurstError::Api { what: format!("delete service {name}"), source: Box::new(source) };
        self.services().delete(name, &kube::api::DeleteParams::default()).await.map(|_| ()).map_err(failed)
    }

    /// Sends requests from a node as `pace` says, and waits for all answers.
    async fn send<'s>(
        &self,
        node: &NodeHandle,
        url: &str,
        pace: impl IntoIterator<Item = &'s str>,
    ) -> Result<Vec<Outcome>, BurstError> {
        let failed = |source| BurstError::Load { node: node.name.clone(), source };
        // A client waits a little longer than the service may take.
        let patience = (TIMEOUT_SECONDS + 10).to_string();
        let process = node
            .command(load::own_program().map_err(failed)?)
            .args(["load", "--from-node", &node.name, "--url", url, "--timeout-seconds", &patience])
            .args(pace)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output();
        let output = process.await.map_err(failed)?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let read = |line| serde_json::from_str(line).map_err(|error| failed(std::io::Error::other(error)));
        lines.lines().map(read).collect()
    }

    async fn calm(&self, url: &str) -> Result<Calm, BurstError> {
        let seconds = (CALM_SETTLES_SECONDS + CALM_SECONDS).to_string();
        let rate = CALM_RATE.to_string();
        let pace = ["--rate", &rate, "--seconds", &seconds];
        let sent = self.cluster.nodes().iter().map(|node| self.send(node, url, pace));
        let held_before = async {
            tokio::time::sleep(Duration::from_secs_f64(CALM_SETTLES_SECONDS)).await;
            self.held("calm").await
        };
        let (outcomes, held_before) = tokio::join!(futures::future::try_join_all(sent), held_before);
        let held = self.held("calm").await?.saturating_sub(held_before?);
        let mut outcomes: Vec<Outcome> = outcomes?.into_iter().flatten().collect();
        let began = outcomes.iter().map(|outcome| outcome.at_unix_seconds).fold(f64::INFINITY, f64::min);
        let failed = outcomes.iter().filter(|outcome| !outcome.succeeded()).count();
        outcomes.retain(|outcome| outcome.at_unix_seconds >= began + CALM_SETTLES_SECONDS);
        Ok(Calm { failed, settled: outcomes, held })
    }

    /// How many requests for a service gateways have given to activators to hold, while pods
    /// served.
    async fn held(&self, service: &str) -> Result<u64, BurstError> {
        let failed = |source| BurstError::Api { what: "read the ingress's metrics".to_owned(), source: Box::new(source) };
        // Reports of load come several times a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = Api::<Pod>::namespaced(self.client.clone(), INGRESS.0).list(&ListParams::default().labels(INGRESS.1)).await;
        let mut held = BTreeMap::new();
        for pod in pods.map_err(failed)? {
            let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", INGRESS.0, pod.name_any());
            let request = http::Request::get(path).body(Vec::new()).map_err(|error| failed(kube::Error::HttpError(error)))?;
            let page = self.client.request_text(request).await.map_err(failed)?;
            held.insert(pod.name_any(), arrived_at_activators(&page, NAMESPACE, service));
        }
        Ok(held.values().sum())
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "template": {
            "metadata": { "annotations": {
                "autoscaling.knative.dev/class": KANTAI_CLASS,
                "autoscaling.knative.dev/min-scale": "1",
                "autoscaling.knative.dev/max-scale": MOST_PODS.to_string(),
            } },
            "spec": {
                "containerConcurrency": CONCURRENCY,
                "timeoutSeconds": TIMEOUT_SECONDS,
                "containers": [{
                    "image": IMAGE,
                    "ports": [{ "containerPort": 8080 }],
                    "env": [{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
                }],
            },
        } },
    })
}

fn is_ready(service: &Value) -> bool {
    let conditions = service["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
