//! The controller's own binary, as a process.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// In which /proc counts processor time, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;
/// A lease that was not released expires after eight seconds; the rest is for a busy machine.
const LEADING_WITHIN: Duration = Duration::from_secs(60);

/// How a process is started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The controller's binary.
    pub binary: &'a Path,
    /// Where the API server is and who asks.
    pub kubeconfig: &'a Path,
    /// The namespace that it looks after; all of them if there is none.
    pub namespace: Option<&'a str>,
    /// Where its Lease is.
    pub lease_namespace: &'a str,
    /// Its name in the Lease.
    pub identity: &'a str,
    /// What it says goes there, after what was said before.
    pub log: &'a Path,
}

/// The controller at work. Dropping it kills it.
pub struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(launch: &Launch<'_>) -> anyhow::Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(launch.log)?;
        let mut command = Command::new(launch.binary);
        command
            .arg("--ops-listen=127.0.0.1:0")
            .args(["--lease-namespace", launch.lease_namespace, "--identity", launch.identity])
            .args(launch.namespace.iter().flat_map(|namespace| ["--namespace", namespace]))
            .env("KUBECONFIG", launch.kubeconfig)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().context("failed to start seika-controller")?;
        let pid = child.id().context("seika-controller ended at once")?;
        Ok(Self { child, pid: Pid::from_raw(pid.cast_signed()) })
    }

    /// Starts it and waits until it leads.
    ///
    /// # Errors
    /// Where it does not within a minute.
    pub async fn start_leading(launch: &Launch<'_>, client: Client) -> anyhow::Result<Self> {
        let process = Self::start(launch)?;
        let leases: Api<Lease> = Api::namespaced(client, launch.lease_namespace);
        let begun = Instant::now();
        loop {
            let lease = leases.get_opt("seika-controller").await?;
            if lease.and_then(|lease| lease.spec?.holder_identity).is_some_and(|holder| holder == launch.identity) {
                return Ok(process);
            }
            anyhow::ensure!(begun.elapsed() < LEADING_WITHIN, "seika-controller does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
        anyhow::ensure!(status.success() || ended_of_it, "seika-controller ended with {status}");
        Ok(())
    }

    /// Kills it (`kill -9`).
    ///
    /// # Errors
    /// Where it had ended by itself.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("seika-controller ended by itself with {status}");
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
