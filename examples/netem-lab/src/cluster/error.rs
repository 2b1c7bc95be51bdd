//! What can go wrong with the cluster.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::apply::ApplyError;
use super::cgroups::CgroupError;
use super::layout::LayoutError;
use super::network::NetworkError;
use crate::cleanup::CleanupError;
use crate::state::StateError;
use local_control_plane::components::ComponentsError;
use local_control_plane::control_plane::ControlPlaneError;

/// Why the cluster could not be made or used.
#[derive(Debug, Error)]
#[allow(missing_docs)] // The messages say it.
pub enum ClusterError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    #[error(transparent)]
    Components(#[from] ComponentsError),
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("failed to run {program}: {source}")]
    Run { program: PathBuf, source: io::Error },
    #[error("failed to {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("failed to keep node {node} running, its log ends with:\n{log}")]
    NodeDied { node: String, log: String },
    #[error("failed to import the images of node {node} within {waited:.0?}, its log ends with:\n{log}")]
    ImagesLate { node: String, waited: Duration, log: String },
    #[error("failed to get {what} ready within {waited:.0?}:\n{missing}")]
    NotReady { what: String, waited: Duration, missing: String },
    #[error("failed to find images for {0}")]
    UnknownImages(String),
    #[error("failed to ask the API server for {what}: {source}")]
    Ask { what: &'static str, source: Box<kube::Error> },
    #[error("failed to apply {folder}: {message}")]
    Kustomization { folder: PathBuf, message: String },
    #[error("failed to reach the API server: the cluster is down")]
    Down,
    #[error("failed to do the blocking part of the work: {0}")]
    Join(#[from] tokio::task::JoinError),
}

impl ClusterError {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(super) fn run(program: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let program = program.to_owned();
        move |source| Self::Run { program, source }
    }

    pub(super) fn ask(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Ask { what, source: Box::new(source) }
    }
}
