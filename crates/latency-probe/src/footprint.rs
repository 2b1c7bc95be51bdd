//! What the prober itself costs, from the kernel's own accounts, and giving back what it does not need.
#![allow(unsafe_code)]

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Processor time and memory of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// User and system time together.
    pub cpu_seconds: f64,
    /// Resident set.
    pub resident_bytes: u64,
}

impl Footprint {
    /// As the kernel has it now; none where `/proc` is not there.
    #[must_use]
    pub fn read() -> Option<Self> {
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
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let footprint = Footprint::read().unwrap();
        assert!(footprint.resident_bytes > 100_000 && footprint.cpu_seconds >= 0.0);
    }
}
