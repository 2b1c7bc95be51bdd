//! The control plane's processes: started, watched, and ended by their ids.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};

use super::{ControlPlaneError, left_running};

/// Whether the processes may outlive the one that starts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// However this process ends, the kernel kills them too. For tests.
    WithUs,
    /// They run on, unless [`super::ControlPlane`] is stopped or dropped.
    MayOutliveUs,
}

/// What all processes have in common.
pub(super) struct Children {
    folder: PathBuf,
    namespace: Option<PathBuf>,
    lifetime: Lifetime,
    running: Vec<(&'static str, Child)>,
    parent: Parent,
}

impl Children {
    pub(super) fn new(folder: &Path, namespace: Option<&Path>, lifetime: Lifetime) -> Self {
        let (folder, namespace) = (folder.to_owned(), namespace.map(Path::to_owned));
        Self { folder, namespace, lifetime, running: Vec::new(), parent: Parent::new() }
    }

    /// Starts a program; what it writes goes to `<folder>/logs/<name>.log`, its process id is
    /// noted, for [`left_running::stop`].
    pub(super) fn start(&mut self, name: &'static str, program: &Path, arguments: &[String]) -> Result<(), ControlPlaneError> {
        let log_path = self.log_path(name);
        let log = File::create(&log_path).map_err(|source| ControlPlaneError::File { what: "create", path: log_path, source })?;
        let mut line: Vec<std::ffi::OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            // Not `ip netns exec`: that mounts another /sys, in which the tree of control groups is
            // missing.
            let mut option = std::ffi::OsString::from("--net=");
            option.push(namespace);
            line.extend(["nsenter".into(), option]);
        }
        if self.lifetime == Lifetime::WithUs {
            line.extend(["setpriv", "--pdeathsig", "KILL"].map(Into::into));
        }
        line.push(program.into());
        line.extend(arguments.iter().map(Into::into));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(&self.folder).stdin(Stdio::null());
        // A group of its own: Ctrl-C at the terminal is for us, and we end the others in order.
        command.process_group(0);
        let failed = |source| ControlPlaneError::Start { program: name, source };
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let child = self.parent.spawn(command).map_err(failed)?;
        let pid = child.id();
        self.running.push((name, child));
        left_running::note(&self.folder, name, pid)
    }

    /// An error if one of the processes has ended.
    pub(super) fn check(&mut self) -> Result<(), ControlPlaneError> {
        let ended =
            self.running.iter_mut().find_map(|(name, child)| child.try_wait().ok().flatten().map(|status| (*name, status)));
        match ended {
            Some((name, status)) => Err(self.died(name, status)),
            None => Ok(()),
        }
    }

    pub(super) fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// The end of a program's log.
    pub(super) fn log_tail(&self, name: &str) -> String {
        let log = std::fs::read(self.log_path(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The ids of the processes, by name.
    pub(super) fn pids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.running.iter().map(|(name, child)| (*name, child.id()))
    }

    /// Kills them, the last one started first. Their state is thrown away with the lab, so there is
    /// nothing to shut down gracefully.
    pub(super) fn stop(&mut self) {
        for (_, child) in self.running.iter_mut().rev() {
            // It fails only for a process that has ended already.
            let _ = child.kill();
        }
        for (name, mut child) in self.running.drain(..) {
            let _ = child.wait();
            left_running::forget(&self.folder, name);
        }
    }

    /// Lets them run on, without us.
    pub(super) fn leave_running(&mut self) {
        self.running.clear();
    }

    fn died(&self, name: &'static str, status: ExitStatus) -> ControlPlaneError {
        ControlPlaneError::Died { program: name, status, log: self.log_tail(name) }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread that starts the processes. The kernel's "kill the child when its parent dies" means
/// the parent *thread*, and a thread of an async runtime or of one test may well end before the
/// process does; this one ends with [`Children`].
struct Parent {
    requests: Sender<(Command, Sender<io::Result<Child>>)>,
}

impl Parent {
    fn new() -> Self {
        let (requests, received) = channel::<(Command, Sender<io::Result<Child>>)>();
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = received.recv() {
                // Nobody waits for the reply only if the one who asked is gone, and then so is
                // everything else.
                let _ = reply.send(command.spawn());
            }
        });
        Self { requests }
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = channel();
        let gone = |_| io::Error::other("the thread that starts processes is gone");
        self.requests.send((command, reply)).map_err(|error| gone(error.to_string()))?;
        answer.recv().map_err(|error| gone(error.to_string()))?
    }
}
