//! Measures the decision-maker and compares with its goals:
//! `cargo run --release -p extra-controller --example scorecard [PARTS...]`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short` (`absent` for
//! what cannot be measured here, with the reason in a line that begins with `#`). Ends with an
//! error when one is short. Parts are `kpa`, `tick`, `before`, `few` and `memory`; without
//! arguments all are measured. Nothing here needs a cluster; `before` needs the repository's
//! history.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

mod before;
mod ticks;
mod world;

use std::process::ExitCode;

use anyhow::Context as _;
use autoscaler::kpa::testing::equal_cases;
use scorecards::{Goal, Report, note};

const PARTS: [&str; 5] = ["kpa", "tick", "before", "few", "memory"];
/// What the program is called with to measure the memory of a process that has done nothing else.
const MEMORY_ALONE: &str = "memory-of-this-process";
const KPA_CASES: u32 = 100_000;
const KPA_SEED: u64 = 13;

fn main() -> anyhow::Result<ExitCode> {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    if parts.first().is_some_and(|part| part == MEMORY_ALONE) {
        println!("{}", ticks::memory_after_an_hour()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        anyhow::bail!("there is no part {unknown:?}, only {PARTS:?}");
    }
    let wants = |part: &str| {
        let wanted = parts.is_empty() || parts.iter().any(|wanted| wanted == part);
        if wanted {
            eprintln!("{part} ...");
        }
        wanted
    };
    let mut report = Report::default();

    if wants("kpa") {
        let equal = match equal_cases(KPA_CASES, KPA_SEED) {
            Ok(tally) => tally.cases,
            Err(difference) => {
                note(&difference.replace('\n', " "));
                0
            }
        };
        report.figure("kpa_equal_cases", equal as f64, "cases", Goal::AtLeast(f64::from(KPA_CASES)));
    }
    if wants("tick") || wants("before") {
        let ours = ticks::all_changed(ticks::THOUSAND);
        report.figure("tick_1000_ms", ours, "ms", Goal::AtMost(100.0));
        if wants("before") {
            match before::milliseconds_per_revision(ticks::THOUSAND.nodes)? {
                Some(each) => {
                    let before = each * ticks::THOUSAND.revisions as f64;
                    note(&format!(
                        "tick_vs_before: {each:.1} ms per revision before, scaled to a thousand of them: {before:.0} ms"
                    ));
                    report.figure("tick_vs_before", before / ours, "x", Goal::AtLeast(300.0));
                }
                None => report.absent("tick_vs_before", "x", "the repository's history does not reach back to 678750a"),
            }
        }
    }
    if wants("few") {
        report.figure("tick_5000_ms", ticks::few_changed(), "ms", Goal::AtMost(50.0));
    }
    if wants("memory") {
        let output = std::process::Command::new(std::env::current_exe()?)
            .arg(MEMORY_ALONE)
            .output()
            .context("failed to start this program again")?;
        anyhow::ensure!(output.status.success(), "failed to measure memory: {}", String::from_utf8_lossy(&output.stderr));
        let mib: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        note("rss_1000_mib: picture and memory of decisions, without what the API server's stores hold");
        report.figure("rss_1000_mib", mib, "MiB", Goal::AtMost(100.0));
    }
    Ok(report.exit_code())
}
