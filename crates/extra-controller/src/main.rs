//! The extra-controller daemon.

use clap::Parser as _;
use extra_controller::{Options, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ops_http::init_logging(options.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "extra-controller");
    let stop = ops_http::stop_on_signal()?;
    let client = kube::Client::try_default().await?;
    run(options, client, stop).await
}
