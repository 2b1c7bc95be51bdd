//! `check`: whether Kantai can do its work on a cluster, and if not, what to do about it.
//!
//! All facts are gathered first; each check is then a function of them.

mod clocks;
mod gather;
mod judge;
mod prometheus;
mod rights;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::error::PluginError;
use crate::options::CheckOptions;
use crate::output::Output;

pub(crate) use judge::Finding;
use judge::{Outcome, judge};

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(2);

/// What all checks found, for programs.
#[derive(Debug, Serialize)]
struct Report {
    ok: usize,
    warnings: usize,
    failures: usize,
    unknown: usize,
    findings: Vec<Finding>,
}

impl Report {
    fn of(findings: Vec<Finding>) -> Self {
        let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        Self {
            ok: count(Outcome::Ok),
            warnings: count(Outcome::Warn),
            failures: count(Outcome::Fail),
            unknown: count(Outcome::Unknown),
            findings,
        }
    }

    /// Whether the exit code says that something is wrong.
    fn is_bad(&self, is_strict: bool) -> bool {
        self.failures > 0 || (is_strict && self.warnings + self.unknown > 0)
    }
}

pub(crate) async fn run(cluster: &Cluster, options: &CheckOptions, out: &mut Output<'_>) -> Result<ExitCode, PluginError> {
    let begun = Instant::now();
    let report = loop {
        let report = Report::of(findings(cluster, options).await);
        if !options.wait || !report.is_bad(options.strict) || begun.elapsed() >= options.timeout {
            break report;
        }
        sleep(PAUSE).await;
    };
    let printed = if options.form.is_json() { out.json(&report) } else { print(&report, out) };
    printed?;
    Ok(if report.is_bad(options.strict) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What all checks find now.
pub(crate) async fn findings(cluster: &Cluster, options: &CheckOptions) -> Vec<Finding> {
    // Many questions at once make a large future.
    judge(&Box::pin(gather::facts(cluster, options)).await)
}

fn print(report: &Report, out: &mut Output<'_>) -> Result<(), PluginError> {
    for finding in &report.findings {
        out.line(&format!("{:<7} {}: {}", finding.outcome.word(), finding.check, finding.says))?;
        if let Some(remedy) = &finding.remedy {
            out.line(&format!("        -> {remedy}"))?;
        }
    }
    let Report { ok, warnings, failures, unknown, .. } = report;
    out.line("")?;
    Ok(out.line(&format!("{ok} ok, {warnings} warnings, {failures} failed, {unknown} unknown"))?)
}
