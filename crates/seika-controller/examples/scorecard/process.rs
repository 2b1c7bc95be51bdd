//! The controller's own release binary, as a process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kantai_tests::api_server::SYSTEM_NAMESPACE;
use kantai_tests::seika::cluster::Cluster;
use kube::api::Api;
use netem_lab::nested_cargo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

/// In which /proc counts processor time, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;
/// A lease that nobody gave back runs out after a quarter of a minute.
const LEADING_WITHIN: Duration = Duration::from_secs(60);

/// Builds it.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = nested_cargo::cargo();
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // With this example, as cargo built it: alone, it would be given other features, and most of what it stands on built anew.
        .args(["build", "--release", "--quiet", "--package=seika-controller", "--bin=seika-controller", "--example=scorecard"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = cargo.output().context("failed to start cargo")?;
    anyhow::ensure!(output.status.success(), "failed to build seika-controller");
    let printed = String::from_utf8(output.stdout)?;
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages
        .filter(|message| message["target"]["name"] == "seika-controller")
        .filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    executables.next().context("cargo names no executable")
}

/// The controller at work. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts it and waits until it leads.
    pub(crate) async fn start(binary: &Path, cluster: &Cluster) -> anyhow::Result<Self> {
        let log = std::fs::File::create(cluster.control_plane().folder().join("logs/seika-controller"))?;
        let identity = format!("scorecard-{}", rand::random::<u32>());
        let mut command = Command::new(binary);
        command
            .args([
                "--ops-listen=127.0.0.1:0",
                &format!("--lease-namespace={SYSTEM_NAMESPACE}"),
                &format!("--identity={identity}"),
            ])
            .env("KUBECONFIG", cluster.controllers_kubeconfig().await?)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().context("failed to start seika-controller")?;
        let pid = child.id().context("seika-controller ended at once")?;
        let leases: Api<Lease> = Api::namespaced(cluster.client(), SYSTEM_NAMESPACE);
        let begun = Instant::now();
        loop {
            let lease = leases.get_opt("seika-controller").await?;
            if lease.and_then(|lease| lease.spec?.holder_identity).is_some_and(|holder| holder == identity) {
                return Ok(Self { child, pid });
            }
            anyhow::ensure!(begun.elapsed() < LEADING_WITHIN, "seika-controller does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "seika-controller ended with {status}");
        Ok(())
    }

    /// Processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is the name in parentheses and may hold anything; the times are the 14th and 15th.
        let (_, after_name) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).context("an odd /proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// Memory that it has in use.
    pub(crate) fn rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib = line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
        Ok(kib / 1024.0)
    }
}
