//! The long run of the fuzz targets.

use std::time::Instant;

use scorecards::{Goal, Report};

use crate::figures::print;
use crate::runner;
use crate::targets::{TARGETS, Target};

/// Executions over all parsers.
pub(crate) const GOAL: u64 = 100_000_000;

/// Parsers of text take a hundred times as long as those of packets, and get fewer executions for
/// that.
fn share(target: &Target) -> u64 {
    match target.name {
        "row_json" | "peers_file" | "bucket_bounds" | "replies" => 1,
        _ => 20,
    }
}

/// Runs all targets on all cores.
pub(crate) fn fuzz(report: &mut Report, executions: u64) {
    let begun = Instant::now();
    let shares: u64 = TARGETS.iter().map(share).sum();
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let seed: u64 = rand::random();
    let (mut done, mut understood) = (0, Vec::new());
    let mut findings = Vec::new();
    for target in &TARGETS {
        let each = (executions * share(target)).div_ceil(shares * threads);
        let ran: Vec<_> = std::thread::scope(|scope| {
            let run = |thread| {
                scope.spawn(move || runner::run(target.run, target.seeds, target.words, each, seed.wrapping_add(thread)))
            };
            let running: Vec<_> = (0..threads).map(run).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (mut tried, mut known) = (0, 0);
        for result in ran {
            match result {
                Ok(ran) => (tried, known) = (tried + ran.executions, known + ran.understood),
                Err(input) => findings.push(format!("{}: {input:02x?}", target.name)),
            }
        }
        done += tried;
        understood.push(format!("{} {:.0} %", target.name, 100.0 * known as f64 / tried.max(1) as f64));
    }
    let shown = findings.len() as f64;
    let found = if findings.is_empty() { "none".to_owned() } else { findings.join(", ") };
    let note = format!(
        "{} targets, {:.0} s, seed {seed}; findings: {found}; understood: {}",
        TARGETS.len(),
        begun.elapsed().as_secs_f64(),
        understood.join(", ")
    );
    print(report, "fuzz_execs", done as f64, "executions", Goal::AtLeast(GOAL as f64), &note);
    print(report, "fuzz_findings", shown, "inputs", Goal::AtMost(0.0), "inputs that broke a parser or one of its promises");
}
