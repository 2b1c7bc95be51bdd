//! Corrupted samples by the million.

#[path = "../../tests/hostile/cases.rs"]
mod cases;

use anyhow::{Result, anyhow};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::report::{Goal, line, note};

/// Shows for `wanted` cases that a corrupted sample improves no node; one thread per processor.
pub(crate) fn hostile(wanted: u32) -> Result<()> {
    let start = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(64)) as u32;
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let cases = wanted / threads + u32::from(thread < wanted % threads);
            std::thread::spawn(move || {
                let config = Config { cases, failure_persistence: None, ..Config::default() };
                let rng = TestRng::from_seed(RngAlgorithm::XorShift, &[thread as u8 + 1; 16]);
                let run = TestRunner::new_with_rng(config, rng).run(&cases::cases(), |case| cases::improves_nobody(&case));
                run.map(|()| cases).map_err(|error| error.to_string())
            })
        })
        .collect();
    let mut shown = 0;
    for worker in workers {
        match worker.join().map_err(|_| anyhow!("failed to run hostile cases: a thread panicked"))? {
            Ok(cases) => shown += cases,
            Err(case) => note(&format!("hostile: {}", case.replace('\n', " "))),
        }
    }
    line("hostile_cases", f64::from(shown), "cases", Goal::AtLeast(f64::from(wanted)));
    note(&format!("hostile: {:.0} s on {threads} threads", start.elapsed().as_secs_f64()));
    Ok(())
}
