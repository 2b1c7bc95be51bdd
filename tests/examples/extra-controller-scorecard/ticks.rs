//! What a tick takes, in time and memory.

use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

use crate::world::{Size, World};

/// The work of the figures with a thousand revisions.
pub(crate) const THOUSAND: Size = Size { nodes: 200, revisions: 1000, busy: 1000, sources: 20, pods: 14 };
const FIVE_THOUSAND: Size = Size { nodes: 1000, revisions: 5000, busy: 50, sources: 20, pods: 14 };
/// Seconds until windows are full and what is at rest rests.
const SETTLING_SECONDS: u64 = 65;
const PASSES: usize = 7;
const HOUR_SECONDS: u64 = 3600;
/// Latency is read anew so often.
const LATENCY_SECONDS: u64 = 15;

/// One pass with every input changed, milliseconds of one core: the median of some.
pub(crate) fn all_changed(size: Size) -> f64 {
    let mut world = World::new(size);
    world.settle(SETTLING_SECONDS);
    median(PASSES, || {
        world.measure_latency();
        world.change_facts(size.revisions);
        world.next_second();
        let (decisions, milliseconds) = taking(|| world.decide());
        assert_eq!(decisions.len(), size.revisions, "every revision is decided");
        world.obey(decisions);
        milliseconds
    })
}

/// One pass in which a hundredth of the revisions changed, milliseconds of one core.
pub(crate) fn few_changed() -> f64 {
    let mut world = World::new(FIVE_THOUSAND);
    world.settle(SETTLING_SECONDS);
    median(PASSES, || {
        world.change_facts(FIVE_THOUSAND.busy);
        world.next_second();
        let (decisions, milliseconds) = taking(|| world.decide());
        assert_eq!(decisions.len(), FIVE_THOUSAND.busy, "only what changed is decided");
        world.obey(decisions);
        milliseconds
    })
}

/// Resident memory of this process after an hour of a thousand revisions' load, in MiB.
pub(crate) fn memory_after_an_hour() -> anyhow::Result<f64> {
    let mut world = World::new(THOUSAND);
    for second in 0..HOUR_SECONDS {
        if second % LATENCY_SECONDS == 0 {
            world.measure_latency();
        }
        world.settle(1);
    }
    let status = std::fs::read_to_string("/proc/self/status").context("failed to read this process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("failed to find VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("failed to read {line:?}"))?;
    Ok(kib / 1024.0)
}

/// What `work` comes to, and how many milliseconds of this thread's time it took: others' load on
/// the machine does not count.
pub(crate) fn taking<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = thread_time();
    let result = work();
    (result, (thread_time() - begun).as_secs_f64() * 1000.0)
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a clock").into()
}

fn median(runs: usize, run: impl FnMut() -> f64) -> f64 {
    let mut run = run;
    let mut values: Vec<f64> = (0..runs).map(|_| run()).collect();
    values.sort_by(f64::total_cmp);
    values[runs / 2]
}
