//! How good the prober is, in figures: `cargo run --release -p latency-probe --example scorecard
//! [-- [quick] [FIGURES] | fuzz [EXECUTIONS]]`. Needs root; makes its own namespaces. Prints `id
//! value  unit  goal  ok|short` with tabs between, and behind that under which conditions, with the
//! machine's own noise where that can spoil the figure. `quick` measures for a shorter time;
//! FIGURES are some of accuracy, throughput, many_peers, fping, smokeping, detection, fuzzing;
//! `fuzz` runs the parsers only.
//!
//! The comparisons run the Debian packages fping and prometheus-smokeping-prober.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made should say where it broke")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../tests/bench/mod.rs"]
mod bench;
mod capture;
mod figures;
mod fuzzing;
#[path = "../../fuzz/src/runner.rs"]
mod runner;
#[allow(unreachable_pub, reason = "a library for cargo-fuzz, a module here")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use latency_probe::daemon;
use latency_probe::options::{Command, Options};

use clap::Parser as _;

/// A part of the card by its name, and how to measure it, perhaps quickly.
type Figure = (&'static str, fn(bool));

fn main() {
    // The scorecard's probers are this very program.
    if std::env::args().nth(1).as_deref() == Some("run") {
        let Command::Run(options) = Options::parse().command else { return };
        ops_http::init_logging(options.log_format());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { daemon::run(&options, ops_http::stop_on_signal().unwrap()).await.unwrap() });
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.first().is_some_and(|first| first == "quick");
    println!("id\tvalue\tunit\tgoal\tverdict\tconditions");
    if arguments.first().is_some_and(|first| first == "fuzz") {
        fuzzing::fuzz(arguments.get(1).map_or(fuzzing::GOAL, |executions| executions.parse().unwrap()));
        return;
    }
    let figures: [Figure; 7] = [
        ("accuracy", figures::accuracy),
        ("throughput", figures::throughput),
        ("many_peers", figures::many_peers),
        ("fping", figures::against_fping),
        ("smokeping", figures::against_smokeping),
        ("detection", |_| figures::detection()),
        ("fuzzing", |quick| fuzzing::fuzz(if quick { fuzzing::GOAL / 100 } else { fuzzing::GOAL })),
    ];
    let wanted = &arguments[usize::from(quick)..];
    for (name, measure) in figures.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)) {
        eprintln!("{name} ...");
        measure(quick);
    }
}

/// One line of the card.
fn print(id: &str, value: f64, unit: &str, goal: &str, reached: bool, note: &str) {
    println!("{id}\t{value:.3}\t{unit}\t{goal}\t{}\t{note}", if reached { "ok" } else { "short" });
}

/// A line that cannot be measured for want of a program.
fn print_missing(id: &str, unit: &str, goal: &str, package: &str) {
    println!("{id}\t-\t{unit}\t{goal}\tshort\tnot measured: install the Debian package {package} (apt-get install {package})");
}
