//! Experiments: what the originals claimed, measured side by side with what users have today.
//! `cargo lab -- experiment NAME`.
//!
//! An experiment is a TOML file: nodes and links as in a scenario, a service, and what is done with
//! it. The same is done in every *column*: with Kantai, with stock Knative, and with a Deployment,
//! an HPA and a Service that prefers the same node; on one cluster, one after the other, several
//! times, beginning with another column each time. What it may say, beside `[nodes]`,
//! `[link_defaults]` and `[[links]]` of [scenarios](crate::scenario):
//!
//! ```toml
//! name = "coast"                  # the report's folder: experiment-coast
//! title = "..."                   # one line
//! reproduces = "..."              # which claim
//! differs = "..."                 # what is not as it was there
//! columns = ["ours", "stock", "rival"]  # also "warm"; default: these three
//! repeat = 3                      # how often all columns are run
//!
//! [service]                       # all optional
//! wait_ms = 5                     # a request takes so long without a processor
//! busy_ms = 0                     # and so long with one
//! works_on = 0                    # requests that a pod works on at a time; 0: no limit
//! target = 10                     # requests in flight per pod that autoscalers aim for
//! container_concurrency = 0       # Knative's hard limit; 0: none
//! min_pods = 0
//! max_pods = 0                    # 0: no limit
//! window_seconds = 12             # Knative's stable window
//!
//! [[phases]]                      # one after the other, without a break
//! name = "rush"
//! seconds = 60
//! from_zero = false               # waits until there is no pod before it begins
//! load = [{ from = "east", per_second = 30, timeout_seconds = 30, connections = "keep-alive" }]
//! cut_off = "east"                # meanwhile this node loses the control plane; optional
//! link_down = ["east", "west"]    # meanwhile nothing passes between these; optional
//!
//! [starts]                        # instead of phases: single requests to services at zero
//! services = 8                    # woken one after the other
//! rounds = 2                      # so often
//! from = ["east"]                 # in turn
//! pause_seconds = 3               # between an answer and the next request
//!
//! [[goals]]                       # any number
//! name = "east_p95_ms"
//! measure = "p95_ms"              # see [`Measure`]
//! column = "ours"
//! phase = "rush"                  # optional; of starts: "start"
//! from = "east"                   # optional
//! over = "stock"                  # as a multiple of that column's; optional
//! at_most = 10                    # or at_least
//! ```
//!
//! Anything unknown or out of range is an error that names it and its line.

mod check;
mod column;
mod compare;
mod conduct;
mod countdown;
mod file;
mod goal;
mod machine;
mod measure;
mod page;
mod report;
mod site;

use std::path::{Path, PathBuf};

pub use column::Column;
pub use compare::compare;
pub use conduct::{Settings, run};
pub use countdown::Countdown;
pub use goal::{Bound, Figure, Goal, Measure};
pub use measure::{PodLife, Row, Sample, Share, Stretch};
pub use report::{Machine, Report, index_page};

use crate::load::Connections;
use crate::scenario::line_of;
use crate::wire::LinkMatrix;

/// What single requests to services at zero are called among phases.
const START_PHASE: &str = "start";

