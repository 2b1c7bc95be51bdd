//! The daemons' own release binaries.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use kantai_tests::daemon::Daemon;
use kantai_tests::knative::stage::{ACCOUNT, Stage};
use kantai_tests::seika::process::Launch;
use local_control_plane::nested_cargo;
use serde_json::Value;

const DAEMONS: [&str; 3] = ["extra-controller", "seika-controller", "locality-ingress"];

/// Where they are.
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// Those in `folder`, or else new ones.
    pub(crate) fn of(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        folder.map_or_else(build, Ok).map(Self)
    }

    pub(crate) fn path(&self, daemon: &str) -> PathBuf {
        self.0.join(daemon)
    }

    /// Starts an extra-controller as the instance `name`, which serves its API at `port`.
    pub(crate) async fn extra_controller(&self, stage: &Stage, name: &str, port: u16) -> anyhow::Result<Daemon> {
        let kubeconfig = stage.kubeconfig(ACCOUNT).await?;
        Daemon::start(&self.path(ACCOUNT), &kubeconfig, &arguments(name, port), &stage.folder().join(format!("{name}.log")))
    }

    /// Starts the seika-controller and waits until it leads.
    pub(crate) async fn seika_controller(&self, stage: &Stage) -> anyhow::Result<Daemon> {
        let launch = Launch {
            binary: &self.path("seika-controller"),
            kubeconfig: &stage.kubeconfig("seika-controller").await?,
            namespace: None,
            lease_namespace: kantai_tests::api_server::SYSTEM_NAMESPACE,
            identity: "seika-controller",
            log: &stage.folder().join("seika-controller.log"),
        };
        launch.start_leading(stage.client()).await
    }
}

/// What an extra-controller on a stage is started with.
pub(crate) fn arguments(name: &str, port: u16) -> Vec<String> {
    vec![format!("--api-listen=127.0.0.1:{port}"), "--ops-listen=127.0.0.1:0".to_owned(), format!("--pod-name={name}")]
}

fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = nested_cargo::cargo();
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--release", "--quiet", "--bins"]);
    cargo.args(DAEMONS.map(|daemon| format!("--package={daemon}")));
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().context("failed to start cargo")?;
    anyhow::ensure!(output.status.success(), "failed to build {DAEMONS:?}");
    let printed = String::from_utf8(output.stdout)?;
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages
        .filter(|message| message["target"]["name"] == ACCOUNT)
        .filter_map(|message| PathBuf::from(message["executable"].as_str()?).parent().map(PathBuf::from));
    executables.next().context("cargo names no executable")
}
