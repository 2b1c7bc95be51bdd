//! The controller's own release binary, as a process.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use kantai_tests::api_server::SYSTEM_NAMESPACE;
use kantai_tests::daemon::Daemon;
use kantai_tests::seika::cluster::Cluster;
use kantai_tests::seika::process::Launch;
use local_control_plane::nested_cargo;
use serde_json::Value;

/// Builds it.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = nested_cargo::cargo();
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // With this example, as cargo built it: alone, it would be given other features, and most
        // of what it stands on built anew.
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

/// Starts it for all namespaces of `cluster` and waits until it leads.
pub(crate) async fn start(binary: &Path, cluster: &Cluster) -> anyhow::Result<Daemon> {
    let launch = Launch {
        binary,
        kubeconfig: &cluster.controllers_kubeconfig().await?,
        namespace: None,
        lease_namespace: SYSTEM_NAMESPACE,
        identity: &format!("scorecard-{}", rand::random::<u32>()),
        log: &cluster.control_plane().folder().join("logs/seika-controller"),
    };
    launch.start_leading(cluster.client()).await
}
