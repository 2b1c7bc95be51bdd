//! How many pods per second the real kube-scheduler places with and without scheduler-extender:
//! `cargo run --release -p kantai-tests --example scheduler-extender-rate`.
//!
//! Prints one line as all scorecards do. Nodes are objects, which is all that a scheduler looks at;
//! the extender is the program's own server, in this process. Schedulers with and without it take
//! turns, since the machine is not the same all the time.

// A panic is how a measurement says that something is wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kantai_tests::daemon::Daemon;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place, User};
use local_control_plane::progress::Progress;
use placement::CostMatrix;
use scorecards::{Goal, Report, note, progress};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the page tells the scheduler.
const CONFIGURATION: &str = include_str!("../../../deploy/scheduler-extender/scheduler.yaml");
/// Writes in flight while nodes and pods are made.
const AT_ONCE: usize = 32;
/// One round on a machine with other work takes far less.
const ROUND_WITHIN: Duration = Duration::from_secs(600);
/// Requests per second that the scheduler may send: the default of 50 would be all that is
/// measured.
const SCHEDULER_QPS: u32 = 5_000;

/// Measures kube-scheduler with and without scheduler-extender.
#[derive(Parser)]
struct Arguments {
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Pods that are placed in each round; all of them opt in.
    #[arg(long, default_value_t = 2_000)]
    pods: usize,
    /// Rounds with and rounds without, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// As it comes.
    Stock,
    /// As it comes, but all nodes are scored, as our configuration asks for.
    AllNodes,
    /// With our configuration.
    WithUs,
}

struct Stage {
    control_plane: ControlPlane,
    components: Components,
    folder: tempfile::TempDir,
    nodes: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let stage = Stage::start(arguments.nodes).await?;
    let (url, stop) = stage.extender().await?;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        progress(&format!("round {} of {}", round + 1, arguments.rounds));
        for (rates, how) in rates.iter_mut().zip([How::Stock, How::AllNodes, How::WithUs]) {
            rates.push(stage.round(how, &url, arguments.pods).await?);
        }
    }
    stop.cancel();
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let [stock, all_nodes, with_us] = rates.each_mut().map(median);
    note(&format!(
        "{} nodes, {} pods: {stock:.0} pods/s as it comes, {all_nodes:.0} with all nodes scored, {with_us:.0} with the extender",
        arguments.nodes, arguments.pods
    ));
    let mut report = Report::default();
    report.figure("sched_rate_ratio", with_us / stock, "ratio", Goal::AtLeast(0.5));
    Ok(report.exit_code())
}

