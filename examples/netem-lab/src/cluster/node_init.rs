//! The first process of a node: makes the node's own view of the file system, starts its daemons,
//! keeps them running and collects what ends. When it is killed, the kernel ends everything in the
//! node and drops every mount the node made.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};
use serde::{Deserialize, Serialize};

use super::node_config::CONTAINERD_SOCKET;

/// Where the node sees its own folder, wherever that is on this machine. Short, because sockets
/// below it have short names.
pub const NODE_FOLDER: &str = "/run/netem-lab";
/// The file in the node's folder that appears when all images are in.
pub const IMAGES_READY: &str = "images-ready";
/// The file in the node's folder whose appearance lets the node join its cluster. It lists what is
/// then started: [`Daemon`]s, as JSON.
pub const MAY_JOIN: &str = "may-join.json";

/// `node-init`: not for use by hand.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeInitArgs {
    /// The node's plan.
    #[arg(long)]
    plan: PathBuf,
}

/// Everything a node's first process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePlan {
    /// The node's name, which becomes its host name.
    pub name: String,
    /// The node's folder on this machine.
    pub folder: PathBuf,
    /// Whether what the node writes must be kept in memory, because the folder's file system cannot
    /// carry containers.
    pub storage_in_memory: bool,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Names for `/etc/hosts`.
    pub hosts: Vec<(Ipv4Addr, String)>,
    /// Where programs are looked for.
    pub path: String,
    /// `ctr`, which imports images.
    pub ctr: PathBuf,
    /// Image archives to import, in this order.
    pub images: Vec<PathBuf>,
    /// The container runtime, started at once.
    pub runtime: Daemon,
}

/// A program that is kept running.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// Its name, also that of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Runs the node. Returns only on failure.
///
/// # Errors
/// When the node's file system cannot be made, the container runtime does not start or an image
/// cannot be imported.
pub fn run(args: &NodeInitArgs) -> Result<std::convert::Infallible> {
    let plan = fs::read(&args.plan).with_context(|| format!("failed to read {}", args.plan.display()))?;
    let plan: NodePlan = serde_json::from_slice(&plan).with_context(|| format!("failed to parse {}", args.plan.display()))?;
    make_file_system(&plan)?;
    sethostname(&plan.name).context("failed to set the host name")?;

    let mut keeper = Keeper { path: plan.path.clone(), running: Vec::new() };
    keeper.start(plan.runtime.clone())?;
    keeper.wait_for_socket(Path::new(CONTAINERD_SOCKET), Duration::from_secs(120))?;
    for image in &plan.images {
        keeper.import(&plan.ctr, image)?;
    }
    let folder = Path::new(NODE_FOLDER);
    fs::write(folder.join(IMAGES_READY), "").context("failed to tell that the images are in")?;
    let may_join = folder.join(MAY_JOIN);
    keeper.wait_for_file(&may_join)?;
    let joining = fs::read(&may_join).with_context(|| format!("failed to read {}", may_join.display()))?;
    let joining: Vec<Daemon> =
        serde_json::from_slice(&joining).with_context(|| format!("failed to parse {}", may_join.display()))?;
    for daemon in joining {
        keeper.start(daemon)?;
    }
    keeper.keep_for_ever()
}

/// Gives the node a private view: its own /etc, /var and /run over the machine's, its own /proc,
/// and settings of the kernel that only seem to be written.
fn make_file_system(plan: &NodePlan) -> Result<()> {
    const NOTHING: Option<&str> = None;
    // From here on nothing that is mounted shows outside.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).context("failed to make mounts private")?;
    if plan.storage_in_memory {
        let upper = plan.folder.join("storage");
        fs::create_dir_all(&upper).with_context(|| format!("failed to create {}", upper.display()))?;
        mount(Some("tmpfs"), &upper, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("failed to mount memory on {}", upper.display()))?;
    }
    // Opened now: the private views may hide the place where the folder is.
    let folder = File::open(&plan.folder).with_context(|| format!("failed to open {}", plan.folder.display()))?;
    for top in ["etc", "var", "run"] {
        overlay(&plan.folder.join("storage"), top)?;
    }
    fs::create_dir_all(NODE_FOLDER).context("failed to create the node's folder")?;
    {
        use std::os::fd::AsRawFd;
        let source = format!("/proc/self/fd/{}", folder.as_raw_fd());
        bind(Path::new(&source), Path::new(NODE_FOLDER))?;
    }
    drop(folder);

    let own = Path::new(NODE_FOLDER);
    for (source, target) in [
        ("storage/containerd", "/var/lib/containerd"),
        ("storage/kubelet", "/var/lib/kubelet"),
        ("storage/cni", "/var/lib/cni"),
        ("logs/pods", "/var/log/pods"),
        ("logs/containers", "/var/log/containers"),
    ] {
        let source = own.join(source);
        fs::create_dir_all(&source).with_context(|| format!("failed to create {}", source.display()))?;
        fs::create_dir_all(target).with_context(|| format!("failed to create {target}"))?;
        bind(&source, Path::new(target))?;
    }
    // State that must not survive a crash of the node.
    let volatile = "/run/containerd";
    fs::create_dir_all(volatile).with_context(|| format!("failed to create {volatile}"))?;
    mount(Some("tmpfs"), volatile, Some("tmpfs"), MsFlags::empty(), NOTHING)
        .with_context(|| format!("failed to mount memory on {volatile}"))?;
    write_names(plan)?;

    mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, NOTHING)
        .context("failed to mount /proc")?;
    // The kubelet insists on these and they belong to the whole machine. It writes them into files
    // of the node instead.
    for (setting, wanted) in [("vm/overcommit_memory", "1"), ("kernel/panic", "10"), ("kernel/panic_on_oops", "1")] {
        let file = own.join(format!("storage/sysctl-{}", setting.replace('/', "-")));
        fs::write(&file, format!("{wanted}\n")).with_context(|| format!("failed to write {}", file.display()))?;
        bind(&file, &Path::new("/proc/sys").join(setting))?;
    }
    // Volumes that the kubelet mounts must show in containers.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SHARED, NOTHING).context("failed to share mounts in the node")
}

