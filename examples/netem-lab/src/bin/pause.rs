//! The first process of every pod: it holds the pod's namespaces open, buries what is orphaned in
//! them, and ends when it is asked to.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => bury(),
            _ => return Ok(()),
        }
    }
}

/// One signal may stand for several children.
fn bury() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
}
