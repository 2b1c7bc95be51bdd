//! `cargo lab -- experiment`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use netem_lab::experiment::{self, Column, Countdown, Experiment, Report, Settings};
use netem_lab::faults;

use super::{Parts, lab_folder, on_cluster, source_tree};

#[derive(Debug, Args)]
pub(crate) struct ExperimentArguments {
    /// Which experiments, in this order: names of those in `examples/experiments`, TOML files of
    /// your own, or `all`.
    #[arg(required_unless_present_any = ["list", "compare"])]
    names: Vec<String>,
    /// Says which experiments there are and how long they take, and does nothing.
    #[arg(long)]
    list: bool,
    /// How often all columns are run, instead of as often as the experiment says.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: Option<u32>,
    /// Says which column is run first; each repetition begins with the next one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prints the figures of two reports side by side: their folders.
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with_all = ["names", "list"])]
    compare: Option<Vec<PathBuf>>,
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    programs: Option<PathBuf>,
    /// Where the folders of the reports go [default: target/lab in the source tree]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the cluster of the last experiment running.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &ExperimentArguments) -> Result<ExitCode> {
    if let Some([before, after]) = arguments.compare.as_deref() {
        experiment::compare(before, after)?.iter().for_each(|line| println!("{line}"));
        return Ok(ExitCode::SUCCESS);
    }
    let shipped = Experiment::all_in(&source_tree().join("examples/experiments"))?;
    if arguments.list {
        shipped.iter().for_each(|experiment| println!("{}", described(experiment, arguments.repeat)));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&arguments.names, &shipped)?;
    let out = arguments.out.clone().unwrap_or_else(lab_folder);
    let mut reports = Vec::new();
    for (number, experiment) in chosen.iter().enumerate() {
        let report = on_own_cluster(experiment, arguments, arguments.keep && number + 1 == chosen.len())?;
        let page = report.write(&out.join(format!("experiment-{}", experiment.name)))?;
        report.figures.iter().for_each(|figure| println!("{figure}"));
        println!("# {}: {}; {}", report.name, report.verdict(), page.display());
        reports.push(report);
    }
    if reports.len() > 1 {
        println!("# {}", experiment::index_page(&out, &reports)?.display());
    }
    Ok(if reports.iter().all(Report::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn described(experiment: &Experiment, repeat: Option<u32>) -> String {
    let repeat = repeat.unwrap_or(experiment.repeat);
    let each: f64 = experiment.columns.iter().map(|column| experiment.seconds_of(*column)).sum();
    let columns: Vec<&str> = experiment.columns.iter().map(|column: &Column| column.name()).collect();
    let minutes = f64::from(repeat) * each / 60.0;
    format!("{:<16} {minutes:>3.0} min  {:<18} {}", experiment.name, columns.join(" "), experiment.title)
}

fn chosen(names: &[String], shipped: &[Experiment]) -> Result<Vec<Experiment>> {
    let mut chosen = Vec::new();
    for name in names {
        if name == "all" {
            chosen.extend_from_slice(shipped);
        } else if let Some(known) = shipped.iter().find(|experiment| experiment.name == *name) {
            chosen.push(known.clone());
        } else if name.contains(['/', '.']) {
            chosen.push(Experiment::from_file(Path::new(name))?);
        } else {
            let known: Vec<&str> = shipped.iter().map(|experiment| experiment.name.as_str()).collect();
            bail!("there is no experiment {name:?}; there are {}", known.join(", "));
        }
    }
    Ok(chosen)
}

fn on_own_cluster(experiment: &Experiment, arguments: &ExperimentArguments, keep: bool) -> Result<Report> {
    let parts = Parts::prepare_nodes(arguments.programs.as_deref(), experiment.links.nodes())?;
    let settings = Settings { repeat: arguments.repeat, seed: arguments.seed, components: parts.versions() };
    let countdown = Countdown::new(parts.progress.clone());
    let report = on_cluster(&parts, &experiment.links, keep, async |cluster, wire| {
        let lab = faults::Lab::find(cluster.state().state(), &parts.components).await?;
        Ok(experiment::run(experiment, &settings, (cluster, &lab, wire), &countdown).await?)
    });
    countdown.finish();
    report
}
