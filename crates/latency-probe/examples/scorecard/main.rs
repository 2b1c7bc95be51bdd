//! How good the prober is, in figures: `cargo run --release -p latency-probe --example scorecard [-- quick]`. Needs root; makes its own
//! namespaces. Prints `id  value  unit  goal  ok|short` with tabs between. `quick` measures for a shorter time.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made should say where it broke")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../tests/bench/mod.rs"]
mod bench;
mod capture;
mod figures;

use latency_probe::daemon;
use latency_probe::options::{Command, Options};

use clap::Parser as _;

fn main() {
    // The scorecard's probers are this very program.
    if std::env::args().nth(1).as_deref() == Some("run") {
        let Command::Run(options) = Options::parse().command else { return };
        ops_http::init_logging(options.log_format);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async { daemon::run(&options, ops_http::stop_on_signal().unwrap()).await.unwrap() });
        return;
    }
    let quick = std::env::args().nth(1).as_deref() == Some("quick");
    println!("id\tvalue\tunit\tgoal\tverdict");
    figures::accuracy(quick);
    figures::throughput(quick);
    figures::many_peers(quick);
    figures::against_fping(quick);
    figures::against_smokeping(quick);
    figures::detection();
}

/// One line of the card.
fn print(id: &str, value: f64, unit: &str, goal: &str, reached: bool) {
    println!("{id}\t{value:.3}\t{unit}\t{goal}\t{}", if reached { "ok" } else { "short" });
}
