//! The daemon: how the parts are put together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use autoscaler::latency::Networks;
use autoscaler::room::NodeRoom;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use event_writer::{EventWriter, Repeats};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use latency_matrix::{LatencyMatrix, PairState};
use latency_source::{Feed, Latency, Probers};
use placement::CostPolicy;
use placement::problem::CostModel;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::network::Network;
use crate::options::Options;
use crate::report::{Events, Reporter};
use crate::server::Server;
use crate::verbs::Verbs;
use crate::watches::{self, Places};

/// The name of the program.
const NAME: &str = "scheduler-extender";
/// Waiting for the first lists of all watches.
const CACHES: &str = "caches";
/// How long a prober may take to be connected to, and to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Runs until `stop` is cancelled.
///
/// # Errors
/// What keeps the daemon from running; everything else is logged and retried.
pub async fn run(options: Options, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = ops_http::Readiness::waiting_for([CACHES]);
    let own_pod = event_writer::pod(&options.pod_namespace, &options.pod_name);
    let (writer, write_events) = EventWriter::new(Some(client.clone()), NAME, own_pod, Repeats::Separate);
    let reporter = Reporter::new(Some(Events { writer, tell_scores: options.score_events }), metrics);
    let verbs = Arc::new(Verbs::new(options.filter, options.serving_time.as_secs_f64()));

    let mut tasks = JoinSet::new();
    tasks.spawn(write_events);
    let places = watches::nodes(&client, &mut tasks);
    let services = watches::services(&client, &verbs, &mut tasks);
    follow_latency(&options, &client, &verbs, places.clone(), reporter.clone(), &mut tasks)?;

    // Both are bound before either is served, and the scheduler is answered while caches fill.
    let scheduler = ops_http::bind(options.extender_listen).await?;
    let ops = ops_http::bind(options.ops.ops_listen).await?;
    let router = ops_http::router(Arc::new(registry), readiness.clone()).merge(explanations(verbs.clone()));
    let ops = tokio::spawn(ops_http::serve(ops, router, stop.clone()));
    let server = tokio::spawn(Arc::new(Server { verbs: verbs.clone(), reporter }).serve(scheduler, stop.clone()));

    let working = async {
        watches::filled(&verbs, places, services).await.context("failed to fill the caches")?;
        readiness.reached(CACHES);
        let ended = tasks.join_next().await;
        anyhow::bail!("a task ended unexpectedly: {ended:?}")
    };
    tokio::select! {
        ended = working => return ended,
        () = stop.cancelled() => {}
    }
    server.await?;
    ops.await??;
    Ok(())
}

/// Keeps the network of `verbs` up to date.
fn follow_latency(
    options: &Options,
    client: &Client,
    verbs: &Arc<Verbs>,
    mut places: watch::Receiver<Option<Arc<Places>>>,
    reporter: Reporter,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).build()?;
    let addresses = watches::probers(client, &options.pod_namespace, &options.prober_selector, options.prober_port, tasks);
    let feed = Feed::new(options.latency.stores()?, Probers::new(http, addresses), options.latency.prometheus_patience);
    let start = Instant::now();
    let (names_sender, names) = watch::channel(Vec::new());
    let (matrix_sender, mut matrix) = watch::channel(Arc::new(LatencyMatrix::default()));
    let latency = Latency { interval: options.latency.latency_interval, start, nodes: names, matrix: matrix_sender };
    tasks.spawn(latency_source::follow(latency, feed, move |reading| reporter.latency(&reading)));
    let verbs = verbs.clone();
    tasks.spawn(async move {
        // As the decision-maker sees it: estimates for pairs that are not known, and no noise.
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        loop {
            let changed = tokio::select! {
                changed = places.changed() => changed,
                changed = matrix.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let places = places.borrow_and_update().clone().unwrap_or_default();
            names_sender.send_if_modified(|names| {
                let is_changed = !names.iter().eq(places.keys());
                if is_changed {
                    *names = places.keys().cloned().collect();
                }
                is_changed
            });
            let matrix = matrix.borrow_and_update().clone();
            let now_seconds = start.elapsed().as_secs_f64();
            // Estimates for a thousand nodes take seconds.
            let made = tokio::task::spawn_blocking(move || {
                let network = network(&mut networks, &matrix, &places, now_seconds);
                (networks, network)
            });
            let Ok((back, network)) = made.await else { return };
            networks = back;
            verbs.set_network(network);
        }
    });
    Ok(())
}

fn network(networks: &mut Networks, matrix: &Arc<LatencyMatrix>, places: &Places, now_seconds: f64) -> Network {
    let room: Vec<NodeRoom> = places
        .iter()
        .map(|(name, labels)| {
            let mut node = Node::default();
            (node.metadata.name, node.metadata.labels) = (Some(name.to_string()), Some(labels.clone()));
            NodeRoom::read(&node)
        })
        .collect();
    let costs = networks.network(matrix, &room, now_seconds).costs.clone();
    let is_unreachable = |(_, state): &((usize, usize), &PairState)| **state == PairState::Unreachable;
    let unreachable = matrix.pairs().indexed_iter().filter(is_unreachable).map(|(pair, _)| pair);
    Network::new(costs, unreachable, |node| places.get(node).cloned().unwrap_or_default())
}

fn explanations(verbs: Arc<Verbs>) -> Router {
    Router::new().route("/v1/explain/{namespace}/{pod}", get(explain)).with_state(verbs)
}

/// Why the nodes got their scores when the pod was scheduled: in words, and as data.
async fn explain(State(verbs): State<Arc<Verbs>>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    match verbs.explanations.of(&namespace, &pod) {
        Some(explanation) => Json(explanation).into_response(),
        None => (StatusCode::NOT_FOUND, Json("NotFound")).into_response(),
    }
}
