//! Ends processes that an earlier run left running, by their recorded ids.
//!
//! Process ids are reused, so the start time is recorded too: a process with another start time is
//! not ours.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ControlPlaneError;

const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Notes a running process in `<folder>/pids/<name>`.
pub(super) fn note(folder: &Path, name: &str, pid: u32) -> Result<(), ControlPlaneError> {
    let path = folder.join("pids").join(name);
    let text = format!("{pid} {}", started(pid).unwrap_or_default());
    std::fs::write(&path, text).map_err(|source| ControlPlaneError::File { what: "write", path, source })
}

pub(super) fn forget(folder: &Path, name: &str) {
    // Whether it was noted or not, it is not any more.
    let _ = std::fs::remove_file(folder.join("pids").join(name));
}

/// Kills what is noted in `folder` and still runs, and waits until it is gone. Tells whether there
/// was anything.
pub(super) fn stop(folder: &Path) -> Result<bool, ControlPlaneError> {
    let pids = folder.join("pids");
    let entries = match std::fs::read_dir(&pids) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(ControlPlaneError::File { what: "read", path: pids, source }),
    };
    let mut running = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let noted = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((pid, start)) = parse(&noted).filter(|(pid, start)| started(*pid) == Some(*start)) {
            // It fails only for a process that ended just now.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            running.push((pid, start));
        }
        let _ = std::fs::remove_file(&path);
    }
    let begun = Instant::now();
    while running.iter().any(|(pid, start)| started(*pid) == Some(*start)) && begun.elapsed() < GONE_WITHIN {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(!running.is_empty())
}

fn parse(noted: &str) -> Option<(u32, u64)> {
    let (pid, start) = noted.split_once(' ')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// When the process started, in clock ticks since the machine did; nothing if it has ended, even if
/// its parent has not noticed yet.
fn started(pid: u32) -> Option<u64> {
    start_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn start_in(stat: &str) -> Option<u64> {
    // The program's name, in parentheses, may hold anything; what follows it does not. The state is
    // field 3, the start field 22.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = |state| format!("42 (a) b) {state} 1 42 42 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 1 0 987654 1000 10");
        assert_eq!(start_in(&stat("S")), Some(987_654));
        assert_eq!(start_in(&stat("Z")), None);
    }

    #[test]
    fn a_process_with_a_known_id_and_another_start_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pids")).unwrap();
        std::fs::write(folder.path().join("pids/etcd"), format!("{} 1", std::process::id())).unwrap();
        assert!(!stop(folder.path()).unwrap());
    }
}
