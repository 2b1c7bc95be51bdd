//! `cargo lab -- burst`: bursts at full pods, and calm.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use netem_lab::burst;

use super::OwnClusterArguments;

#[derive(Debug, Args)]
pub(crate) struct BurstArguments {
    #[command(flatten)]
    cluster: OwnClusterArguments,
}

pub(crate) fn run(arguments: &BurstArguments) -> Result<ExitCode> {
    let folder = arguments.cluster.report_folder("burst");
    let report = arguments
        .cluster
        .on_own_cluster(async |cluster, parts| Ok(burst::run(cluster, folder.clone(), &parts.progress).await?))?;
    report.figures.iter().for_each(|figure| println!("{figure}"));
    println!("report: {}", folder.join("report.json").display());
    Ok(if report.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
