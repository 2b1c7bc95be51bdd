//! The daemon: how the parts are put together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_writer::{EventWriter, Repeats};
use kube::Client;
use kube::runtime::events::EventType;
use latency_matrix::LatencyMatrix;
use latency_source::{Feed, Latency, Probers, PrometheusSource, Reading};
use lease_election::act_while_leading;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activator::{self, ActivatorProber};
use crate::demand::load_reports::LoadReports;
use crate::demand::statistics_page::StatisticsPages;
use crate::demand::{DemandPeer, DemandSource as _, Demands, Peers, SourceKind};
use crate::explain::Explanations;
use crate::gather::Gatherer;
use crate::leader_label;
use crate::metrics::{InputLabels, Metrics};
use crate::objects::{self, ChangeLog, Objects, PodChanges, WatchScope};
use crate::options::{Label, Options};
use crate::pins;
use crate::report::Reporter;
use crate::routes::RouteBook;
use crate::service_monitor::ServiceMonitors;
use crate::tick::{Parts, Ticker};
use crate::trace::TraceBook;

/// The Lease, in the program's own namespace, whose holder decides.
const LEASE: &str = "extra-controller";
/// Waiting for the first lists of all watches.
const CACHES: &str = "caches";
/// How long a connection to a gateway or prober may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last writes may take before the Lease is given back.
const LAST_WRITES: Duration = Duration::from_secs(7);

/// Runs until `stop` is cancelled.
///
/// # Errors
/// What keeps the daemon from running; everything else is logged and retried.
pub async fn run(options: Options, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let prober = activator::over_http(client.clone())?;
    run_with(options, client, prober, stop).await
}

/// As [`run`] with the given prober, for clusters without a network between Services.
///
/// # Errors
/// As [`run`].
pub async fn run_with(options: Options, client: Client, prober: ActivatorProber, stop: CancellationToken) -> anyhow::Result<()> {
    let start = Instant::now();
    let connecting = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    let (http, streams) = (connecting().timeout(Duration::from_secs(3)).build()?, connecting().build()?);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = ops_http::Readiness::waiting_for([CACHES]);
    let routes = Arc::new(RouteBook::default());
    let explanations = Explanations::default();
    let changes = ChangeLog::default();
    let own_pod = event_writer::pod(&options.pod.pod_namespace, &options.pod.pod_name);
    // People read what holds now, not what held when an event of this reason was first written.
    let events_client = (!options.dry_run).then(|| client.clone());
    let (events, write_events) = EventWriter::new(events_client, LEASE, own_pod, Repeats::Separate);
    let demands = Arc::new(Demands::new(start));

    let mut tasks = JoinSet::new();
    tasks.spawn(write_events);
    let scope = WatchScope { knative_namespace: options.knative_namespace.clone() };
    let objects = objects::spawn(&client, &scope, &changes, &mut tasks);
    let api = ops_http::bind(options.api_listen).await?;
    let ops = ops_http::bind(options.ops.ops_listen).await?;
    let trace = TraceBook::default();
    let api_router = crate::api::router(routes.clone(), explanations.clone(), trace.clone(), options.dry_run, stop.clone());
    let ops = tokio::spawn(ops_http::serve(ops, ops_http::router(Arc::new(registry), readiness.clone()), stop.clone()));
    let api = tokio::spawn(ops_http::serve(api, api_router, stop.clone()));

    tokio::select! {
        filled = objects.filled() => filled.context("failed to fill the caches")?,
        () = stop.cancelled() => return Ok(()),
    }
    readiness.reached(CACHES);

    let (nodes_sender, nodes) = watch::channel(objects.node_names());
    let (matrix_sender, matrix) = watch::channel(Arc::new(LatencyMatrix::default()));
    let (used_sender, used) = watch::channel(BTreeSet::new());
    let feed = feed(&options, http, objects.clone())?;
    let latency = Latency { interval: options.latency.latency_interval, start, nodes, matrix: matrix_sender };
    let is_used = {
        let used = used.clone();
        move || !used.borrow().is_empty()
    };
    let report = report_latency(events.clone(), metrics.clone());
    tasks.spawn(latency_source::follow_while(is_used, latency, feed, report));
    let pods = changes.pods();
    spawn_demand(&options, streams, (&objects, pods.clone()), &demands, &mut tasks);
    tasks.spawn(tell_round_trips(matrix.clone(), demands.clone()));
    tasks.spawn(expect_gateways(objects.clone(), pods, options.clone(), demands.clone()));
    let monitors = ServiceMonitors::default();
    tasks.spawn(monitors.clone().discover(client.clone()));
    let (leads_sender, leads) = watch::channel(false);
    if !options.dry_run {
        tasks.spawn(pins::keep(client.clone(), options.pod.pod_namespace.clone(), used, leads.clone(), start));
        tasks.spawn(leader_label::keep(client.clone(), objects.clone(), options.pod.clone(), leads.clone()));
    }

    let gatherer = Gatherer::new(objects.clone(), options.cost_model);
    let reporter = Reporter::new(events, metrics.clone(), explanations);
    let parts = Parts {
        client: client.clone(),
        objects,
        changes,
        demands,
        latency: matrix,
        nodes: nodes_sender,
        routes,
        metrics,
        monitors,
        prober,
        leads,
        used: used_sender,
        trace,
        is_dry_run: options.dry_run,
    };
    let ended = CancellationToken::new();
    let ticker = {
        let (ticker, stop, ended) = (Ticker::new(parts, gatherer, reporter), stop.clone(), ended.clone());
        tokio::spawn(async move {
            let _ends = ended.drop_guard();
            ticker.run(stop).await;
        })
    };
    let lease = options.pod.lease(LEASE);
    let lead = |stop: CancellationToken| {
        let ended = ended.clone();
        // The Lease is given back when the last write is done.
        async move {
            stop.cancelled().await;
            drop(tokio::time::timeout(LAST_WRITES, ended.cancelled()).await);
        }
    };
    let leading = async {
        if options.dry_run {
            // It decides beside whoever leads, and takes the Lease from nobody.
            leads_sender.send_replace(true);
            return stop.cancelled().await;
        }
        let follow = |leads| leads_sender.send_modify(|held| *held = leads);
        act_while_leading(client, lease, stop.clone(), || (), follow, lead).await;
    };
    tokio::select! {
        () = leading => {}
        () = ended.cancelled(), if !stop.is_cancelled() => {}
        Some(task) = tasks.join_next() => anyhow::bail!("a task ended unexpectedly: {task:?}"),
    }
    ticker.await.context("the loop of decisions ended unexpectedly")?;
    anyhow::ensure!(stop.is_cancelled(), "the loop of decisions ended unexpectedly");
    drop(tasks);
    api.await??;
    ops.await??;
    Ok(())
}

