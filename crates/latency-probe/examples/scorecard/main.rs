//! How good the prober is, in figures: `cargo run --release -p latency-probe --example scorecard
//! [-- [quick] [FIGURES] | fuzz [EXECUTIONS]]`. Needs root; makes its own namespaces. Prints the
//! lines of the crate `scorecards`, with the conditions in the last column, and in them the
//! machine's own noise where that can spoil the figure. `quick` measures for a shorter time;
//! FIGURES are some of accuracy, throughput, many_peers, fping, smokeping, detection, step,
//! restarts, fuzzing; `fuzz` runs the parsers only.
//!
//! The comparisons run the Debian packages fping and prometheus-smokeping-prober.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made should say where it broke")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../tests/bench/mod.rs"]
mod bench;
mod capture;
mod changes;
mod figures;
mod fuzzing;
#[path = "../../fuzz/src/runner.rs"]
mod runner;
#[allow(unreachable_pub, reason = "a library for cargo-fuzz, a module here")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::process::ExitCode;

use clap::Parser as _;
use latency_probe::{Command, Options, run_daemon};
use scorecards::{Report, progress};

/// A part of the card by its name, and how to measure it, perhaps quickly.
type Part = (&'static str, fn(&mut Report, bool));

fn main() -> ExitCode {
    // The scorecard's probers are this very program.
    if std::env::args().nth(1).as_deref() == Some("run") {
        let Command::Run(options) = Options::parse().command else { return ExitCode::FAILURE };
        ops_http::init_logging(options.log_format());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { run_daemon(&options, ops_http::stop_on_signal().unwrap()).await.unwrap() });
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.first().is_some_and(|first| first == "quick");
    let mut report = Report::default();
    if arguments.first().is_some_and(|first| first == "fuzz") {
        fuzzing::fuzz(&mut report, arguments.get(1).map_or(fuzzing::GOAL, |executions| executions.parse().unwrap()));
        return report.exit_code();
    }
    let parts: [Part; 9] = [
        ("accuracy", figures::accuracy),
        ("throughput", figures::throughput),
        ("many_peers", figures::many_peers),
        ("fping", figures::against_fping),
        ("smokeping", figures::against_smokeping),
        ("detection", |report, _| changes::detection(report)),
        ("step", |report, _| changes::step(report)),
        ("restarts", |report, _| changes::restarts(report)),
        ("fuzzing", |report, quick| fuzzing::fuzz(report, if quick { fuzzing::GOAL / 100 } else { fuzzing::GOAL })),
    ];
    let wanted = &arguments[usize::from(quick)..];
    for (name, measure) in parts.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)) {
        progress(name);
        measure(&mut report, quick);
    }
    report.exit_code()
}
