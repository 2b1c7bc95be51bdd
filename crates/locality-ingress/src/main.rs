//! The locality-ingress daemon.

use anyhow::Context as _;
use clap::Parser as _;
use locality_ingress::{Listeners, Options, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ops_http::init_logging(options.ops.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), class = options.ingress_class, policy = ?options.policy, "locality-ingress");
    let stop = ops_http::stop_on_signal()?;
    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
    let listeners =
        Listeners { xds: ops_http::bind(options.xds_listen).await?, ops: ops_http::bind(options.ops.ops_listen).await? };
    Ok(run(client, options, listeners, stop).await?)
}
