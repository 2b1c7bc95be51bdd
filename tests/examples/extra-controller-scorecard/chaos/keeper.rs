//! A daemon that is killed and started again, over an unreliable way to the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kantai_tests::daemon::Daemon;
use kantai_tests::seika::proxy::Proxy;

/// One instance of a daemon.
pub(super) struct Keeper {
    binary: PathBuf,
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    acting: Option<Daemon>,
    _proxy: Arc<Proxy>,
}

impl Keeper {
    pub(super) fn start(
        binary: &Path,
        (proxy, kubeconfig): (Arc<Proxy>, PathBuf),
        arguments: Vec<String>,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut keeper = Self { binary: binary.to_owned(), kubeconfig, arguments, log, acting: None, _proxy: proxy };
        keeper.start_anew()?;
        Ok(keeper)
    }

    fn start_anew(&mut self) -> anyhow::Result<()> {
        self.acting = Some(Daemon::start(&self.binary, &self.kubeconfig, &self.arguments, &self.log)?);
        Ok(())
    }

    /// It is killed in the middle of what it does, and started again at once under the same name,
    /// as a kubelet would.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let killed = self.acting.take().context("nobody acts")?.kill().await;
        self.start_anew()?;
        killed
    }

    /// It is asked to end, and started again when it has.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        let stopped = self.acting.take().context("nobody acts")?.stop().await;
        self.start_anew()?;
        stopped
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.acting.take().context("nobody acts")?.stop().await
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}
