//! What several commands share.

pub(crate) mod burst;
pub(crate) mod conformance;
pub(crate) mod experiment;
pub(crate) mod faults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;
use netem_lab::cluster::{Cluster, ClusterSpec, NodeImages};
use netem_lab::images::{self, Program};
use netem_lab::run::{ClusterUp, class_of, lay_wire};
use netem_lab::scenario::{DEFAULT_SCENARIO, Overrides, Scenario};
use netem_lab::state::StateFolder;
use netem_lab::wire::{LinkMatrix, WireClient};

#[derive(Debug, Args)]
pub(crate) struct ScenarioArguments {
    /// A scenario file. Without it the built-in one is used.
    #[arg(long)]
    pub(crate) scenario: Option<PathBuf>,
    /// This many nodes, for a scenario that counts its nodes.
    #[arg(long)]
    pub(crate) nodes: Option<usize>,
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    pub(crate) programs: Option<PathBuf>,
}

/// Of a command that works on a cluster of its own and writes a report.
#[derive(Debug, Args)]
pub(crate) struct OwnClusterArguments {
    /// A scenario file, of which only the nodes and the links count. Without it the built-in one is
    /// used.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    programs: Option<PathBuf>,
    /// Where the folder of the report goes [default: target/lab in the source tree]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
}

impl OwnClusterArguments {
    /// Where the report called `name` goes.
    pub(crate) fn report_folder(&self, name: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(lab_folder).join(name)
    }

    /// Makes the cluster with the delays of its links, does the work there, and takes the cluster
    /// down, unless it should be kept.
    pub(crate) fn on_own_cluster<T>(&self, work: impl AsyncFnOnce(&mut Cluster, &Parts) -> Result<T>) -> Result<T> {
        let given = ScenarioArguments { scenario: self.scenario.clone(), nodes: None, programs: None };
        let scenario = read_scenario(&given, None)?;
        let parts = Parts::prepare(self.programs.as_deref(), &scenario)?;
        on_cluster(&parts, &scenario.links, self.keep, async |cluster, _| work(cluster, &parts).await)
    }
}

/// Makes a cluster with the delays of its links, does the work there, and takes the cluster down,
/// unless it is to be kept.
pub(crate) fn on_cluster<T>(
    parts: &Parts,
    links: &LinkMatrix,
    keep: bool,
    work: impl AsyncFnOnce(&mut Cluster, WireClient) -> Result<T>,
) -> Result<T> {
    unless_interrupted(async {
        let (mut cluster, _) = parts.up().await?;
        let (wire, _) = lay_wire(&mut cluster, &parts.spec.lab_binary, links).await?;
        let done = work(&mut cluster, wire).await?;
        if keep {
            parts.leave_running(cluster)?;
        } else {
            cluster.down()?;
        }
        Ok(done)
    })
}

/// Where the lab keeps what it has made, and puts its reports.
pub(crate) fn lab_folder() -> PathBuf {
    source_tree().join("target/lab")
}

pub(crate) fn state_folder() -> PathBuf {
    lab_folder().join("state")
}

pub(crate) fn source_tree() -> PathBuf {
    // Two folders up from this package.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

pub(crate) fn read_scenario(arguments: &ScenarioArguments, class: Option<&str>) -> Result<Scenario> {
    let overrides = Overrides { node_count: arguments.nodes, class: class.map(class_of) };
    Ok(match &arguments.scenario {
        Some(path) => Scenario::from_file(path, &overrides)?,
        None => Scenario::from_text(DEFAULT_SCENARIO, "(built in)", &overrides)?,
    })
}

/// All that must be there before a cluster can come up.
pub(crate) struct Parts {
    pub(crate) components: Components,
    pub(crate) images: NodeImages,
    pub(crate) spec: ClusterSpec,
    pub(crate) progress: Progress,
}

impl Parts {
    pub(crate) fn prepare(programs: Option<&Path>, scenario: &Scenario) -> Result<Self> {
        Self::prepare_nodes(programs, scenario.links.nodes())
    }

    pub(crate) fn prepare_nodes(programs: Option<&Path>, nodes: &[String]) -> Result<Self> {
        let progress = Progress::to_stderr();
        let components = Components::ensure(&Component::ALL, &progress)?;
        let of_components = images::of_components(&components, &progress)?;
        let of_programs = match programs {
            Some(folder) => images::of_built_programs(folder, &Program::ALL, &progress)?,
            None => images::of_programs(&Program::ALL, &progress)?,
        };
        let images = NodeImages::gather(&of_components, &of_programs)?;
        let spec = ClusterSpec {
            nodes: nodes.to_vec(),
            lab_binary: std::env::current_exe().context("failed to find this program's own file")?,
            ingress_class: "kantai.ingress.networking.knative.dev".to_owned(),
            deploy: Some(source_tree().join("examples/netem-lab/deploy")),
            settings: Vec::new(),
        };
        Ok(Self { components, images, spec, progress })
    }

    pub(crate) async fn up(&self) -> Result<(Cluster, ClusterUp)> {
        let state = StateFolder::open(&state_folder())?;
        let began_at_unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let began = Instant::now();
        let cluster = Cluster::up(&self.spec, state, &self.components, &self.images, &self.progress).await?;
        Ok((cluster, ClusterUp { began_at_unix_seconds, seconds: began.elapsed().as_secs_f64() }))
    }

    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = self.components.versions();
        versions.insert("kantai".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        versions
    }

    pub(crate) fn leave_running(&self, cluster: Cluster) -> Result<()> {
        let kubeconfig = cluster.kubeconfig().context("failed to find the kubeconfig")?.to_owned();
        cluster.leave_running();
        println!("export KUBECONFIG={}", kubeconfig.display());
        println!("export PATH=$PATH:{}", self.components.path(Component::Kubectl)?.parent().unwrap_or(Path::new("/")).display());
        Ok(())
    }
}

/// Does the work unless a signal to stop comes first; then everything the work holds is dropped,
/// and with it the cluster removed.
pub(crate) fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
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
