//! Threads that push nobody aside.
#![allow(unsafe_code)]

use std::io;

/// From now on the calling thread, when it wakes, waits until a processor is free or its turn comes, instead of pushing aside who runs there
/// (`SCHED_BATCH`; its share of the time stays the same, and no privilege is needed). The kernel stamps packets when they come and go, so that
/// waiting never shows in a time, and what is not pushed aside is the node's own work, and, with both on one processor, the prober by its
/// responder after every single packet.
///
/// # Errors
/// What the system says where it forbids that.
pub fn push_nobody_aside() -> io::Result<()> {
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
    fn a_thread_changes_its_own_policy_only() {
        // SAFETY: takes no pointer.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let changed = std::thread::spawn(move || push_nobody_aside().map(|()| policy())).join().unwrap();
        assert_eq!((changed.unwrap(), policy()), (libc::SCHED_BATCH, libc::SCHED_OTHER));
    }
}
