//! The state folder of a lab: what it has made on this machine, written down before it is made, so
//! that everything can be removed again, also when the lab was killed without warning.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Something a lab made that the kernel keeps until it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Resource {
    /// A process, with its start time (in the kernel's clock ticks since boot), which distinguishes
    /// it from a later process with the same id.
    Process {
        /// What the process is, for messages.
        what: String,
        /// Its id.
        pid: i32,
        /// Field 22 of `/proc/<pid>/stat`.
        start_ticks: u64,
    },
    /// A named network namespace.
    NetworkNamespace {
        /// Its name below `/run/netns`.
        name: String,
    },
    /// A network device in the namespace the lab was started in.
    Link {
        /// Its name.
        name: String,
    },
    /// A mount in the mount namespace the lab was started in.
    Mount {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// A control group, in every hierarchy that has it.
    Cgroup {
        /// Its path below the root of each hierarchy, starting with a slash.
        path: String,
    },
}

/// What is written in `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabState {
    /// Everything made so far, in the order it was made.
    pub resources: Vec<Resource>,
    /// The kubeconfig of the running cluster, once there is one.
    pub kubeconfig: Option<PathBuf>,
}

/// What node processes are called, before the node's name.
const NODE_PROCESS: &str = "node ";

impl LabState {
    /// What a lab that works with this folder, or has left a cluster running, has written there;
    /// nothing where there is none. Takes no lock: it is for looking only.
    ///
    /// # Errors
    /// When the state file is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Self, StateError> {
        let file = folder.join("state.json");
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StateError::Malformed { path: file, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(StateError::Io { action: "read", path: file, source }),
        }
    }

    /// The nodes that run, each with its first process.
    pub fn running_nodes(&self) -> impl Iterator<Item = (&str, i32)> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::Process { what, pid, start_ticks } if is_running(*pid, *start_ticks) => {
                Some((what.strip_prefix(NODE_PROCESS)?, *pid))
            }
            _ => None,
        })
    }
}

/// Why the state folder could not be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another lab process works with this folder.
    #[error("failed to lock state folder {folder}: the lab with process id {holder} uses it")]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// What the lock file says about its holder.
        holder: String,
    },
    /// The file system refused.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `state.json` is not what a lab wrote.
    #[error("failed to read {path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An open, locked state folder. The lock is gone with the value or the process, whichever ends
/// first.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    state: LabState,
    _lock: File,
}

impl StateFolder {
    /// Opens the folder, making it where needed, and takes its lock.
    ///
    /// # Errors
    /// When another process holds it, or the file system or the state file is at fault.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let path = path.canonicalize().map_err(io_error("find", path))?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default().trim().to_owned();
                return Err(StateError::InUse { folder: path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(StateError::Io { action: "lock", path: lock_path, source }),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(io_error("write", &lock_path))?;

        let state = LabState::read(&path)?;
        Ok(Self { path, state, _lock: lock })
    }

    /// Where the folder is, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the lab has made.
    #[must_use]
    pub fn state(&self) -> &LabState {
        &self.state
    }

    /// Writes down that a resource is about to be made, or, for a process, has just been started.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn record(&mut self, resource: Resource) -> Result<(), StateError> {
        if !self.state.resources.contains(&resource) {
            self.state.resources.push(resource);
            self.write()?;
        }
        Ok(())
    }

    /// Writes down a process that has just been started. One that has ended already is not worth a
    /// line.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn record_process(&mut self, what: &str, pid: i32) -> Result<(), StateError> {
        match process_start_ticks(pid) {
            Some(start_ticks) => self.record(Resource::Process { what: what.to_owned(), pid, start_ticks }),
            None => Ok(()),
        }
    }

    /// Writes down a node's first process, as [`StateFolder::record_process`] does.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn record_node(&mut self, name: &str, pid1: i32) -> Result<(), StateError> {
        self.record_process(&format!("{NODE_PROCESS}{name}"), pid1)
    }

    /// Writes down where the kubeconfig of the running cluster is.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn set_kubeconfig(&mut self, path: &Path) -> Result<(), StateError> {
        self.state.kubeconfig = Some(path.to_owned());
        self.write()
    }

    /// Forgets what has been removed.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn retain(&mut self, keep: impl FnMut(&Resource) -> bool) -> Result<(), StateError> {
        self.state.resources.retain(keep);
        if self.state.resources.is_empty() {
            self.state.kubeconfig = None;
        }
        self.write()
    }

    fn write(&self) -> Result<(), StateError> {
        let file = self.path.join("state.json");
        let next = self.path.join("state.json.next");
        let bytes =
            serde_json::to_vec_pretty(&self.state).map_err(|source| StateError::Malformed { path: file.clone(), source })?;
        fs::write(&next, bytes).map_err(io_error("write", &next))?;
        fs::rename(&next, &file).map_err(io_error("replace", &file))
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

/// When the process was started, in clock ticks since boot; nothing when there is no such process
/// or it is only a zombie.
#[must_use]
pub fn process_start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

/// Whether this very process (not a later one of the same number) still runs.
#[must_use]
pub fn is_running(pid: i32, start_ticks: u64) -> bool {
    kill(Pid::from_raw(pid), None).is_ok() && process_start_ticks(pid) == Some(start_ticks)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, which may itself hold spaces and
    // parentheses.
    let mut after_name = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    let state = after_name.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    after_name.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_an_odd_program_name() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_start_ticks(stat), Some(4711));
    }

    #[test]
    fn a_zombie_does_not_run() {
        let stat = "12 (a) Z 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_start_ticks(stat), None);
    }

    #[test]
    fn what_was_recorded_is_there_after_opening_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let resource = Resource::NetworkNamespace { name: "netem0-a".to_owned() };
        {
            let mut state = StateFolder::open(folder.path()).expect("open");
            state.record(resource.clone()).expect("record");
            state.record_process("this test", std::process::id().cast_signed()).expect("record process");
        }
        let mut state = StateFolder::open(folder.path()).expect("open again");
        assert_eq!(state.state().resources.len(), 2);
        assert_eq!(state.state().resources[0], resource);
        state.retain(|_| false).expect("retain");
        assert_eq!(state.state(), &LabState::default());
    }

    #[test]
    fn nodes_that_run_are_found_by_name() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(LabState::read(folder.path()).expect("read nothing"), LabState::default());
        let pid = std::process::id().cast_signed();
        let mut state = StateFolder::open(folder.path()).expect("open");
        state.record_process("etcd", pid).expect("record another process");
        state.record_node("west", pid).expect("record a node");
        let ended = Resource::Process { what: "node east".to_owned(), pid, start_ticks: 1 };
        state.record(ended).expect("record a node that ended");
        // While it is locked, too.
        let seen = LabState::read(folder.path()).expect("read");
        assert_eq!(seen.running_nodes().collect::<Vec<_>>(), [("west", pid)]);
    }

    #[test]
    fn a_folder_in_use_says_by_whom() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let _held = StateFolder::open(folder.path()).expect("open");
        let error = StateFolder::open(folder.path()).expect_err("second open");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn a_recycled_number_is_not_the_same_process() {
        let pid = std::process::id().cast_signed();
        let ticks = process_start_ticks(pid).expect("own start time");
        assert!(is_running(pid, ticks));
        assert!(!is_running(pid, ticks + 1));
    }
}
