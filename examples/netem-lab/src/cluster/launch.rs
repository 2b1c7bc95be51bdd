//! Starting programs inside the lab: in its control groups, in a network namespace, in a session of
//! their own so that the terminal's Ctrl-C reaches only the lab. The lab's own binary does this, as
//! hidden subcommands that set the scene and then become the program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::setsid;

use super::cgroups;
use crate::state::LabState;

/// `inside`: becomes a program inside the lab.
#[derive(Clone, Debug, clap::Args)]
pub struct InsideArgs {
    /// The control group to join, in every hierarchy.
    #[arg(long)]
    cgroup: String,
    /// The network namespace to enter.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Enters the lab and becomes the program; returns only when that fails.
///
/// # Errors
/// When the control group or the namespace cannot be entered, or the program not be started.
pub fn become_inside(args: &InsideArgs) -> Result<std::convert::Infallible> {
    enter(&args.cgroup, args.netns.as_deref())?;
    let (program, arguments) = args.program.split_first().context("failed to start nothing")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("failed to start {}", program.display()))
}

/// The command that starts a program inside the lab. Callers add arguments, environment and
/// standard streams as to any other.
#[must_use]
pub fn inside(lab_binary: &Path, cgroup: &str, netns: Option<&Path>, program: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(lab_binary);
    command.args(["inside", "--cgroup", cgroup]);
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    command.arg("--").arg(program);
    command
}

/// `exec`: becomes a program inside a node.
#[derive(Clone, Debug, clap::Args)]
pub struct ExecArgs {
    /// The node.
    node: String,
    /// The program and its arguments. `netem-lab` is this very program: `netem-lab request --help`,
    /// `netem-lab load --help`.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Enters a running node's network, file system and host name and becomes the program; returns only
/// when that fails. The program finds Services by their names and is routed like everything else on
/// the node.
///
/// # Errors
/// When there is no such node, it cannot be entered, or the program not be started.
pub fn become_in_node(args: &ExecArgs, state: &LabState) -> Result<std::convert::Infallible> {
    let running: Vec<_> = state.running_nodes().collect();
    let Some((_, pid1)) = running.iter().find(|(name, _)| *name == args.node) else {
        let names: Vec<_> = running.iter().map(|(name, _)| *name).collect();
        bail!("failed to find node {}: running are [{}]; `cargo lab -- up` starts a cluster", args.node, names.join(", "));
    };
    let own_folder = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let kinds = [("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS), ("mnt", CloneFlags::CLONE_NEWNS)];
    // All are opened before the first is entered: afterwards /proc shows something else.
    let mut namespaces = Vec::new();
    for (kind, flag) in kinds {
        let path = format!("/proc/{pid1}/ns/{kind}");
        namespaces.push((File::open(&path).with_context(|| format!("failed to open {path}"))?, flag));
    }
    for (namespace, flag) in namespaces {
        setns(namespace, flag).with_context(|| format!("failed to enter node {}", args.node))?;
    }
    std::env::set_current_dir("/").context("failed to change to the root folder")?;
    let (program, arguments) = args.program.split_first().context("failed to start nothing")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own_folder.into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).context("failed to put this program's folder on PATH")?;
    let error = Command::new(program).args(arguments).env("PATH", path).exec();
    Err(error).with_context(|| format!("failed to start {} in node {}", program.display(), args.node))
}

/// `node-launch`: starts a node's first process and prints its id.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeLaunchArgs {
    /// The control group of the node's daemons.
    #[arg(long)]
    cgroup: String,
    /// The node's network namespace.
    #[arg(long)]
    netns: PathBuf,
    /// Where the first process writes what it has to say.
    #[arg(long)]
    log: PathBuf,
    /// The node's plan; see [`super::node_init::NodePlan`].
    #[arg(long)]
    plan: PathBuf,
}

/// Makes a node's namespaces and starts `node-init` as their first process. Prints its process id
/// as this machine sees it.
///
/// # Errors
/// When the system refuses a namespace or the process.
pub fn launch_node(args: &NodeLaunchArgs) -> Result<()> {
    enter(&args.cgroup, Some(&args.netns))?;
    let log = File::options().create(true).append(true).open(&args.log);
    let log = log.with_context(|| format!("failed to open {}", args.log.display()))?;
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).context("failed to make the node's namespaces")?;
    // The next child is the first process of the new process namespace; when it ends, the kernel
    // ends all others there.
    let init = Command::new("/proc/self/exe")
        .arg("node-init")
        .arg("--plan")
        .arg(&args.plan)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("failed to share the node's log")?)
        .stderr(log)
        .spawn()
        .context("failed to start the node's first process")?;
    println!("{}", init.id());
    Ok(())
}

/// The command for [`launch_node`].
#[must_use]
pub fn node_launch(lab_binary: &Path, cgroup: &str, netns: &Path, log: &Path, plan: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(lab_binary);
    command.args(["node-launch", "--cgroup", cgroup]).arg("--netns").arg(netns).arg("--log").arg(log).arg("--plan").arg(plan);
    command
}

fn enter(cgroup: &str, netns: Option<&Path>) -> Result<()> {
    let hierarchies = cgroups::hierarchies()?;
    cgroups::join(&hierarchies, cgroup)?;
    if let Some(netns) = netns {
        let namespace = File::open(netns).with_context(|| format!("failed to open network namespace {}", netns.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("failed to enter {}", netns.display()))?;
    }
    // Fails only for the leader of a process group, which a freshly started child is not unless its
    // parent made it one.
    let _ = setsid();
    // The terminal's folder may go; nothing inside the lab depends on it.
    std::env::set_current_dir("/").context("failed to change to the root folder")
}

/// The last lines of a log, for a message about the program that wrote it.
#[must_use]
pub fn log_tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("(failed to read {}: {error})", path.display()),
    }
}
