//! Control groups, in every hierarchy of the machine: each v1 controller has a tree of its own, v2
//! has one for all.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

/// One tree of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is the unified one (v2).
    pub unified: bool,
}

/// Why control groups could not be made or removed.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The file system refused.
    #[error("failed to {action} control group {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are still processes in it.
    #[error("failed to empty control group {path}: {processes} processes do not end")]
    Busy {
        /// Which group.
        path: PathBuf,
        /// How many are left.
        processes: usize,
    },
}

/// The hierarchies of this machine.
///
/// # Errors
/// When the mounts of this process cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>, CgroupError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(io_error("find", path))?;
    Ok(parse_hierarchies(&mounts))
}

fn parse_hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let unified = match after.split(' ').next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            Some(Hierarchy { mount: before.split(' ').nth(4)?.into(), unified })
        })
        .collect()
}

/// Makes a control group in every hierarchy. `inner` says that others will be made inside it, which
/// in v2 means that its controllers are handed on and no process may be put into it.
///
/// # Errors
/// When a hierarchy refuses.
pub fn create(hierarchies: &[Hierarchy], group: &str, inner: bool) -> Result<(), CgroupError> {
    for hierarchy in hierarchies {
        let path = folder(hierarchy, group);
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        if hierarchy.unified {
            if inner {
                hand_on_controllers(&path)?;
            }
        } else {
            seed_cpuset(&path)?;
        }
    }
    Ok(())
}

/// A v2 group's children have only the controllers that the group hands on.
fn hand_on_controllers(path: &Path) -> Result<(), CgroupError> {
    let read = |path: &Path| fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    if let Some(parent) = path.parent() {
        // The parent of the lab's topmost group is the root, which may not hand on everything yet.
        enable(parent, &read(parent))?;
    }
    enable(path, &read(path))
}

fn enable(path: &Path, controllers: &str) -> Result<(), CgroupError> {
    let control = path.join("cgroup.subtree_control");
    for controller in controllers.split_ascii_whitespace() {
        fs::write(&control, format!("+{controller}")).map_err(io_error("hand on the controllers of", &control))?;
    }
    Ok(())
}

/// A new v1 cpuset group is empty and takes no process until it is given processors and memory
/// nodes.
fn seed_cpuset(path: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = path.join(name);
        let Ok(current) = fs::read_to_string(&file) else { return Ok(()) };
        if current.trim().is_empty() {
            let Some(parent) = path.parent() else { return Ok(()) };
            let inherited = fs::read(parent.join(name)).map_err(io_error("read the parent of", &file))?;
            fs::write(&file, inherited).map_err(io_error("seed", &file))?;
        }
    }
    Ok(())
}

/// Moves this process, and so all that it starts, into the group.
///
/// # Errors
/// When a hierarchy refuses.
pub fn join(hierarchies: &[Hierarchy], group: &str) -> Result<(), CgroupError> {
    for hierarchy in hierarchies {
        let procs = folder(hierarchy, group).join("cgroup.procs");
        // Zero stands for the process that writes it.
        fs::write(&procs, "0").map_err(io_error("join", &procs))?;
    }
    Ok(())
}

/// Moves a process into the group. Its children stay where they are.
///
/// # Errors
/// When a hierarchy refuses.
pub fn add(hierarchies: &[Hierarchy], group: &str, pid: i32) -> Result<(), CgroupError> {
    for hierarchy in hierarchies {
        let procs = folder(hierarchy, group).join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(io_error("add a process to", &procs))?;
    }
    Ok(())
}

/// All processes in the group and the groups inside it.
#[must_use]
pub fn processes(hierarchies: &[Hierarchy], group: &str) -> BTreeSet<i32> {
    hierarchies
        .iter()
        .flat_map(|hierarchy| tree(&folder(hierarchy, group)))
        .filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok())
        .flat_map(|procs| procs.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        // Zero stands for a process outside this process namespace.
        .filter(|&pid| pid > 0)
        .collect()
}

/// Kills everything in the group and removes it with all groups inside it. A group that is not
/// there is fine.
///
/// # Errors
/// When processes do not end within ten seconds, or a folder cannot be removed.
pub fn remove(hierarchies: &[Hierarchy], group: &str) -> Result<(), CgroupError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let alive = processes(hierarchies, group);
        if alive.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(CgroupError::Busy { path: group.into(), processes: alive.len() });
        }
        for pid in alive {
            // It may have ended meanwhile, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for hierarchy in hierarchies {
        // Innermost first: a group with groups inside cannot be removed.
        for path in tree(&folder(hierarchy, group)).into_iter().rev() {
            remove_one(&path, deadline)?;
        }
    }
    Ok(())
}

/// A process that has just been killed may still hold its group for a moment.
fn remove_one(path: &Path, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(source) => return Err(CgroupError::Io { action: "remove", path: path.to_owned(), source }),
        }
    }
}

/// A folder and all folders below it, outermost first; nothing when it is not there.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        found.push(path);
        open.extend(
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    found
}

/// Where a group is in a hierarchy.
fn folder(hierarchy: &Hierarchy, group: &str) -> PathBuf {
    hierarchy.mount.join(group.trim_start_matches('/'))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError + use<> {
    let path = path.to_owned();
    move |source| CgroupError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_kinds_are_found() {
        let mountinfo = "\
25 1 0:5 / /proc rw - proc proc rw
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        assert_eq!(
            parse_hierarchies(mountinfo),
            [
                Hierarchy { mount: "/sys/fs/cgroup/cpu".into(), unified: false },
                Hierarchy { mount: "/sys/fs/cgroup/unified".into(), unified: true },
            ]
        );
    }

    #[test]
    fn a_tree_is_listed_outermost_first() {
        let root = tempfile::tempdir().expect("temporary folder");
        fs::create_dir_all(root.path().join("a/b/c")).expect("folders");
        fs::write(root.path().join("a/cgroup.procs"), "12\n0\n").expect("file");
        let found = tree(&root.path().join("a"));
        assert_eq!(found, ["a", "a/b", "a/b/c"].map(|path| root.path().join(path)));
        let hierarchy = Hierarchy { mount: root.path().to_owned(), unified: false };
        assert_eq!(processes(&[hierarchy], "/a"), BTreeSet::from([12]));
    }
}
