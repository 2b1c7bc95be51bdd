//! Runs a scenario on a running cluster, step by step, and finds out whether each step shows what
//! it should.
//!
//! Every step has a deadline; one that does not hold says what was expected and what was seen, and
//! the run goes on where going on makes sense, so that a report shows all there is to see. The
//! steps, in order:
//!
//! 1. the cluster is up (whichever command started it);
//! 2. the wire is laid, and what the probers measure is what the scenario injects;
//! 3. the service is applied and Ready;
//! 4. its bootstrap pod is handed over to the Seika (Kantai's class);
//! 5. it is scaled to zero;
//! 6. a request from inside the far node, by name, wakes it up and, with Kantai's class, is
//!    answered on that node;
//! 7. `kubectl` shows the objects, the Seika with one ready pod on the far node (Kantai's class);
//! 8. load from the near node moves its pods there; once it has, it is measured;
//! 9. load from both nodes: each is answered on its own node;
//! 10. the toggle off: the revision is handed back to the stock autoscaler; 11. and on again
//!     (Kantai's class);
//! 12. the service is deleted and nothing of it is left.
//!
//! For another class the same steps run; what only Kantai promises is recorded, not demanded, and
//! steps about things that only Kantai has are listed as not applicable. Load flows without a break
//! from step 8 on: every answer on the way counts, also while pods move.

pub(crate) mod check;
mod diagnostics;
pub(crate) mod flow;
mod footprint;
mod journal;
pub(crate) mod latency;
mod lay;
mod objects;
pub(crate) mod pods;
mod service;
mod stage;
mod steps;

use std::path::{Path, PathBuf};

pub(crate) use journal::unix_seconds;
pub use lay::lay_wire;
pub use stage::{ClusterUp, Stage};
pub use steps::run_scenario;

use crate::scenario::{KPA_CLASS, Scenario};

/// Why a scenario could not be run at all. A step that does not hold is no such error: it is in the
/// report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The wire could not be laid.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// A program could not be started.
    #[error("failed to start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cluster is not what the scenario asks for.
    #[error("failed to run scenario {scenario}: {problem}")]
    Mismatch {
        /// The scenario's name.
        scenario: String,
        /// What is missing.
        problem: String,
    },
    /// The report could not be written.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// The state folder does not take what has to be removed later.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every step held and no request failed.
    pub ok: bool,
    /// The page that shows it.
    pub page: PathBuf,
}

/// The folder of a scenario's report below `out`: another class than Kantai's is told by its first
/// part, as in `hello-kpa`.
#[must_use]
pub fn report_folder(out: &Path, scenario: &Scenario) -> PathBuf {
    let class = &scenario.service.class;
    if class == crate::scenario::KANTAI_CLASS {
        return out.join(&scenario.name);
    }
    out.join(format!("{}-{}", scenario.name, class.split('.').next().unwrap_or(class)))
}

/// Where a run that did not hold leaves pods, events, objects and logs.
#[must_use]
pub fn diagnostics_folder(report_folder: &Path) -> PathBuf {
    report_folder.join("diagnostics")
}

/// The class that a short name on the command line stands for; anything else is a class itself.
#[must_use]
pub fn class_of(short: &str) -> String {
    match short {
        "kpa" => KPA_CLASS.to_owned(),
        "kantai" => crate::scenario::KANTAI_CLASS.to_owned(),
        class => class.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{DEFAULT_SCENARIO, Overrides};

    #[test]
    fn reports_of_classes_lie_side_by_side() {
        let of = |class: Option<&str>| {
            let overrides = Overrides { node_count: None, class: class.map(class_of) };
            let scenario = Scenario::from_text(DEFAULT_SCENARIO, "built in", &overrides).unwrap();
            report_folder(Path::new("lab"), &scenario)
        };
        let plain = of(None);
        assert_eq!(of(Some("kantai")), plain);
        assert_eq!(of(Some("kpa")), PathBuf::from(format!("{}-kpa", plain.display())));
    }
}
