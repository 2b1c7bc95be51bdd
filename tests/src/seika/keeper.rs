//! The controller of a run of chaos: it is killed, started again, and hands over to another, over
//! an unreliable way to the API server.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::cluster::{Case, Cluster, Controller};
use super::faults::Faults;
use super::process::Launch;
use super::proxy::Proxy;
use crate::daemon::Daemon;

/// One controller at a time, or two while one hands over to the other.
pub enum Keeper {
    /// As tasks of this process, without a Lease.
    Tasks {
        /// Makes the next one's client.
        faults: Box<Faults>,
        /// Its configuration.
        config: Box<kube::Config>,
        /// Where it looks.
        namespace: String,
        /// Who acts.
        acting: Option<Controller>,
    },
    /// As processes of the controller's own binary, with a Lease.
    Processes {
        /// What starts them.
        host: Box<Host>,
        /// Who acts.
        acting: Option<Daemon>,
    },
}

/// What processes of a run need.
pub struct Host {
    binary: PathBuf,
    folder: tempfile::TempDir,
    namespace: String,
    /// How often one has handed over.
    term: usize,
    _proxy: Proxy,
}

impl Keeper {
    /// Starts one for `case`: a process of `binary`, or a task if there is none.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn start(cluster: &Cluster, case: &Case, faults: &Faults, binary: Option<&Path>) -> anyhow::Result<Self> {
        let config = cluster.controllers_config().await?;
        let mut keeper = match binary {
            None => Self::Tasks {
                faults: Box::new(faults.clone()),
                config: Box::new(config),
                namespace: case.namespace.clone(),
                acting: None,
            },
            Some(binary) => {
                let proxy = Proxy::start(faults.client(config)?).await?;
                let folder = tempfile::Builder::new().prefix("kantai-chaos-").tempdir()?;
                std::fs::File::create(folder.path().join("kubeconfig"))?.write_all(proxy.kubeconfig().to_string().as_bytes())?;
                let (binary, namespace) = (binary.to_owned(), case.namespace.clone());
                Self::Processes { host: Box::new(Host { binary, folder, namespace, term: 0, _proxy: proxy }), acting: None }
            }
        };
        keeper.start_anew()?;
        Ok(keeper)
    }

    fn start_anew(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Tasks { faults, config, namespace, acting } => {
                *acting = Some(Controller::start(faults.client((**config).clone())?, namespace));
            }
            Self::Processes { host, acting } => *acting = Some(host.start()?),
        }
        Ok(())
    }

    /// It is killed in the middle of what it does, and started again at once under the same name,
    /// as a kubelet would.
    ///
    /// # Errors
    /// Where it had ended by itself, or cannot be started again.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Tasks { acting, .. } => drop(acting.take()),
            Self::Processes { acting, .. } => acting.take().context("nobody acts")?.kill().await?,
        }
        self.start_anew()
    }

    /// It hands over to another: it ends what it has begun, then the other takes over.
    ///
    /// # Errors
    /// Where it does not end well, or the other cannot be started.
    pub async fn hand_over(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Tasks { acting, .. } => acting.take().context("nobody acts")?.stop().await?,
            Self::Processes { host, acting } => {
                host.term += 1;
                let next = host.start()?;
                acting.replace(next).context("nobody acts")?.stop().await?;
                return Ok(());
            }
        }
        self.start_anew()
    }

    /// What it has said lately.
    #[must_use]
    pub fn said(&self) -> String {
        let Self::Processes { host, .. } = self else { return String::new() };
        let log = std::fs::read_to_string(host.folder.path().join("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(40).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Host {
    fn start(&self) -> anyhow::Result<Daemon> {
        Launch {
            binary: &self.binary,
            kubeconfig: &self.folder.path().join("kubeconfig"),
            namespace: Some(&self.namespace),
            lease_namespace: &self.namespace,
            identity: &format!("keeper-{}", self.term),
            log: &self.folder.path().join("log"),
        }
        .start()
    }
}
