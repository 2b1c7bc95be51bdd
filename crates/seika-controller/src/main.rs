//! `seika-controller`: keeps exactly N pods on each named node.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use lease_election::{LeaseSettings, act_while_leading};
use prometheus_client::registry::Registry;
use seika_controller::controller::{self, Settings};
use seika_controller::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// Keeps exactly N pods on each named node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Print the resource definition (YAML) and end.
    Crd,
}

#[derive(clap::Args)]
struct Run {
    /// Address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "KANTAI_OPS_LISTEN", default_value = "[::]:8080")]
    ops_listen: SocketAddr,
    /// Log format: json or text.
    #[arg(long, env = "KANTAI_LOG_FORMAT", default_value = "json")]
    log_format: ops_http::LogFormat,
    /// Reconcile Seikas in this namespace only.
    #[arg(long, env = "KANTAI_NAMESPACE")]
    namespace: Option<String>,
    /// Limit of writes in flight, for all Seikas together.
    #[arg(long, env = "KANTAI_WRITES_AT_ONCE", default_value_t = Settings::default().writes_at_once)]
    writes_at_once: usize,
    /// Limit of writes per second on average, for all Seikas together. Default: no limit.
    #[arg(long, env = "KANTAI_WRITES_PER_SECOND")]
    writes_per_second: Option<f64>,
    /// Limit of Seikas that are reconciled at once.
    #[arg(long, env = "KANTAI_SEIKAS_AT_ONCE", default_value_t = Settings::default().seikas_at_once)]
    seikas_at_once: u16,
    /// Namespace of the Lease `seika-controller`, by which one process leads at a time.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    lease_namespace: String,
    /// Identity of this process in the Lease. Each process needs its own.
    #[arg(long, env = "POD_NAME", default_value_t = format!("seika-controller-{}", std::process::id()))]
    identity: String,
}

// On one thread: there is little to compute, and passing each response between threads costs more
// than that.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Crd) => {
            print!("{}", seika_controller::crd::crd_yaml()?);
            Ok(())
        }
        None => run(arguments.run).await,
    }
}

async fn run(arguments: Run) -> anyhow::Result<()> {
    ops_http::init_logging(arguments.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "seika-controller");
    let stop = ops_http::stop_on_signal()?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let readiness = ops_http::Readiness::waiting_for(["lease"]);
    let listener = ops_http::bind(arguments.ops_listen).await?;
    let serving = ops_http::serve(listener, ops_http::router(Arc::new(registry), readiness.clone()), stop.clone());
    let ends = stop.clone().drop_guard();
    let endpoints = tokio::spawn(async move {
        // If it ends, the process ends: without health endpoints it should be restarted.
        let _ends = ends;
        serving.await
    });

    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
    let settings = Settings {
        namespace: arguments.namespace,
        writes_at_once: arguments.writes_at_once,
        writes_per_second: arguments.writes_per_second,
        seikas_at_once: arguments.seikas_at_once,
        instance: Some(arguments.identity.clone()),
    };
    let lease =
        LeaseSettings { name: "seika-controller".into(), namespace: arguments.lease_namespace, identity: arguments.identity };
    let failure = OnceLock::new();
    let act = async |stop: CancellationToken| {
        if let Err(ended) = controller::run(client.clone(), settings.clone(), metrics.clone(), stop.clone()).await {
            tracing::error!(error = &ended as &dyn std::error::Error, "giving up");
            let _ = failure.set(ended);
            // This process does not lead again.
            stop.cancel();
        }
    };
    // A candidate is ready too. Otherwise an update of the Deployment would wait for the lease that
    // the old pod holds.
    let ready = || readiness.reached("lease");
    let leads = |leads| metrics.leads(leads);
    act_while_leading(client.clone(), lease, stop.clone(), ready, leads, act).await;
    stop.cancel();
    endpoints.await??;
    failure.into_inner().map_or(Ok(()), |ended| Err(ended.into()))
}
