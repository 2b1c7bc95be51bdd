//! The scheduler-extender daemon.

use anyhow::Context as _;
use clap::Parser as _;
use scheduler_extender::{Options, run};

/// One thread answers the scheduler while the other one follows the cluster.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ops_http::init_logging(options.ops.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "scheduler-extender");
    let stop = ops_http::stop_on_signal()?;
    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
    run(options, client, stop).await
}
