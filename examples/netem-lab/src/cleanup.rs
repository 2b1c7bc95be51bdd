//! Removes everything that a lab has created, as its state folder lists it, however the process
//! that created it ended.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::cluster::cgroups::{self, CgroupError};
use crate::cluster::layout::netns_path;
use crate::cluster::network::is_mount_point;
use crate::state::{Resource, StateError, StateFolder, is_running};

/// Why something could not be removed. What could be removed is, all the same.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Some things are still there; a second try may find them gone.
    #[error("failed to remove {} of the lab's things: {}", .0.len(), .0.join("; "))]
    LeftOver(Vec<String>),
}

/// Removes everything that the folder lists. Does nothing when there is nothing, so it may be
/// called any number of times.
///
/// # Errors
/// When something resists; everything else is removed nevertheless, and only what resisted stays
/// listed.
pub fn down(state: &mut StateFolder) -> Result<(), CleanupError> {
    let resources = state.state().resources.clone();
    if resources.is_empty() {
        return Ok(());
    }
    end_processes(&resources);
    let mut left = Vec::new();
    let mut resisting = Vec::new();
    // Last made, first removed.
    for resource in resources.into_iter().rev() {
        if let Err(reason) = remove(&resource) {
            left.push(reason);
            resisting.push(resource);
        }
    }
    state.retain(|resource| resisting.contains(resource))?;
    if left.is_empty() {
        // The cluster's data is worth nothing without its processes and would only confuse the next
        // run; logs stay for reading.
        for name in ["nodes", "control-plane/etcd", "control-plane/pki", "control-plane/kubeconfig", "control-plane/pids"] {
            // A folder that is not there, or that is busy for another moment, does no harm: the
            // next run starts by removing it.
            let _ = remove_data(&state.path().join(name));
        }
        Ok(())
    } else {
        Err(CleanupError::LeftOver(left))
    }
}

/// Removes the data of a folder but not the logs in it.
fn remove_data(folder: &Path) -> io::Result<()> {
    if folder.file_name().is_some_and(|name| name == "nodes") {
        for node in fs::read_dir(folder)? {
            let storage = node?.path().join("storage");
            if storage.exists() {
                fs::remove_dir_all(storage)?;
            }
        }
        return Ok(());
    }
    fs::remove_dir_all(folder)
}

/// How long to wait for killed processes after the last of them that ended.
const STUBBORN_AFTER: Duration = Duration::from_secs(30);

/// Kills every process that is listed, or is in one of the lab's namespaces or control groups, and
/// waits until they are gone.
fn end_processes(resources: &[Resource]) {
    // On an overloaded machine a single look at all processes takes seconds: time only counts
    // against processes while none ends.
    let mut fewest = usize::MAX;
    let mut deadline = Instant::now() + STUBBORN_AFTER;
    let hierarchies = cgroups::hierarchies().unwrap_or_default();
    loop {
        let mut alive: BTreeSet<i32> = listed_processes(resources);
        alive.extend(processes_in_namespaces(resources));
        for resource in resources {
            if let Resource::Cgroup { path } = resource {
                alive.extend(cgroups::processes(&hierarchies, path));
            }
        }
        alive.remove(&std::process::id().cast_signed());
        // A zombie cannot be killed again; its parent will collect it.
        alive.retain(|&pid| crate::state::process_start_ticks(pid).is_some());
        if alive.is_empty() {
            return;
        }
        for &pid in &alive {
            // It may have ended meanwhile, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if alive.len() < fewest {
            fewest = alive.len();
            deadline = Instant::now() + STUBBORN_AFTER;
        } else if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listed_processes(resources: &[Resource]) -> BTreeSet<i32> {
    resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Process { pid, start_ticks, .. } if is_running(*pid, *start_ticks) => Some(*pid),
            _ => None,
        })
        .collect()
}

/// Finds also those that were started in the moment before the lab was killed, when they were not
/// listed yet.
fn processes_in_namespaces(resources: &[Resource]) -> BTreeSet<i32> {
    let namespaces: BTreeSet<u64> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::NetworkNamespace { name } => fs::metadata(netns_path(name)).ok().map(|metadata| metadata.ino()),
            _ => None,
        })
        .collect();
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| namespaces.contains(&metadata.ino())))
        .collect()
}

fn remove(resource: &Resource) -> Result<(), String> {
    match resource {
        Resource::Process { what, pid, start_ticks } => {
            if is_running(*pid, *start_ticks) {
                Err(format!("{what} (process {pid}) does not end"))
            } else {
                Ok(())
            }
        }
        Resource::NetworkNamespace { name } => {
            if netns_path(name).exists() {
                ip(&["netns", "delete", name])
            } else {
                Ok(())
            }
        }
        Resource::Link { name } => {
            // The cable goes with the namespace at its other end, some time after that is deleted.
            if Path::new("/sys/class/net").join(name).exists() {
                let deleted = ip(&["link", "delete", name]);
                if Path::new("/sys/class/net").join(name).exists() { deleted } else { Ok(()) }
            } else {
                Ok(())
            }
        }
        Resource::Mount { path } => remove_mount(path),
        Resource::Cgroup { path } => {
            let hierarchies = cgroups::hierarchies().map_err(|error| error.to_string())?;
            cgroups::remove(&hierarchies, path).map_err(|error: CgroupError| error.to_string())
        }
    }
}

fn remove_mount(path: &PathBuf) -> Result<(), String> {
    // A mount for namespaces that others use by now stays.
    let used = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if used || !is_mount_point(path) {
        return Ok(());
    }
    umount2(path, MntFlags::empty()).map_err(|error| format!("failed to unmount {}: {error}", path.display()))?;
    // It was created together with the mount. A folder that existed before is not missed.
    let _ = fs::remove_dir(path);
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {}: {}", arguments.join(" "), stderr.trim()))
        }
        Err(error) => Err(format!("failed to run ip: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_already_counts_as_removed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut state = StateFolder::open(folder.path()).expect("open");
        for resource in [
            Resource::Process { what: "long gone".to_owned(), pid: std::process::id().cast_signed(), start_ticks: 1 },
            Resource::NetworkNamespace { name: "netem-no-such-namespace".to_owned() },
            Resource::Link { name: "netem-no-such".to_owned() },
            Resource::Mount { path: "/no/such/mount".into() },
            Resource::Cgroup { path: "/netem-no-such-group".to_owned() },
        ] {
            state.record(resource).expect("record");
        }
        down(&mut state).expect("down");
        down(&mut state).expect("down again");
        assert!(state.state().resources.is_empty());
    }

    #[test]
    fn a_listed_process_is_ended() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut state = StateFolder::open(folder.path()).expect("open");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        state.record_process("sleep", child.id().cast_signed()).expect("record");
        down(&mut state).expect("down");
        let status = child.wait().expect("wait");
        assert!(!status.success());
    }
}
