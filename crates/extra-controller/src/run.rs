//! The daemon: options, and how the parts are put together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use kube::Client;
use kube::runtime::events::EventType;
use lease_election::{LeaseSettings, act_while_leading};
use placement::{CostModel, Freshness};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::controller::{self, Context};
use crate::demand::sampler::{Demands, GatewayAddress};
use crate::latency::{Feed, FeedChange, LatencyBook, Probers, PrometheusSource};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::objects::{self, Objects, Triggers, WatchScope};
use crate::routes::RouteBook;
use crate::service_monitor::ServiceMonitors;

/// The Lease, in the program's own namespace, whose holder decides.
const LEASE: &str = "extra-controller";

/// Decides how many pods a Knative revision gets, on which nodes, and which way each node's traffic goes.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about)]
pub struct Options {
    /// Where to serve the weights and the stream of routes
    #[arg(long, env = "KANTAI_API_LISTEN", default_value = "[::]:18080")]
    pub api_listen: SocketAddr,
    /// Where to serve /healthz, /readyz and /metrics
    #[arg(long, env = "KANTAI_OPS_LISTEN", default_value = "[::]:8080")]
    pub ops_listen: SocketAddr,
    /// Namespace that Knative Serving runs in, where config-autoscaler is
    #[arg(long, env = "KANTAI_KNATIVE_NAMESPACE", default_value = "knative-serving")]
    pub knative_namespace: String,
    /// Namespace of the gateway pods
    #[arg(long, env = "KANTAI_GATEWAY_NAMESPACE", default_value = "kantai-system")]
    pub gateway_namespace: String,
    /// Label of the gateway pods; for Kourier app=3scale-kourier-gateway
    #[arg(long, env = "KANTAI_GATEWAY_SELECTOR", default_value = "app.kubernetes.io/name=kantai-gateway", value_parser = label)]
    pub gateway_selector: Label,
    /// Port of a gateway's statistics
    #[arg(long, env = "KANTAI_GATEWAY_STATS_PORT", default_value_t = 9000)]
    pub gateway_stats_port: u16,
    /// How gateways choose a pod: local-first (by our routes), or uniform (evenly, as Kourier does)
    #[arg(long, env = "KANTAI_COST_MODEL", default_value = "local-first", value_parser = cost_model)]
    pub cost_model: CostModel,
    /// Prometheus that scrapes the probers; without it they are asked themselves
    #[arg(long, env = "KANTAI_PROMETHEUS_URL")]
    pub prometheus_url: Option<String>,
    /// How many seconds what Prometheus last said holds before the probers are asked in its stead
    #[arg(long, env = "KANTAI_PROMETHEUS_PATIENCE_SECONDS", default_value_t = 30)]
    pub prometheus_patience_seconds: u64,
    /// Label of the probers' pods
    #[arg(long, env = "KANTAI_PROBER_SELECTOR", default_value = "app.kubernetes.io/name=latency-probe", value_parser = label)]
    pub prober_selector: Label,
    /// Port of the probers
    #[arg(long, env = "KANTAI_PROBER_PORT", default_value_t = 9798)]
    pub prober_port: u16,
    /// How often latency is read, in seconds
    #[arg(long, env = "KANTAI_LATENCY_INTERVAL_SECONDS", default_value_t = 5)]
    pub latency_interval_seconds: u64,
    /// This pod's namespace, where the Lease is, and the ConfigMap by which probers hear which nodes are in use
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    pub pod_namespace: String,
    /// This pod's name, which holds the Lease
    #[arg(long, env = "POD_NAME", default_value = "extra-controller")]
    pub pod_name: String,
    /// json or text
    #[arg(long, env = "KANTAI_LOG_FORMAT", default_value = "json")]
    pub log_format: ops_http::LogFormat,
}

/// A label and the value it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    fn pair(&self) -> (&str, &str) {
        (&self.key, &self.value)
    }
}

fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form label=value"))?;
    Ok(Label { key: key.to_owned(), value: value.to_owned() })
}

fn cost_model(text: &str) -> Result<CostModel, String> {
    match text {
        "local-first" => Ok(CostModel::LocalFirst),
        "uniform" => Ok(CostModel::Uniform),
        other => Err(format!("unknown cost model {other:?}: local-first or uniform")),
    }
}

