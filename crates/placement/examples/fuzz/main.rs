//! Throws hostile input at everything public, for as many executions as asked for, on the stable
//! toolchain. Every input comes from a seed, so a finding is repeated by its seed.
//!
//! ```console
//! $ cargo run --release -p placement --example fuzz -- 1000000          # of every target
//! $ cargo run --release -p placement --example fuzz -- 1000000 text     # of one
//! $ cargo run --release -p placement --example fuzz -- replay text 4711 # one input again
//! ```
//!
//! Prints `fuzz_execs  value  executions  goal  ok|short`; the exit code is 1 after a finding.

mod input;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use input::Input;
use targets::TARGETS;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, name, seed] = &arguments[..]
        && verb == "replay"
    {
        let target = find(name)?;
        return match target(&mut Input::new(seed.parse()?)) {
            Ok(()) => Ok(()),
            Err(finding) => bail!("{name} {seed}: {finding}"),
        };
    }
    let wanted: u64 =
        arguments.first().map_or(Ok(100_000), |count| count.parse()).context("failed to read a number of executions")?;
    let chosen: Vec<(&str, Target)> = match arguments.get(1) {
        Some(name) => vec![(name.as_str(), find(name)?)],
        None => TARGETS.to_vec(),
    };
    // Panics are findings: they are counted and named by their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut executions, mut findings) = (0, 0);
    for (name, target) in chosen {
        let start = std::time::Instant::now();
        let found = run(name, target, wanted);
        executions += wanted;
        findings += found;
        println!("# {name}: {wanted} executions, {found} findings, {:.0} s", start.elapsed().as_secs_f64());
    }
    let goal = if findings == 0 { "ok" } else { "short" };
    println!("fuzz_execs\t{executions}\texecutions\t0 findings\t{goal}");
    if findings > 0 {
        bail!("{findings} findings");
    }
    Ok(())
}

/// Does something with an input; says what must not have happened.
type Target = fn(&mut Input<'_>) -> Result<(), String>;

fn find(name: &str) -> Result<Target> {
    let known = TARGETS.iter().find(|(known, _)| *known == name);
    known.map(|(_, target)| *target).with_context(|| format!("failed to find a target named {name}"))
}

/// Executions on all processors; returns the number of findings.
fn run(name: &str, target: Target, wanted: u64) -> u64 {
    let (next, findings) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wanted {
                        return;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| target(&mut Input::new(seed))));
                    let finding = match outcome {
                        Ok(Ok(())) => continue,
                        Ok(Err(finding)) => finding,
                        Err(_) => "panic".to_owned(),
                    };
                    if findings.fetch_add(1, Ordering::Relaxed) < 20 {
                        println!("# finding: {name} {seed}: {finding}");
                    }
                }
            });
        }
    });
    findings.into_inner()
}