fn spawn_demand(
    options: &Options,
    http: reqwest::Client,
    (objects, pods): (&Objects, PodChanges),
    demands: &Arc<Demands>,
    tasks: &mut JoinSet<()>,
) {
    let peers = |selector: Label, port: u16| {
        let (objects, namespace) = (objects.clone(), options.gateway_namespace.clone());
        move || -> Peers {
            let pods = objects.ready_pods(&namespace, selector.pair(), port);
            pods.into_iter().map(|(name, node, address)| (name, DemandPeer { node: node.into(), address })).collect()
        }
    };
    match options.demand_source {
        SourceKind::LoadReports => {
            let replicas = peers(options.ingress_selector.clone(), options.ingress_port);
            tasks.spawn(LoadReports { http, replicas, pods }.run(demands.clone()));
        }
        SourceKind::StatisticsPage => {
            let gateways = peers(options.gateway_selector.clone(), options.gateway_stats_port);
            tasks.spawn(StatisticsPages { http, gateways, pods }.run(demands.clone()));
        }
    }
}

/// Tells the board of demand what lies between two nodes: so much of a request's time is not the
/// pod's.
async fn tell_round_trips(mut latency: watch::Receiver<Arc<LatencyMatrix>>, demands: Arc<Demands>) {
    while latency.changed().await.is_ok() {
        let matrix = latency.borrow_and_update().clone();
        demands.set_round_trips(Arc::new(move |source, serving| {
            matrix.state(source, serving).stats().map_or(0.0, |stats| stats.p50)
        }));
    }
}

/// Tells the board of demand which nodes have a gateway.
async fn expect_gateways(objects: Objects, mut changes: PodChanges, options: Options, demands: Arc<Demands>) {
    loop {
        let pods = objects.ready_pods(&options.gateway_namespace, options.gateway_selector.pair(), options.gateway_stats_port);
        let nodes = pods.into_iter().map(|(_, node, _)| node.into()).collect();
        demands.board().expect_gateways(nodes);
        changes.next().await;
    }
}

fn feed(options: &Options, http: reqwest::Client, objects: Objects) -> anyhow::Result<Feed<PrometheusSource, Probers>> {
    let scope = options.clone();
    let addresses = move || {
        let pods = objects.ready_pods(&scope.pod.pod_namespace, scope.prober_selector.pair(), scope.prober_port);
        pods.into_iter().map(|(_, node, address)| (node.into(), address)).collect()
    };
    Ok(Feed::new(options.latency.stores()?, Probers::new(http, addresses), options.latency.prometheus_patience))
}

fn report_latency(events: EventWriter, metrics: Metrics) -> impl FnMut(Reading) {
    move |reading| {
        metrics.input_age_seconds.get_or_create(&InputLabels::LATENCY).set(reading.silent_for.as_secs_f64());
        metrics.latency_pairs_known.set(i64::try_from(reading.counts.known).unwrap_or(i64::MAX));
        metrics.latency_pairs_unknown.set(i64::try_from(reading.counts.unknown).unwrap_or(i64::MAX));
        for change in reading.changes {
            let type_ = if change.is_good() { EventType::Normal } else { EventType::Warning };
            events.about_self(type_, change.reason(), change.to_string());
        }
    }
}
