//! A daemon's own binary, as a process.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// In which /proc counts processor time, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A daemon at work. Dropping it kills it.
pub struct Daemon {
    name: String,
    child: Child,
    pid: Pid,
}

impl Daemon {
    /// Starts `binary`. What it says goes to `log`, after what was said before.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(binary: &Path, kubeconfig: &Path, arguments: &[impl AsRef<OsStr>], log: &Path) -> anyhow::Result<Self> {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(binary);
        command.args(arguments).env("KUBECONFIG", kubeconfig).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name, child, pid: Pid::from_raw(pid.cast_signed()) })
    }

    /// Asks it to end and waits until it has. One that was started only just now may end of it
    /// before it has begun to listen.
    ///
    /// # Errors
    /// Where it does not end well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        let ended_of_it = status.signal() == Some(Signal::SIGTERM as i32);
        anyhow::ensure!(status.success() || ended_of_it, "{} ended with {status}", self.name);
        Ok(())
    }

    /// Kills it (`kill -9`).
    ///
    /// # Errors
    /// Where it had ended by itself.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("{} ended by itself with {status}", self.name);
        }
        Ok(self.child.kill().await?)
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is the name in parentheses and may hold anything; the times are the 14th
        // and 15th.
        let (_, after_name) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).context("an odd /proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// Memory that it has in use.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib = line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
        Ok(kib / 1024.0)
    }
}
