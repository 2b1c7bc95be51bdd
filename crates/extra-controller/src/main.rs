//! The extra-controller daemon.

use anyhow::Context as _;
use clap::Parser as _;
use extra_controller::{Command, Options, hand_back, run};

/// One thread decides while the other one reads and writes, on however many cores: each more costs
/// memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ops_http::init_logging(options.ops.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "extra-controller");
    let stop = ops_http::stop_on_signal()?;
    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
    match options.command {
        None => run(options, client, stop).await,
        Some(Command::HandBack { timeout }) => tokio::select! {
            done = hand_back(client, timeout) => Ok(done?),
            () = stop.cancelled() => anyhow::bail!("stopped before every revision was handed back"),
        },
    }
}
