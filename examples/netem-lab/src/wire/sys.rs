//! The system calls that no safe wrapper offers.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Does something in another network namespace, on this thread only, and comes back.
pub(super) fn in_network_namespace<T>(netns: &Path, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let there = File::open(netns)?;
    setns(there, CloneFlags::CLONE_NEWNET)?;
    let result = action();
    // A thread left in the wrong namespace would do harm wherever it is used next.
    setns(home, CloneFlags::CLONE_NEWNET)?;
    result
}

/// Opens a TUN device of this name in the current network namespace: packets without a header of
/// ours, never waiting.
pub(super) fn open_tun(name: &str) -> io::Result<File> {
    let device =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/net/tun")?;
    if name.len() >= libc::IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for an interface")));
    }
    // SAFETY: all bytes zero is a valid ifreq: integers, byte arrays and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until after the call; the
    // descriptor is open.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(device) }
}

/// Puts the calling thread before everything that is not real-time.
pub(super) fn run_first_in_first_out(priority: i32) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid sched_param: integers.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: process 0 is the calling thread, and the call only reads the parameters, which live
    // until after it.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
