//! `cargo lab -- faults`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;
use netem_lab::faults::{self, Fault};
use netem_lab::state::LabState;

use super::{OwnClusterArguments, state_folder, unless_interrupted};

#[derive(Debug, Args)]
pub(crate) struct FaultsArguments {
    /// Which faults, in this order. Without a name, all of them.
    names: Vec<Fault>,
    /// Says which faults there are, and does nothing.
    #[arg(long)]
    list: bool,
    /// Faults last for a shorter time: nodes are cut off for 70 s, everything else is gone for
    /// 20 s.
    #[arg(long)]
    brief: bool,
    /// On the cluster that `up` left running, which runs on.
    #[arg(long, conflicts_with_all = ["scenario", "keep"])]
    running: bool,
    #[command(flatten)]
    cluster: OwnClusterArguments,
}

pub(crate) fn run(arguments: &FaultsArguments) -> Result<ExitCode> {
    if arguments.list {
        for fault in Fault::ALL {
            let seconds = fault.lasts(arguments.brief).as_secs();
            println!("{:<22} {seconds:>3} s  {}", fault.name(), fault.what());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let names = if arguments.names.is_empty() { Fault::ALL.to_vec() } else { arguments.names.clone() };
    let report = if arguments.running { faults_on_running(arguments, names) } else { faults_on_own(arguments, names) }?;
    let file = arguments.cluster.report_folder("faults").join("report.json");
    report.write(&file)?;
    for figure in &report.figures {
        println!("{}", figure.line());
    }
    eprintln!("report: {}", file.display());
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults_on_running(arguments: &FaultsArguments, names: Vec<Fault>) -> Result<faults::Report> {
    let progress = Progress::to_stderr();
    let components = Components::ensure(&Component::ALL, &progress)?;
    let settings = faults::Settings { faults: names, brief: arguments.brief, components: components.versions() };
    let state = LabState::read(&state_folder())?;
    let report = unless_interrupted(async {
        Ok(faults::run(&faults::Lab::find(&state, &components).await?, &settings, &progress).await?)
    });
    if report.is_err() {
        // It may have been interrupted while something was amiss.
        unless_interrupted(async { Ok(faults::Lab::find(&state, &components).await?.mend().await?) })?;
    }
    report
}

fn faults_on_own(arguments: &FaultsArguments, names: Vec<Fault>) -> Result<faults::Report> {
    arguments.cluster.on_own_cluster(async |cluster, parts| {
        let settings = faults::Settings { faults: names, brief: arguments.brief, components: parts.versions() };
        let lab = faults::Lab::find(cluster.state().state(), &parts.components).await?;
        Ok(faults::run(&lab, &settings, &parts.progress).await?)
    })
}