/// Waiting for the first lists of all watches.
const CACHES: &str = "caches";
/// How long a connection to a gateway or prober may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until `stop` is cancelled.
///
/// # Errors
/// What keeps the daemon from running at all; everything else is logged and tried again.
pub async fn run(options: Options, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(Duration::from_secs(3)).build()?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = ops_http::Readiness::waiting_for([CACHES]);
    let routes = Arc::new(RouteBook::default());
    let triggers = Triggers::default();
    let notifier = Notifier::new(client.clone(), &options.pod_namespace, &options.pod_name);
    let latency = Arc::new(ArcSwap::<LatencyBook>::default());
    let demands = Arc::new(Demands::new(Instant::now()));

    let mut tasks = JoinSet::new();
    let scope = WatchScope { knative_namespace: options.knative_namespace.clone() };
    let objects = objects::spawn(&client, &scope, &triggers, &mut tasks);
    let api = ops_http::bind(options.api_listen).await?;
    let ops = ops_http::bind(options.ops_listen).await?;
    let ops = tokio::spawn(ops_http::serve(ops, ops_http::router(Arc::new(registry), readiness.clone()), stop.clone()));
    let api = tokio::spawn(ops_http::serve(api, crate::api::router(routes.clone(), stop.clone()), stop.clone()));

    tokio::select! {
        filled = objects.filled() => filled.context("failed to fill the caches")?,
        () = stop.cancelled() => return Ok(()),
    }
    readiness.reached(CACHES);
    let feed = feed(&options, http.clone(), objects.clone())?;
    tasks.spawn(follow_latency(feed, options.clone(), latency.clone(), demands.clone(), notifier.clone(), metrics.clone()));

    let context = Arc::new(Context {
        client: client.clone(),
        namespace: options.pod_namespace.clone(),
        objects: objects.clone(),
        demands,
        latency,
        routes,
        notifier,
        metrics,
        model: options.cost_model,
        monitors: ServiceMonitors::default(),
        revisions: Mutex::default(),
        ledger: Mutex::default(),
    });
    let lease =
        LeaseSettings { name: LEASE.to_owned(), namespace: options.pod_namespace.clone(), identity: options.pod_name.clone() };
    let lead = |stop| {
        let (objects, scope) = (objects.clone(), options.clone());
        controller::lead(context.clone(), &triggers, http.clone(), move || gateways(&objects, &scope), stop)
    };
    act_while_leading(client, lease, stop, || (), |leads| context.leads(leads), lead).await;
    drop(tasks);
    api.await??;
    ops.await??;
    Ok(())
}

fn gateways(objects: &Objects, options: &Options) -> BTreeMap<String, GatewayAddress> {
    let pods = objects.ready_pods(&options.gateway_namespace, options.gateway_selector.pair(), options.gateway_stats_port);
    pods.into_iter().map(|(pod, node, address)| (pod, GatewayAddress { node: node.into(), address })).collect()
}

fn feed(options: &Options, http: reqwest::Client, objects: Objects) -> anyhow::Result<Feed<PrometheusSource, Probers>> {
    let prometheus = options.prometheus_url.as_deref().filter(|url| !url.is_empty());
    let prometheus = prometheus.map(|url| PrometheusSource::new(http.clone(), url)).transpose()?;
    let scope = options.clone();
    let addresses = move || {
        let pods = objects.ready_pods(&scope.pod_namespace, scope.prober_selector.pair(), scope.prober_port);
        pods.into_iter().map(|(_, _, address)| address).collect()
    };
    Ok(Feed::new(prometheus, Probers::new(http, addresses), Duration::from_secs(options.prometheus_patience_seconds)))
}

async fn follow_latency(
    mut feed: Feed<PrometheusSource, Probers>,
    options: Options,
    latency: Arc<ArcSwap<LatencyBook>>,
    demands: Arc<Demands>,
    notifier: Notifier,
    metrics: Metrics,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(options.latency_interval_seconds.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut book = LatencyBook::default();
    loop {
        ticks.tick().await;
        // The same clock that decisions read it by.
        let changes = feed.read(&mut book, demands.now()).await;
        latency.store(Arc::new(book.clone()));
        let known = book.known_pairs(demands.now().as_secs_f64(), Freshness::default());
        metrics.latency_pairs_known.set(i64::try_from(known).unwrap_or(i64::MAX));
        for change in changes {
            let (type_, reason, note) = told(&change);
            tracing::warn!(reason, note, "latency");
            notifier.about_self(type_, reason, note).await;
        }
    }
}

fn told(change: &FeedChange) -> (EventType, &'static str, String) {
    match change {
        FeedChange::Lost { source, error } => {
            (EventType::Warning, "LatencySourceLost", format!("{source} does not answer, what is known holds for now: {error}"))
        }
        FeedChange::FellBack { to } => (EventType::Warning, "LatencyFallback", format!("latency is read from {to} from now on")),
        FeedChange::Recovered { source } => (EventType::Normal, "LatencySourceRecovered", format!("{source} answers again")),
        FeedChange::NobodyAnswers { error } => {
            (EventType::Warning, "LatencyUnknown", format!("nobody tells latency, what is known ages: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn options_have_working_defaults_and_refuse_nonsense() {
        let options = Options::try_parse_from(["extra-controller"]).unwrap();
        assert_eq!(options.gateway_selector.pair(), ("app.kubernetes.io/name", "kantai-gateway"));
        assert_eq!((options.api_listen.port(), options.cost_model), (18080, CostModel::LocalFirst));
        assert!(Options::try_parse_from(["extra-controller", "--cost-model", "fastest"]).is_err());
        assert!(Options::try_parse_from(["extra-controller", "--gateway-selector", "gateway"]).is_err());
    }
}
