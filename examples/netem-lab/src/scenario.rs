//! Scenarios: which nodes there are, how far apart they are, which service runs on them and how it
//! is loaded.
//!
//! A scenario is a TOML file. What it may say:
//!
//! ```toml
//! name = "coast"                       # the report's folder; lower-case letters, digits and '-'
//! description = "Five nodes on a line" # optional, shown in the report
//!
//! [nodes]                              # names, or a count (node1, node2, ...; see `prefix`)
//! names = ["west", "mid", "east"]      # 1 to 8, in the order the report shows them
//! # count = 5
//! # prefix = "edge"
//!
//! [link_defaults]                      # pairs that no [[links]] names; by default no delay
//! rtt_ms = 2.0                         # there and back; each way takes half
//! jitter_ms = 0.0                      # how far a round trip strays from rtt_ms; each way half
//! loss_ratio = 0.0                     # share of packets lost, each way, 0 to 1
//!
//! [[links]]                            # any number of these; a later one wins over an earlier one
//! between = ["west", "east"]           # both directions alike
//! rtt_ms = 70.0
//! jitter_ms = 10.0
//!
//! [[links]]                            # or one direction only
//! from = "east"
//! to = "mid"
//! one_way_ms = 20.0
//! jitter_ms = 1.0                      # here: how far this one way strays
//!
//! [service]
//! name = "greeter"
//! namespace = "shop"                   # default "default"; created if it is not there
//! image = "dev.local/kantai/hello:0.1.0" # one that the lab has, or that the nodes' registry has
//! args = []                            # of the container; optional
//! env = { WAIT_MS = "0" }              # of the container, beside NODE_NAME; optional
//! class = "miporin.autoscaling.bonavadeur.io" # optional; `--class` overrides it
//! window_seconds = 12                  # Knative's stable window; 6 to 3600; optional
//! target = 10                          # requests in flight per pod to aim for; optional
//! container_concurrency = 0            # Knative's hard limit, 0 = none; optional
//!
//! [steps]                              # all optional
//! far = "east"                         # sends the cold request; default: largest mean round trip
//! near = "west"                        # second source of load; default: smallest mean round trip
//! load_path = "/?wait_ms=100"          # what the load asks for
//! in_flight = 5                        # requests that each loaded node keeps in flight
//! load_seconds = 10                    # how long each load is measured
//! settle_seconds = 90                  # how long the controller may take to move pods before that
//! ```
//!
//! Anything unknown or out of range is an error that names it and its line.

pub(crate) mod check;
pub(crate) mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::wire::LinkMatrix;

/// The scenario that runs when no file is named, as it is in the source tree.
pub const DEFAULT_SCENARIO: &str = include_str!("../scenarios/hello.toml");

/// Kantai's autoscaling class.
pub const KANTAI_CLASS: &str = "miporin.autoscaling.bonavadeur.io";

/// The stock autoscaler's class, the baseline.
pub const KPA_CLASS: &str = "kpa.autoscaling.knative.dev";

/// The most nodes that the lab makes.
pub const MAX_NODES: usize = 8;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("failed to read scenario {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or a type that no scenario has.
    #[error("failed to read scenario {origin}: {source}")]
    Syntax {
        /// File name, or what else it came from.
        origin: String,
        /// Names line, column and key.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("failed to use scenario {origin}, line {line}: {problem}")]
    Invalid {
        /// File name, or what else it came from.
        origin: String,
        /// Line in the file, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// A checked scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Names the report's folder.
    pub name: String,
    /// For people.
    pub description: String,
    /// The nodes and what lies between them.
    pub links: LinkMatrix,
    /// What runs.
    pub service: Service,
    /// How it is loaded.
    pub steps: Steps,
}

/// The Knative Service of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What its pods run.
    pub image: String,
    /// Arguments of its container.
    pub args: Vec<String>,
    /// Environment of its container.
    pub env: BTreeMap<String, String>,
    /// Autoscaling class.
    pub class: String,
    /// Stable window.
    pub window_seconds: u32,
    /// Requests in flight per pod to aim for.
    pub target: f64,
    /// Most requests in flight per pod; 0 for no limit.
    pub container_concurrency: u32,
}

/// Who sends requests, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// Sends the cold request.
    pub far: String,
    /// The second source of load; the far node again when there is only one.
    pub near: String,
    /// Path and query that load asks for.
    pub load_path: String,
    /// Requests that each loaded node keeps in flight.
    pub in_flight: u32,
    /// How long each load is measured.
    pub load_seconds: f64,
    /// How long the controller may take to move pods first.
    pub settle_seconds: f64,
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// This many nodes; only for a file that counts its nodes, or that names as many.
    pub node_count: Option<usize>,
    /// This autoscaling class.
    pub class: Option<String>,
}

impl Scenario {
    /// The scenario in `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or used.
    pub fn from_file(path: &Path, overrides: &Overrides) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        Self::from_text(&text, &path.display().to_string(), overrides)
    }

    /// The scenario in `text`; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// When the text cannot be used.
    pub fn from_text(text: &str, origin: &str, overrides: &Overrides) -> Result<Self, ScenarioError> {
        let raw: file::ScenarioTable = toml::from_str(text)
            .map_err(|source| ScenarioError::Syntax { origin: origin.to_owned(), source: Box::new(source) })?;
        check::check(raw, overrides).map_err(|problem| ScenarioError::Invalid {
            origin: origin.to_owned(),
            line: line_of(text, problem.offset),
            problem: problem.text,
        })
    }
}

pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
