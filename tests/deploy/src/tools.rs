//! The programs that read what is under `deploy/`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;
use local_control_plane::components::{Component, Components, GoModule, GoPackage, Places, build_package, run_tool};
use local_control_plane::progress::Progress;
use repository_checks::tree;

/// Where they are.
#[derive(Clone, Debug)]
pub struct Tools {
    helm: PathBuf,
    kubectl: PathBuf,
    promtool: PathBuf,
}

impl Tools {
    /// Finds them, and makes what is missing: within two minutes, once.
    ///
    /// # Errors
    /// Where one cannot be made.
    pub fn get() -> anyhow::Result<&'static Self> {
        static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
        TOOLS
            .get_or_init(|| Self::make().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn make() -> anyhow::Result<Self> {
        let progress = Progress::to_stderr();
        let components = Components::ensure(&[Component::Kubectl, Component::Promtool], &progress)?;
        let package = GoPackage::Program("helm.sh/helm/v4/cmd/helm");
        let helm = build_package(&Places::from_env()?, GoModule::Helm, package, "helm", &progress)?;
        let path = |component| components.path(component).map(PathBuf::from);
        Ok(Self { helm, kubectl: path(Component::Kubectl)?, promtool: path(Component::Promtool)? })
    }

    /// What `helm` prints when it is given `arguments`, in the folder `deploy/chart`.
    ///
    /// # Errors
    /// Where it fails; the error has the end of what it printed.
    pub fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.helm);
        // Neither plugins nor settings of whoever runs this.
        let nowhere = tree::root().join("target/no-helm-settings");
        command.env("HELM_CONFIG_HOME", &nowhere).env("HELM_DATA_HOME", &nowhere).env("HELM_CACHE_HOME", &nowhere);
        command.args(arguments).current_dir(tree::root().join("deploy/chart"));
        run_tool(&mut command, "run Helm", "").with_context(|| format!("helm {}", arguments.join(" ")))
    }

    /// What `kubectl kustomize` makes of a folder of the repository.
    ///
    /// # Errors
    /// As [`Tools::helm`].
    pub fn kustomize(&self, folder: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.arg("kustomize").arg(tree::root().join(folder));
        run_tool(&mut command, "run kubectl", "").with_context(|| format!("kubectl kustomize {folder}"))
    }

    /// What `promtool` prints when it is given `arguments`, in the folder `deploy/alerts`.
    ///
    /// # Errors
    /// As [`Tools::helm`].
    pub fn promtool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.promtool);
        command.args(arguments).current_dir(tree::root().join("deploy/alerts"));
        run_tool(&mut command, "run promtool", "").with_context(|| format!("promtool {}", arguments.join(" ")))
    }
}