impl Stage {
    async fn start(count: usize) -> anyhow::Result<Self> {
        let wanted = [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager, Component::KubeScheduler];
        let components = tokio::task::spawn_blocking(move || Components::ensure(&wanted, &Progress::to_stderr())).await??;
        let folder = tempfile::Builder::new().prefix("kantai-rate-").tempdir()?;
        let options = Options {
            folder: folder.path().to_owned(),
            place: Place::Loopback,
            controllers: Controllers::Only(vec!["serviceaccount-controller", "namespace-controller"]),
            scheduler: false,
            lifetime: Lifetime::WithUs,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
        };
        let mut control_plane = ControlPlane::start(&options, &components).await?;
        control_plane.wait_for_controllers().await?;
        progress(&format!("{count} nodes"));
        let nodes: Vec<String> = (0..count).map(|node| format!("worker-{node:05}.site-{:02}", node % 20)).collect();
        let api: Api<Node> = Api::all(control_plane.client());
        let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
        let status =
            json!({"status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}});
        stream::iter(&nodes)
            .map(|node| {
                let (api, status) = (api.clone(), status.clone());
                async move {
                    let labels = json!({"kubernetes.io/hostname": node});
                    let object = serde_json::from_value(json!({"metadata": {"name": node, "labels": labels}}))?;
                    api.create(&PostParams::default(), &object).await?;
                    api.patch_status(node, &PatchParams::default(), &Patch::Strategic(status)).await?;
                    api.patch(node, &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(Self { control_plane, components, folder, nodes })
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), "default")
    }

    fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// Our server; the Service that the pods talk to has an endpoint on every 100th node.
    async fn extender(&self) -> anyhow::Result<(String, CancellationToken)> {
        let size = self.nodes.len();
        let cell = |at: usize| {
            let (from, to) = (at / size, at % size);
            if from == to { 0.0 } else { 0.0002 + 0.002 * (from % 20).abs_diff(to % 20) as f64 }
        };
        let names = self.nodes.iter().map(|name| name.as_str().into()).collect();
        let costs = CostMatrix::from_row_major(names, (0..size * size).map(cell).collect());
        let endpoints: Vec<Value> =
            self.nodes.iter().step_by(100).map(|node| json!({"addresses": ["10.0.0.1"], "nodeName": node})).collect();
        let slice: EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": "cart-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "cart"}}}))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (url, stop) = (format!("http://{}", listener.local_addr()?), CancellationToken::new());
        let ends = stop.clone();
        tokio::spawn(async move { scheduler_extender::measuring::serve(listener, costs, &[slice], ends).await });
        Ok((url, stop))
    }

    fn configuration(&self, how: How, url: &str) -> anyhow::Result<Value> {
        let mut configuration: Value = serde_saphyr::from_str(CONFIGURATION)?;
        let kubeconfig = self.control_plane.kubeconfig(User::KubeScheduler);
        configuration["clientConnection"] = json!({"kubeconfig": kubeconfig, "qps": SCHEDULER_QPS, "burst": SCHEDULER_QPS});
        configuration["leaderElection"] = json!({"leaderElect": false});
        configuration["extenders"][0]["urlPrefix"] = json!(url);
        let fields = configuration.as_object_mut().context("no configuration")?;
        if how != How::WithUs {
            fields.remove("extenders");
        }
        if how == How::Stock {
            fields.remove("percentageOfNodesToScore");
        }
        Ok(configuration)
    }

    /// Pods per second between the first and the last one that is bound.
    async fn round(&self, how: How, url: &str, count: usize) -> anyhow::Result<f64> {
        let limits = json!({"placement.kantai.dev/near": "1"});
        let managed = if how == How::WithUs { limits } else { json!({}) };
        let resources = json!({"requests": {"cpu": "10m"}, "limits": managed});
        let pods = self.pods();
        stream::iter(0..count)
            .map(|number| {
                let pod = json!({"metadata": {"name": format!("pod-{number}"), "annotations": {"placement.kantai.dev/talks-to": "cart"}},
                    "spec": {"containers": [{"name": "one", "image": "none", "resources": resources}]}});
                let pods = pods.clone();
                async move {
                    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        let path = self.folder.path().join("scheduler.yaml");
        std::fs::write(&path, self.configuration(how, url)?.to_string())?;
        let kubeconfig = self.control_plane.kubeconfig(User::KubeScheduler);
        let bound = tokio::spawn(bound(pods.clone(), count));
        let arguments = [format!("--config={}", path.display()), "--secure-port=0".to_owned()];
        let log = self.folder.path().join("scheduler.log");
        let scheduler = Daemon::start(self.components.path(Component::KubeScheduler)?, &kubeconfig, &arguments, &log)?;
        let rate = tokio::time::timeout(ROUND_WITHIN, bound).await.context("pods were not bound in time")???;
        scheduler.kill().await?;
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        while !pods.list(&ListParams::default().limit(1)).await?.items.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(rate)
    }
}

async fn bound(pods: Api<Pod>, count: usize) -> anyhow::Result<f64> {
    let mut changes = std::pin::pin!(watcher(pods, watcher::Config::default()).applied_objects());
    let (mut bound, mut first) = (BTreeSet::new(), None);
    while let Some(pod) = changes.try_next().await? {
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) && bound.insert(pod.name_any()) {
            let first = *first.get_or_insert_with(Instant::now);
            if bound.len() == count {
                return Ok((count - 1) as f64 / first.elapsed().as_secs_f64());
            }
        }
    }
    anyhow::bail!("the watch ended")
}
