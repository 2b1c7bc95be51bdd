//! Measures the seika-controller and compares with its goals:
//! `cargo run --release -p kantai-tests --example seika-controller-scorecard`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short` (`absent` for
//! what was not measured, with the reason in a line that begins with `#`). Ends with an error when
//! one is short. It starts a real control plane (etcd, kube-apiserver, kube-controller-manager) on
//! loopback, with nodes that are objects only, and runs the controller's own release binary on it,
//! under its ServiceAccount and rights. Roll-outs under load need real nodes: for those it brings
//! the lab up (`cargo lab`), which takes root and of which there can be only one. All of it takes
//! about an hour; `--chaos-points` and `--idle-seconds` make it shorter, `--only` leaves parts out.

mod cluster;
mod creation;
mod idle;
mod node_gone;
mod operating;
mod process;
mod rollout;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kantai_tests::seika::chaos::Chaos;
use scorecards::{Goal, Report, note};

use self::cluster::Audited;

/// Disturbances of one run.
const POINTS_PER_RUN: usize = 20;
const NOT_ASKED: &str = "this part was not asked for";

/// Measures the seika-controller and compares with its goals.
#[derive(Parser)]
struct Arguments {
    /// How many disturbances there are in all.
    #[arg(long, default_value_t = 10_000)]
    chaos_points: usize,
    /// The seed of the first run of chaos; the others have the next ones. Random unless told.
    #[arg(long)]
    chaos_seed: Option<u64>,
    /// How many runs of chaos there are at once.
    #[arg(long, default_value_t = 8)]
    chaos_lanes: usize,
    /// How long the idle controller is watched.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// How often the creation of 1,000 pods is measured, each time beside the bare client.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The controller's release binary; it is built unless told.
    #[arg(long)]
    binary: Option<PathBuf>,
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
    /// stall_notice_s.
    Stall,
    /// pdb_ok.
    Budgets,
    /// idle_writes, idle_mcores, rss_mib.
    Idle,
    /// chaos_points, chaos_bad.
    Chaos,
    /// rollout_failed_requests, in the lab.
    Rollout,
}

impl Part {
    const ON_AN_API_SERVER: [Self; 6] = [Self::Creation, Self::NodeGone, Self::Stall, Self::Budgets, Self::Idle, Self::Chaos];

    /// Its figures, each with its unit.
    fn figures(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Creation => &[("step_1000_s", "s"), ("ceiling_pct", "%"), ("vs_replicaset_ratio", "ratio")],
            Self::NodeGone => &[("node_gone_s", "s")],
            Self::Stall => &[("stall_notice_s", "s")],
            Self::Budgets => &[("pdb_ok", "kinds")],
            Self::Idle => &[("idle_writes", "writes"), ("idle_mcores", "mcores"), ("rss_mib", "MiB")],
            Self::Chaos => &[("chaos_points", "disturbances"), ("chaos_bad", "runs")],
            Self::Rollout => &[("rollout_failed_requests", "requests")],
        }
    }
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut report = Report::default();
    if Part::ON_AN_API_SERVER.iter().any(|part| arguments.wants(*part)) {
        let overshoot = on_an_api_server(&arguments, &mut report).await?;
        report.figure("overshoot", overshoot as f64, "pods", Goal::AtMost(0.0));
    } else {
        Part::ON_AN_API_SERVER.iter().for_each(|part| absent(*part, &mut report));
        report.absent("overshoot", "pods", NOT_ASKED);
    }

    if !arguments.wants(Part::Rollout) {
        absent(Part::Rollout, &mut report);
    } else if nix::unistd::geteuid().is_root() {
        let failed = tokio::task::spawn_blocking(rollout::measure).await??;
        report.figure("rollout_failed_requests", failed as f64, "requests", Goal::AtMost(0.0));
    } else {
        let why = "pods that serve need kubelets, which only the lab has, which needs root";
        report.absent("rollout_failed_requests", "requests", why);
    }
    Ok(report.exit_code())
}

fn absent(part: Part, report: &mut Report) {
    part.figures().iter().for_each(|(id, unit)| report.absent(id, unit, NOT_ASKED));
}

/// All that needs no kubelets. Returns by how many pods there were ever too many.
async fn on_an_api_server(arguments: &Arguments, report: &mut Report) -> anyhow::Result<usize> {
    let binary = arguments.binary.clone().map_or_else(process::build, Ok)?;
    let audited = Audited::start().await?;
    let mut overshoot = 0;

    if arguments.wants(Part::Creation) {
        let creation = creation::measure(&audited, &binary, arguments.rounds).await?;
        overshoot = overshoot.max(creation.overshoot);
        report.figure("step_1000_s", creation.step_seconds, "s", Goal::AtMost(10.0));
        report.figure("ceiling_pct", creation.ceiling_percent, "%", Goal::AtLeast(90.0));
        report.figure("vs_replicaset_ratio", creation.replica_set_ratio, "ratio", Goal::AtLeast(10.0));
    } else {
        absent(Part::Creation, report);
    }

    if arguments.wants(Part::NodeGone) {
        let (seconds, beyond) = node_gone::measure(&audited, &binary).await?;
        overshoot = overshoot.max(beyond);
        report.figure("node_gone_s", seconds, "s", Goal::AtMost(5.0));
    } else {
        absent(Part::NodeGone, report);
    }

    if arguments.wants(Part::Stall) {
        let seconds = operating::stall(&audited, &binary).await?;
        report.figure("stall_notice_s", seconds, "s", Goal::AtMost(30.0));
    } else {
        absent(Part::Stall, report);
    }

    if arguments.wants(Part::Budgets) {
        let (passed, kinds) = operating::budgets(&audited, &binary).await?;
        report.figure("pdb_ok", passed as f64, "kinds", Goal::AtLeast(kinds as f64));
    } else {
        absent(Part::Budgets, report);
    }

    if arguments.wants(Part::Idle) {
        let idle = idle::measure(&audited, &binary, arguments.idle_seconds).await?;
        overshoot = overshoot.max(idle.overshoot);
        report.figure("idle_writes", idle.writes, "writes", Goal::AtMost(0.0));
        report.figure("idle_mcores", idle.millicores, "mcores", Goal::AtMost(2.0));
        report.figure("rss_mib", idle.rss_mib, "MiB", Goal::AtMost(30.0));
    } else {
        absent(Part::Idle, report);
    }

    if arguments.wants(Part::Chaos) {
        let toll = chaos(arguments, binary).unleash(audited.cluster()).await?;
        overshoot = overshoot.max(toll.overshoot);
        toll.bad.iter().for_each(|bad| note(bad));
        report.figure("chaos_points", toll.points as f64, "disturbances", Goal::AtLeast(10_000.0));
        report.figure("chaos_bad", toll.bad.len() as f64, "runs", Goal::AtMost(0.0));
    } else {
        absent(Part::Chaos, report);
    }
    Ok(overshoot)
}

fn chaos(arguments: &Arguments, binary: PathBuf) -> Chaos {
    let seed = arguments.chaos_seed.unwrap_or_else(rand::random);
    note(&format!(
        "chaos from seed {seed}; --only chaos --chaos-points {POINTS_PER_RUN} --chaos-seed {seed} has the first run again, other runs have the \
         seeds after it"
    ));
    let runs = arguments.chaos_points.div_ceil(POINTS_PER_RUN);
    Chaos { seed, runs, points_per_run: POINTS_PER_RUN, lanes: arguments.chaos_lanes, binary: Some(binary) }
}
