//! The lab's program: `cargo lab`.

mod commands;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;
use netem_lab::cleanup;
use netem_lab::cluster::launch::{self, ExecArgs, InsideArgs, NodeLaunchArgs};
use netem_lab::cluster::node_init::{self, NodeInitArgs};
use netem_lab::images::{self, Program};
use netem_lab::load::{self, LoadArgs, RequestArgs};
use netem_lab::run::{self, Stage, lay_wire, report_folder, run_scenario};
use netem_lab::state::{LabState, StateFolder};
use netem_lab::wire::{self, WireArgs};
use tracing_subscriber::filter::EnvFilter;

use commands::burst::BurstArguments;
use commands::conformance::ConformanceArguments;
use commands::experiment::ExperimentArguments;
use commands::faults::FaultsArguments;
use commands::{Parts, ScenarioArguments, lab_folder, read_scenario, state_folder, unless_interrupted};

/// A small real cluster on this machine, with network delay between its nodes. Without a command it
/// runs a scenario.
#[derive(Debug, Parser)]
#[command(name = "netem-lab", bin_name = "cargo lab --", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario on a cluster of its own, writes the report, and removes the cluster.
    Run(RunArguments),
    /// Starts the cluster of a scenario and leaves it running.
    Up(ScenarioArguments),
    /// Removes what `up` left running.
    Down,
    /// Runs a program inside a node of a running cluster: its network, file system and host name.
    Exec(ExecArgs),
    /// Starts a program inside a running lab.
    #[command(hide = true)]
    Inside(InsideArgs),
    /// Starts a node's first process.
    #[command(hide = true)]
    NodeLaunch(NodeLaunchArgs),
    /// Is a node's first process.
    #[command(hide = true)]
    NodeInit(NodeInitArgs),
    /// Delays packets between the nodes; started by the lab itself.
    #[command(hide = true)]
    Wire(WireArgs),
    /// Sends one request from where it runs, and prints what became of it; for use with `exec`.
    Request(RequestArgs),
    /// Sends requests from where it runs, and prints what became of each; for use with `exec`.
    Load(LoadArgs),
    /// Runs Knative's own suites against our ingress and our class of autoscaler, on clusters of
    /// their own. Without a command: the ingress conformance suite.
    Conformance(ConformanceArguments),
    /// Lets things fail, one after the other, under load, and judges what that does to requests and
    /// pods: on a cluster of its own, or on the one that `up` left running.
    Faults(FaultsArguments),
    /// Sends bursts to services whose pods take only so many requests at once, and calm requests to
    /// another, on a cluster of its own: none may fail, and calm ones stay on their nodes.
    Burst(BurstArguments),
    /// Runs experiments: the same load on Kantai, on stock Knative and on a Deployment with an HPA,
    /// side by side on a cluster of their own, with plots.
    Experiment(ExperimentArguments),
    /// Finds or makes the programs that the lab consists of, and prints where they are.
    Components(ComponentsArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// The autoscaling class: `kpa` for the stock autoscaler as the baseline, `kantai`, or a class
    /// in full. Without it, the scenario's.
    #[arg(long)]
    class: Option<String>,
    /// Where the folder of the report goes [default: target/lab in the source tree]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct ComponentsArguments {
    /// Also builds our own programs, and writes the images of everything that runs in pods.
    #[arg(long)]
    images: bool,
}

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // While an API server starts, each attempt of the client would be logged as an error.
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client::client::builder=off")),
        )
        .init();
    let arguments = Arguments::parse();
    match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        // These change what the whole process sees, and so must come before any thread is started.
        Command::Inside(arguments) => launch::become_inside(&arguments).map(|never| match never {}),
        Command::Exec(arguments) => {
            launch::become_in_node(&arguments, &LabState::read(&state_folder())?).map(|never| match never {})
        }
        Command::NodeLaunch(arguments) => launch::launch_node(&arguments).map(|()| ExitCode::SUCCESS),
        Command::NodeInit(arguments) => node_init::run(&arguments).map(|never| match never {}),
        Command::Wire(arguments) => on_one_thread(wire::serve(arguments)),
        Command::Request(arguments) => on_one_thread(load::request(arguments)),
        Command::Load(arguments) => on_one_thread(load::load(arguments)),
        Command::Components(ComponentsArguments { images }) => components(images).map(|()| ExitCode::SUCCESS),
        Command::Up(arguments) => up(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Down => {
            cleanup::down(&mut StateFolder::open(&state_folder())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Conformance(arguments) => commands::conformance::run(&arguments),
        Command::Faults(arguments) => commands::faults::run(&arguments),
        Command::Burst(arguments) => commands::burst::run(&arguments),
        Command::Experiment(arguments) => commands::experiment::run(&arguments),
        Command::Run(arguments) => run(&arguments),
    }
}

/// Runs one of the lab's small helpers to its end.
fn on_one_thread<E: std::error::Error + Send + Sync + 'static>(work: impl Future<Output = Result<(), E>>) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the async runtime")?;
    runtime.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}

fn components(with_images: bool) -> Result<()> {
    let progress = Progress::to_stderr();
    let components = Components::ensure(&Component::ALL, &progress)?;
    let versions = components.versions();
    let rows: BTreeSet<_> = components.iter().map(|(component, path)| (component.to_string(), path)).collect();
    for (name, path) in rows {
        println!("{name:<26} {:<28} {}", versions[&name], path.display());
    }
    if with_images {
        let of_components = images::of_components(&components, &progress)?;
        let of_programs = images::of_programs(&Program::ALL, &progress)?;
        for image in of_components.values().chain(of_programs.values()) {
            println!("{:<55} {}", image.name, image.archive.display());
        }
    }
    Ok(())
}

fn up(arguments: &ScenarioArguments) -> Result<()> {
    let scenario = read_scenario(arguments, None)?;
    let parts = Parts::prepare(arguments.programs.as_deref(), &scenario)?;
    unless_interrupted(async {
        let (mut cluster, _) = parts.up().await?;
        lay_wire(&mut cluster, &parts.spec.lab_binary, &scenario.links).await?;
        parts.leave_running(cluster)
    })
}

fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let scenario = read_scenario(&arguments.scenario, arguments.class.as_deref())?;
    let parts = Parts::prepare(arguments.scenario.programs.as_deref(), &scenario)?;
    let folder = report_folder(&arguments.out.clone().unwrap_or_else(lab_folder), &scenario);
    let verdict = unless_interrupted(async {
        let (mut cluster, up) = parts.up().await?;
        let mut stage = Stage {
            cluster: &mut cluster,
            kubectl: parts.components.path(Component::Kubectl)?.to_owned(),
            lab_binary: parts.spec.lab_binary.clone(),
            components: parts.versions(),
            up,
            folder: folder.clone(),
        };
        let verdict = run_scenario(&mut stage, &scenario, parts.progress.clone()).await?;
        if arguments.keep {
            parts.leave_running(cluster)?;
        } else {
            cluster.down()?;
        }
        Ok(verdict)
    })?;
    println!("report: {}", verdict.page.display());
    if verdict.ok {
        println!("every step held and no request failed");
        return Ok(ExitCode::SUCCESS);
    }
    println!("a step did not hold or a request failed; see {}", run::diagnostics_folder(&folder).display());
    Ok(ExitCode::FAILURE)
}
