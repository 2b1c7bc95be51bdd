//! `cargo lab -- burst`: bursts at full pods, and calm.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use netem_lab::burst;
use netem_lab::run::lay_wire;

use super::{Parts, ScenarioArguments, lab_folder, read_scenario, unless_interrupted};

#[derive(Debug, Args)]
pub(crate) struct BurstArguments {
    /// A scenario file, of which only the nodes and the links count. Without it, the built-in one.
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

pub(crate) fn run(arguments: &BurstArguments) -> Result<ExitCode> {
    let given = ScenarioArguments { scenario: arguments.scenario.clone(), nodes: None, programs: None };
    let scenario = read_scenario(&given, None)?;
    let parts = Parts::prepare(arguments.programs.as_deref(), &scenario)?;
    let folder = arguments.out.clone().unwrap_or_else(lab_folder).join("burst");
    let report = unless_interrupted(async {
        let (mut cluster, _) = parts.up().await?;
        lay_wire(&mut cluster, &parts.spec.lab_binary, &scenario.links).await?;
        let report = burst::run(&cluster, folder.clone(), &parts.progress).await?;
        if arguments.keep {
            parts.leave_running(cluster)?;
        } else {
            cluster.down()?;
        }
        Ok(report)
    })?;
    report.figures.iter().for_each(|figure| println!("{figure}"));
    println!("report: {}", folder.join("report.json").display());
    Ok(if report.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
