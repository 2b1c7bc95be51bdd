//! What a scenario runs on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kube::Client;

use super::RunError;
use crate::cluster::{Cluster, NodeHandle};

/// How the cluster came up: the first step of every run.
#[derive(Debug, Clone, Copy)]
pub struct ClusterUp {
    /// When it began.
    pub began_at_unix_seconds: f64,
    /// How long it took.
    pub seconds: f64,
}

/// A running cluster, and what is needed to work with it.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The cluster.
    pub cluster: &'a mut Cluster,
    /// `kubectl`.
    pub kubectl: PathBuf,
    /// This program.
    pub lab_binary: PathBuf,
    /// Component to version, for the report.
    pub components: BTreeMap<String, String>,
    /// How the cluster came up.
    pub up: ClusterUp,
    /// Where the report goes.
    pub folder: PathBuf,
}

impl Stage<'_> {
    pub(super) fn client(&self, scenario: &str) -> Result<Client, RunError> {
        self.cluster
            .client()
            .ok_or_else(|| RunError::Mismatch { scenario: scenario.to_owned(), problem: "the cluster is down".to_owned() })
    }

    pub(super) fn node(&self, scenario: &str, name: &str) -> Result<&NodeHandle, RunError> {
        self.cluster.node(name).ok_or_else(|| RunError::Mismatch {
            scenario: scenario.to_owned(),
            problem: format!("the cluster has no node {name}"),
        })
    }

    /// What the control groups of everything in the lab begin with.
    pub(super) fn cgroup(&self) -> String {
        let helpers = self.cluster.helpers_cgroup();
        helpers.rsplit_once('/').map_or(helpers.clone(), |(lab, _)| lab.to_owned())
    }
}
