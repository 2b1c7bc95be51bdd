//! The seika-controller daemon.

use anyhow::Context as _;
use clap::Parser as _;
use seika_controller::{Command, Options, run};

// On one thread: there is little to compute, and passing each response between threads costs more
// than that.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(Command::Crd) = options.command {
        print!("{}", k8s_api::seika::crd_yaml()?);
        return Ok(());
    }
    ops_http::init_logging(options.ops.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "seika-controller");
    let stop = ops_http::stop_on_signal()?;
    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
    run(options, client, stop).await
}
