//! `cargo lab -- conformance`: Knative's own suites.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use netem_lab::conformance::programs::IngressPrograms;
use netem_lab::conformance::results::Outcome;
use netem_lab::conformance::serving::report::ServingReport;
use netem_lab::conformance::serving::{self, Part, ServingSuite};
use netem_lab::conformance::{self, IngressSettings};
use netem_lab::run::lay_wire;
use netem_lab::scenario::{Overrides, Scenario};

use super::{Parts, lab_folder, unless_interrupted};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConformanceArguments {
    #[command(subcommand)]
    command: Option<ConformanceCommand>,
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

#[derive(Debug, Subcommand)]
enum ConformanceCommand {
    /// Runs Knative Serving's own suites with the stock class of autoscaler and with ours, and
    /// compares. Takes about forty minutes on two cores; a part or a suite can be run alone.
    Serving(ServingArguments),
}

#[derive(Debug, Args)]
struct ServingArguments {
    /// A folder with our own programs, already built. Without it they are built now.
    #[arg(long, env = "KANTAI_PROGRAMS")]
    programs: Option<PathBuf>,
    /// Only these parts of the comparison; may be given more than once. The report keeps what is
    /// known of the others.
    #[arg(long)]
    part: Vec<Part>,
    /// Only these suites; may be given more than once. The report keeps what is known of the
    /// others.
    #[arg(long)]
    suite: Vec<ServingSuite>,
    /// Only the tests whose names match this regular expression (Go's). The report keeps what is
    /// known of the others.
    #[arg(long)]
    only: Option<String>,
    /// How many tests run at the same time. Most of them wait for pods most of the time.
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    /// How many minutes a test may be at work before it is given up.
    #[arg(long, default_value_t = 12)]
    test_minutes: u64,
    /// Where the folder of the report goes [default: target/lab in the source tree]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the cluster of the last part running.
    #[arg(long)]
    keep: bool,
}

/// Runs the suite that was asked for.
pub(crate) fn run(arguments: &ConformanceArguments) -> Result<ExitCode> {
    match &arguments.command {
        Some(ConformanceCommand::Serving(arguments)) => serving(arguments),
        None => ingress(arguments),
    }
}

fn ingress(arguments: &ConformanceArguments) -> Result<ExitCode> {
    let scenario = match &arguments.scenario {
        Some(path) => Scenario::from_file(path, &Overrides::default())?,
        None => Scenario::from_text(conformance::SCENARIO, "(built in)", &Overrides::default())?,
    };
    let mut parts = Parts::prepare(arguments.programs.as_deref(), &scenario)?;
    let programs = IngressPrograms::prepare(&parts.components, &parts.progress)?;
    programs.add_images(&mut parts.images);
    let settings = IngressSettings {
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

fn serving(arguments: &ServingArguments) -> Result<ExitCode> {
    let scenario = Scenario::from_text(conformance::SCENARIO, "(built in)", &Overrides::default())?;
    let mut parts = Parts::prepare(arguments.programs.as_deref(), &scenario)?;
    let programs = serving::ServingPrograms::prepare(&parts.components, &parts.progress)?;
    programs.add_images(&mut parts.images);
    let folder = arguments.out.clone().unwrap_or_else(lab_folder).join("conformance-serving");
    let settings = serving::ServingSettings {
        lab_binary: parts.spec.lab_binary.clone(),
        ingress_class: parts.spec.ingress_class.clone(),
        suites: some_or_all(&arguments.suite, &ServingSuite::ALL),
        only: arguments.only.clone(),
        parallel: arguments.parallel,
        test_limit: Duration::from_secs(60 * arguments.test_minutes),
        folder: folder.clone(),
    };
    let wanted = some_or_all(&arguments.part, &Part::ALL);
    for part in &wanted {
        parts.progress.line(format_args!("part {part}: default class {}", part.class()));
        parts.spec.settings = serving::knative_settings(&programs, *part)?;
        unless_interrupted(async {
            let (mut cluster, _) = parts.up().await?;
            lay_wire(&mut cluster, &parts.spec.lab_binary, &scenario.links).await?;
            serving::run_part(&mut cluster, &programs, *part, &settings, &parts.progress).await?;
            if arguments.keep && wanted.last() == Some(part) {
                parts.leave_running(cluster)?;
            } else {
                cluster.down()?;
            }
            Ok(())
        })?;
        ServingReport::read(&folder, &serving::ServingPrograms::version()).write(&folder)?;
    }
    let report = ServingReport::read(&folder, &serving::ServingPrograms::version());
    for (name, part) in [("stock", &report.stock), ("ours", &report.ours)] {
        println!("{name}: {} passed, {} failed, {} skipped", part.passed, part.failed, part.skipped);
    }
    let enacted_passed = report.enacted.iter().filter(|test| test.result == Outcome::Passed).count();
    println!("enacted: {enacted_passed} of {} passed", report.enacted.len());
    for name in &report.regressions {
        println!("regression: {name}");
    }
    for name in &report.not_run {
        println!("not run: {name}");
    }
    println!("report: {}", folder.join("report.json").display());
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn some_or_all<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all.to_vec() } else { some.to_vec() }
}
