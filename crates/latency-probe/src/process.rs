//! The prober's own use of the node: processor time and memory, and how it yields to the node's
//! workload.
#![allow(unsafe_code)]

use std::io;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Processor time and memory of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Footprint {
    /// User and system time together.
    pub cpu_seconds: f64,
    /// Resident set.
    pub resident_bytes: u64,
}

impl Footprint {
    /// Reads the present values; none without `/proc`.
    #[must_use]
    pub(crate) fn read() -> Option<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        #[expect(clippy::cast_precision_loss, reason = "seconds of processor time stay far below 2^53")]
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        let page_bytes = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
        Some(Self { cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()), resident_bytes: pages * page_bytes })
    }
}

/// Returns free heap memory to the system. Call it after a large value was dropped: the allocator
/// keeps each thread's peak otherwise.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets the calling thread's scheduling policy to `SCHED_BATCH`: on waking it does not preempt what
/// runs. Its share of processor time stays the same, and no privilege is needed. Kernel timestamps
/// keep the waiting out of the RTTs. It spares the node's workload, and the prober where its own
/// responder runs on the same processor.
///
/// # Errors
/// The system's error if the policy is forbidden.
pub fn use_batch_scheduling() -> io::Result<()> {
    // SAFETY: all fields are numbers, for which zero is a value, and the one that this policy
    // allows.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to parameters that live through the call, and the kernel only reads
    // them. 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let footprint = Footprint::read().unwrap();
        assert!(footprint.resident_bytes > 100_000 && footprint.cpu_seconds >= 0.0);
    }

    #[test]
    fn a_thread_changes_its_own_policy_only() {
        // SAFETY: takes no pointer.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let changed = std::thread::spawn(move || use_batch_scheduling().map(|()| policy())).join().unwrap();
        assert_eq!((changed.unwrap(), policy()), (libc::SCHED_BATCH, libc::SCHED_OTHER));
    }
}