/// Why an experiment could not be used or run. A goal that is not reached is no such error.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A file cannot be read or written.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or a type that no experiment has.
    #[error("failed to read experiment {origin}: {source}")]
    Syntax {
        /// The file's name.
        origin: String,
        /// Names line, column and key.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("failed to use experiment {origin}, line {line}: {problem}")]
    Invalid {
        /// The file's name.
        origin: String,
        /// Line in the file, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The cluster is down, or lacks a node.
    #[error("failed to run experiment {experiment}: {problem}")]
    Cluster {
        /// Its name.
        experiment: String,
        /// What is missing.
        problem: String,
    },
    /// The API server refused something.
    #[error("failed to {what}")]
    Api {
        /// What was asked of it.
        what: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// Something did not come in time.
    #[error("failed to see {what} within {seconds} s; instead: {instead}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen last.
        instead: String,
    },
    /// Requests could not be sent.
    #[error("failed to send requests from node {node}")]
    Load {
        /// The node.
        node: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The wire does not do as told.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// A node could not be cut off.
    #[error(transparent)]
    Fault(#[from] crate::faults::FaultError),
}

/// A checked experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Names the report's folder.
    pub name: String,
    /// One line.
    pub title: String,
    /// Which claim it repeats.
    pub reproduces: String,
    /// What is not as it was there.
    pub differs: String,
    /// The nodes and what lies between them.
    pub links: LinkMatrix,
    /// What is compared.
    pub columns: Vec<Column>,
    /// How often all columns are run.
    pub repeat: u32,
    /// What runs.
    pub service: Service,
    /// What is done with it.
    pub work: Work,
    /// What is to be seen.
    pub goals: Vec<Goal>,
}

/// The service of every column.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// How long a request takes without a processor.
    pub wait_ms: f64,
    /// How long it takes with one.
    pub busy_ms: f64,
    /// How many requests a pod works on at a time; 0 for no limit.
    pub works_on: u32,
    /// Requests in flight per pod that autoscalers aim for.
    pub target: f64,
    /// Knative's hard limit; 0 for none.
    pub container_concurrency: u32,
    /// The least number of pods.
    pub min_pods: u32,
    /// The largest; 0 for no limit.
    pub max_pods: u32,
    /// Knative's stable window.
    pub window_seconds: u32,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            wait_ms: 0.0,
            busy_ms: 0.0,
            works_on: 0,
            target: 10.0,
            container_concurrency: 0,
            min_pods: 0,
            max_pods: 0,
            window_seconds: 12,
        }
    }
}

/// What is done with a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Load, in phases.
    Phases(Vec<Phase>),
    /// Single requests to services at zero.
    Starts(Starts),
}

/// A stretch of time with the same load.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// How long it is.
    pub seconds: f64,
    /// Whether there is no pod when it begins.
    pub from_zero: bool,
    /// Who sends.
    pub loads: Vec<Load>,
    /// What is amiss meanwhile.
    pub fault: Option<Fault>,
}

/// Requests from a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The node.
    pub from: String,
    /// How many in a second, whatever is still under way.
    pub per_second: Option<f64>,
    /// Else how many senders there are that wait for an answer each.
    pub at_a_time: Option<u32>,
    /// How long a request may take.
    pub timeout_seconds: f64,
    /// Whether connections are used again.
    pub connections: Connections,
}

/// What is amiss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The node and its pods reach no control plane.
    CutOff(String),
    /// Nothing passes between two nodes.
    LinkDown(String, String),
}

/// Single requests to services at zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Starts {
    /// How many services there are.
    pub services: u32,
    /// How often each is woken.
    pub rounds: u32,
    /// From where, in turn.
    pub from: Vec<String>,
    /// Between an answer and the next request.
    pub pause_seconds: f64,
}

impl Experiment {
    /// The experiment in a file.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn from_file(path: &Path) -> Result<Self, ExperimentError> {
        let text = std::fs::read_to_string(path).map_err(|source| ExperimentError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(&text, &path.display().to_string())
    }

    /// The experiment in a text; `origin` names it in errors.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn from_text(text: &str, origin: &str) -> Result<Self, ExperimentError> {
        let raw: file::ExperimentTable = toml::from_str(text)
            .map_err(|source| ExperimentError::Syntax { origin: origin.to_owned(), source: Box::new(source) })?;
        check::check(raw).map_err(|problem| ExperimentError::Invalid {
            origin: origin.to_owned(),
            line: line_of(text, problem.offset),
            problem: problem.text,
        })
    }

    /// All experiments in a folder, by name.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub fn all_in(folder: &Path) -> Result<Vec<Self>, ExperimentError> {
        let failed = |source| ExperimentError::File { action: "read", path: folder.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            }
        }
        files.sort();
        files.iter().map(|file| Self::from_file(file)).collect()
    }
}

#[cfg(test)]
mod tests;
