//! The lab's program: `cargo lab`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use netem_lab::cleanup;
use netem_lab::cluster::launch::{self, ExecArgs, InsideArgs, NodeLaunchArgs};
use netem_lab::cluster::node_init::{self, NodeInitArgs};
use netem_lab::cluster::{Cluster, ClusterSpec, NodeImages};
use netem_lab::components::{Component, Components};
use netem_lab::conformance::programs::Programs;
use netem_lab::conformance::results::Outcome;
use netem_lab::conformance::{self, RunSettings};
use netem_lab::images::{self, Program};
use netem_lab::load::{self, LoadArgs, RequestArgs};
use netem_lab::progress::Progress;
use netem_lab::run::{self, ClusterUp, Stage, class_of, lay_wire, report_folder, run_scenario};
use netem_lab::scenario::{DEFAULT_SCENARIO, Overrides, Scenario};
use netem_lab::state::{LabState, StateFolder};
use netem_lab::wire::{self, WireArgs};
use tracing_subscriber::filter::EnvFilter;

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
    /// Runs Knative's own ingress conformance suite against our ingress, on a cluster of its own.
    Conformance(ConformanceArguments),
    /// Finds or makes the programs that the lab consists of, and prints where they are.
    Components(ComponentsArguments),
}

#[derive(Debug, Args)]
struct ScenarioArguments {
    /// A scenario file. Without it the built-in one is used.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// This many nodes, for a scenario that counts its nodes.
    #[arg(long)]
    nodes: Option<usize>,
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    programs: Option<PathBuf>,
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
struct ConformanceArguments {
    /// A scenario file, of which only the nodes and the links count. Without it, three nodes near
    /// each other.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    programs: Option<PathBuf>,
    /// Only the tests whose names begin so. The report then says that it is not about all of them.
    #[arg(long)]
    only: Option<String>,
    /// How many tests run at the same time [default: as many as there are processors]
    #[arg(long)]
    parallel: Option<usize>,
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
        Command::Conformance(arguments) => conformance(&arguments),
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

/// Where the lab keeps what it has made, and puts its reports.
fn lab_folder() -> PathBuf {
    source_tree().join("target/lab")
}

fn state_folder() -> PathBuf {
    lab_folder().join("state")
}

fn source_tree() -> PathBuf {
    // Two folders up from this package.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

fn read_scenario(arguments: &ScenarioArguments, class: Option<&str>) -> Result<Scenario> {
    let overrides = Overrides { node_count: arguments.nodes, class: class.map(class_of) };
    Ok(match &arguments.scenario {
        Some(path) => Scenario::from_file(path, &overrides)?,
        None => Scenario::from_text(DEFAULT_SCENARIO, "(built in)", &overrides)?,
    })
}

/// All that must be there before a cluster can come up.
struct Parts {
    components: Components,
    images: NodeImages,
    spec: ClusterSpec,
    progress: Progress,
}

impl Parts {
    fn prepare(arguments: &ScenarioArguments, scenario: &Scenario) -> Result<Self> {
        let progress = Progress::to_stderr();
        let components = Components::ensure(&Component::ALL, &progress)?;
        let of_components = images::of_components(&components, &progress)?;
        let of_programs = match &arguments.programs {
            Some(folder) => images::of_built_programs(folder, &Program::ALL, &progress)?,
            None => images::of_programs(&Program::ALL, &progress)?,
        };
        let images = NodeImages::gather(&of_components, &of_programs)?;
        let spec = ClusterSpec {
            nodes: scenario.links.nodes().to_vec(),
            lab_binary: std::env::current_exe().context("failed to find this program's own file")?,
            ingress_class: "kantai.ingress.networking.knative.dev".to_owned(),
            deploy: Some(source_tree().join("examples/netem-lab/deploy")),
        };
        Ok(Self { components, images, spec, progress })
    }

    async fn up(&self) -> Result<(Cluster, ClusterUp)> {
        let state = StateFolder::open(&state_folder())?;
        let began_at_unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let began = Instant::now();
        let cluster = Cluster::up(&self.spec, state, &self.components, &self.images, &self.progress).await?;
        Ok((cluster, ClusterUp { began_at_unix_seconds, seconds: began.elapsed().as_secs_f64() }))
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = self.components.versions();
        versions.insert("kantai".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        versions
    }

    fn leave_running(&self, cluster: Cluster) -> Result<()> {
        let kubeconfig = cluster.kubeconfig().context("failed to find the kubeconfig")?.to_owned();
        cluster.leave_running();
        println!("export KUBECONFIG={}", kubeconfig.display());
        println!("export PATH=$PATH:{}", self.components.path(Component::Kubectl)?.parent().unwrap_or(Path::new("/")).display());
        Ok(())
    }
}

/// Does the work unless a signal to stop comes first; then everything the work holds is dropped,
/// and with it the cluster removed.
fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Runtime::new().context("failed to start the async runtime")?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        tokio::select! {
            done = work => done,
            signal = tokio::signal::ctrl_c() => {
                signal.context("failed to listen for Ctrl-C")?;
                bail!("interrupted")
            }
            _ = terminate.recv() => bail!("told to end"),
        }
    })
}

fn up(arguments: &ScenarioArguments) -> Result<()> {
    let scenario = read_scenario(arguments, None)?;
    let parts = Parts::prepare(arguments, &scenario)?;
    unless_interrupted(async {
        let (mut cluster, _) = parts.up().await?;
        lay_wire(&mut cluster, &parts.spec.lab_binary, &scenario.links).await?;
        parts.leave_running(cluster)
    })
}

fn conformance(arguments: &ConformanceArguments) -> Result<ExitCode> {
    let scenario = match &arguments.scenario {
        Some(path) => Scenario::from_file(path, &Overrides::default())?,
        None => Scenario::from_text(conformance::SCENARIO, "(built in)", &Overrides::default())?,
    };
    let for_nodes = ScenarioArguments { scenario: None, nodes: None, programs: arguments.programs.clone() };
    let mut parts = Parts::prepare(&for_nodes, &scenario)?;
    let programs = Programs::prepare(&parts.components, &parts.progress)?;
    programs.add_images(&mut parts.images);
    let settings = RunSettings {
        lab_binary: parts.spec.lab_binary.clone(),
        ingress_class: parts.spec.ingress_class.clone(),
        only: arguments.only.clone(),
        parallel: arguments.parallel,
        folder: arguments.out.clone().unwrap_or_else(lab_folder).join("conformance"),
    };
    let report = unless_interrupted(async {
        let (mut cluster, _) = parts.up().await?;
        lay_wire(&mut cluster, &parts.spec.lab_binary, &scenario.links).await?;
        let report = conformance::run(&mut cluster, &programs, &settings, &parts.progress).await?;
        if arguments.keep {
            parts.leave_running(cluster)?;
        } else {
            cluster.down()?;
        }
        Ok(report)
    })?;
    for test in report.tests.iter().filter(|test| test.result != Outcome::Passed) {
        println!("{} ({}): {}", test.name, test.level, test.result);
    }
    println!("{} passed, {} failed, {} skipped in {:.0} s", report.passed, report.failed, report.skipped, report.seconds);
    println!("report: {}", settings.folder.join("report.json").display());
    if report.all_passed() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("see {} and suite.log", conformance::diagnostics_folder(&settings.folder).display());
    Ok(ExitCode::FAILURE)
}

fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let scenario = read_scenario(&arguments.scenario, arguments.class.as_deref())?;
    let parts = Parts::prepare(&arguments.scenario, &scenario)?;
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
