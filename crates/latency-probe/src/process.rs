//! The prober as a guest on its node: what it uses, by the kernel's own accounts, and how it stays out of the way of the node's work.
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
    /// As the kernel has it now; none where `/proc` is not there.
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

/// Gives memory that is free again back to the system. To be called after something large was made and dropped: the allocator by itself keeps
/// what each thread once needed.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From now on the calling thread, when it wakes, waits until a processor is free or its turn comes, instead of pushing aside who runs there
/// (`SCHED_BATCH`; its share of the time stays the same, and no privilege is needed). The kernel stamps packets when they come and go, so that
/// waiting never shows in a time, and what is not pushed aside is the node's own work, and, with both on one processor, the prober by its
/// responder after every single packet.
///
/// # Errors
/// What the system says where it forbids that.
pub fn use_batch_scheduling() -> io::Result<()> {
    // SAFETY: all fields are numbers, for which zero is a value, and the one that this policy allows.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to parameters that live through the call, and the kernel only reads them. 0 is the calling thread.
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
