//! The real kubectl.

use std::path::PathBuf;
use std::process::Output;

use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::User;
use local_control_plane::progress::Progress;

use super::cluster::{Case, Cluster};

/// kubectl with every right.
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// For this cluster.
    ///
    /// # Errors
    /// Where it cannot be built.
    pub async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let ensure = || Components::ensure(&[Component::Kubectl], &Progress::to_stderr());
        let components = tokio::task::spawn_blocking(ensure).await??;
        let kubeconfig = cluster.control_plane().kubeconfig(User::Admin);
        Ok(Self { binary: components.path(Component::Kubectl)?.to_owned(), kubeconfig })
    }

    /// What it says, in the case's namespace.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn run(&self, case: &Case, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &case.namespace]).args(arguments);
        Ok(command.kill_on_drop(true).output().await?)
    }

    /// What it prints; it must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn done(&self, case: &Case, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(case, arguments).await?;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "kubectl {}: {out}{error}", arguments.join(" "));
        Ok(out.into_owned())
    }

    /// What it complains of; it must not succeed.
    ///
    /// # Errors
    /// Where it does.
    pub async fn refused(&self, case: &Case, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(case, arguments).await?;
        anyhow::ensure!(!output.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
