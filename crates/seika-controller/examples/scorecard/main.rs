//! Measures the seika-controller and compares with its goals: `cargo run --release -p seika-controller --example scorecard`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short` (`absent` for what was not measured, with the reason in a
//! line that begins with `#`). Ends with an error when one is short. It starts a real control plane (etcd, kube-apiserver,
//! kube-controller-manager) on loopback, with nodes that are objects only, and runs the controller's own release binary on it, under its
//! ServiceAccount and rights. All of it takes about half an hour; `--chaos-points` and `--idle-seconds` make it shorter, `--only` leaves parts out.

mod cluster;
mod creation;
mod idle;
mod node_gone;
mod process;
mod report;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kantai_tests::seika::chaos::Chaos;

use self::cluster::Audited;
use self::report::{Goal, Report, note};

/// Disturbances of one run.
const POINTS_PER_RUN: usize = 20;
/// More at once would only wait for the processors.
const CHAOS_LANES: usize = 4;

/// Measures the seika-controller and compares with its goals.
#[derive(Parser)]
struct Arguments {
    /// How many disturbances there are in all.
    #[arg(long, default_value_t = 10_000)]
    chaos_points: usize,
    /// The seed of the first run of chaos; the others have the next ones. Random unless told.
    #[arg(long)]
    chaos_seed: Option<u64>,
    /// How long the idle controller is watched.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// How often the creation of 1,000 pods is measured, each time beside the bare client.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measures these parts only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// step_1000_s, ceiling_pct, vs_replicaset_ratio.
    Creation,
    /// node_gone_s.
    NodeGone,
    /// idle_writes, idle_mcores, rss_mib.
    Idle,
    /// chaos_points, chaos_bad.
    Chaos,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let wants = |part: Part| arguments.only.is_empty() || arguments.only.contains(&part);
    let not_asked = "this part was not asked for";
    let binary = process::build()?;
    let audited = Audited::start().await?;
    let mut report = Report::default();
    let mut overshoot = 0;

    if wants(Part::Creation) {
        let creation = creation::measure(&audited, &binary, arguments.rounds).await?;
        overshoot = overshoot.max(creation.overshoot);
        report.figure("step_1000_s", creation.step_seconds, "s", Goal::AtMost(10.0));
        report.figure("ceiling_pct", creation.ceiling_percent, "%", Goal::AtLeast(90.0));
        report.figure("vs_replicaset_ratio", creation.replica_set_ratio, "ratio", Goal::AtLeast(10.0));
    } else {
        for (id, unit) in [("step_1000_s", "s"), ("ceiling_pct", "%"), ("vs_replicaset_ratio", "ratio")] {
            report.absent(id, unit, not_asked);
        }
    }

    if wants(Part::NodeGone) {
        let (seconds, beyond) = node_gone::measure(&audited, &binary).await?;
        overshoot = overshoot.max(beyond);
        report.figure("node_gone_s", seconds, "s", Goal::AtMost(5.0));
    } else {
        report.absent("node_gone_s", "s", not_asked);
    }

    if wants(Part::Idle) {
        let idle = idle::measure(&audited, &binary, arguments.idle_seconds).await?;
        overshoot = overshoot.max(idle.overshoot);
        report.figure("idle_writes", idle.writes, "writes", Goal::AtMost(0.0));
        report.figure("idle_mcores", idle.millicores, "mcores", Goal::AtMost(2.0));
        report.figure("rss_mib", idle.rss_mib, "MiB", Goal::AtMost(30.0));
    } else {
        for (id, unit) in [("idle_writes", "writes"), ("idle_mcores", "mcores"), ("rss_mib", "MiB")] {
            report.absent(id, unit, not_asked);
        }
    }

    if wants(Part::Chaos) {
        let seed = arguments.chaos_seed.unwrap_or_else(rand::random);
        note(&format!(
            "chaos from seed {seed}; KANTAI_CHAOS_SEED={seed} KANTAI_CHAOS_RUNS=1 has the first run again in the tests"
        ));
        let runs = arguments.chaos_points.div_ceil(POINTS_PER_RUN);
        let chaos = Chaos { seed, runs, points_per_run: POINTS_PER_RUN, lanes: CHAOS_LANES };
        let toll = chaos.unleash(audited.cluster()).await?;
        overshoot = overshoot.max(toll.overshoot);
        toll.bad.iter().for_each(|bad| note(bad));
        report.figure("chaos_points", toll.points as f64, "disturbances", Goal::AtLeast(10_000.0));
        report.figure("chaos_bad", toll.bad.len() as f64, "runs", Goal::AtMost(0.0));
    } else {
        report.absent("chaos_points", "disturbances", not_asked);
        report.absent("chaos_bad", "runs", not_asked);
    }

    report.figure("overshoot", overshoot as f64, "pods", Goal::AtMost(0.0));
    report.absent("rollout_failed_requests", "requests", "pods that serve need kubelets, which only the lab has");
    Ok(if report.is_short() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