/// Lays a private, writable layer over one of the machine's folders.
fn overlay(storage: &Path, top: &str) -> Result<()> {
    let (upper, work) = (storage.join(format!("{top}.upper")), storage.join(format!("{top}.work")));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    let target = Path::new("/").join(top);
    let options = format!("lowerdir={},upperdir={},workdir={}", target.display(), upper.display(), work.display());
    mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("failed to lay {} over {}", upper.display(), target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to bind {} to {}", source.display(), target.display()))
}

/// The node's own resolv.conf and hosts, also where the machine's are links to somewhere else.
fn write_names(plan: &NodePlan) -> Result<()> {
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (address, name) in &plan.hosts {
        hosts.push_str(&format!("{address} {name}\n"));
    }
    for (path, content) in [("/etc/resolv.conf", &plan.resolv_conf), ("/etc/hosts", &hosts), ("/etc/hostname", &plan.name)] {
        // Removing first turns a link into a file. It may not be there at all.
        let _ = fs::remove_file(path);
        fs::write(path, content).with_context(|| format!("failed to write {path}"))?;
    }
    Ok(())
}

/// Starts daemons and starts them again when they end.
struct Keeper {
    path: String,
    running: Vec<(Pid, Daemon)>,
}

impl Keeper {
    fn start(&mut self, daemon: Daemon) -> Result<()> {
        let pid = self.spawn(&daemon)?;
        self.running.push((pid, daemon));
        Ok(())
    }

    fn spawn(&self, daemon: &Daemon) -> Result<Pid> {
        let log_path = Path::new(NODE_FOLDER).join("logs").join(format!("{}.log", daemon.name));
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("failed to open {}", log_path.display()))?;
        let child = Command::new(&daemon.program)
            .args(&daemon.arguments)
            .env_clear()
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("failed to share a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {}", daemon.program.display()))?;
        pid_of(child.id())
    }

    fn import(&mut self, ctr: &Path, image: &Path) -> Result<()> {
        let begun = Instant::now();
        let child = Command::new(ctr)
            .args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import"])
            .arg(image)
            .env_clear()
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", ctr.display()))?;
        let pid = pid_of(child.id())?;
        loop {
            let (ended, status) = self.collect_one()?;
            if ended == pid {
                if !status.success() {
                    bail!("failed to import {}: {status}", image.display());
                }
                eprintln!("imported {} in {:.2} s", image.display(), begun.elapsed().as_secs_f64());
                return Ok(());
            }
            self.restart_if_ours(ended, status)?;
        }
    }

    fn wait_for_socket(&mut self, socket: &Path, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while let Err(error) = UnixStream::connect(socket) {
            if Instant::now() > deadline {
                bail!("failed to reach {} within {patience:?}: {error}", socket.display());
            }
            self.collect_all()?;
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn wait_for_file(&mut self, file: &Path) -> Result<()> {
        while !file.exists() {
            self.collect_all()?;
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn keep_for_ever(&mut self) -> Result<std::convert::Infallible> {
        loop {
            let (ended, status) = self.collect_one()?;
            self.restart_if_ours(ended, status)?;
        }
    }

    fn restart_if_ours(&mut self, ended: Pid, status: ExitStatus) -> Result<()> {
        let Some(position) = self.running.iter().position(|(pid, _)| *pid == ended) else {
            // A container's leftover that the kernel gave to the first process.
            return Ok(());
        };
        let (_, daemon) = self.running.swap_remove(position);
        eprintln!("{} ended ({status}), starting it again", daemon.name);
        sleep(Duration::from_secs(1));
        self.start(daemon)
    }

    fn collect_all(&mut self) -> Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(status) => {
                    if let Some((pid, status)) = ended(status) {
                        self.restart_if_ours(pid, status)?;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait for children"),
            }
        }
    }

    /// Waits until any child ends.
    fn collect_one(&self) -> Result<(Pid, ExitStatus)> {
        loop {
            match waitpid(None, None) {
                Ok(status) => {
                    if let Some(ended) = ended(status) {
                        return Ok(ended);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait for children"),
            }
        }
    }
}

fn ended(status: WaitStatus) -> Option<(Pid, ExitStatus)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, ExitStatus::from_raw(code << 8))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, ExitStatus::from_raw(signal as i32))),
        _ => None,
    }
}

fn pid_of(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id).context("failed to use a process id")?))
}
