//! What a run of faults leaves behind: `report.json`, and a line per figure.

use std::path::Path;

use serde::Serialize;

use super::catalog::Fault;
use super::standing::Change;
use crate::report::ReportError;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether every figure is as it should be, and every fault was made.
    pub ok: bool,
    /// Whether faults lasted for a shorter time than usual.
    pub brief: bool,
    /// The nodes that sent requests.
    pub loaded_nodes: Vec<String>,
    /// How many each of them sent in a second.
    pub requests_per_second_and_node: f64,
    /// How many pods the service always has.
    pub pods: usize,
    /// How long all of it took.
    pub seconds: f64,
    /// Component to version.
    pub components: std::collections::BTreeMap<String, String>,
    /// What the faults did, in the order in which they were made.
    pub faults: Vec<FaultReport>,
    /// Everything that is judged.
    pub figures: Vec<Figure>,
}

/// What one fault did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// Its name.
    pub name: String,
    /// What happened, in a line.
    pub what: String,
    /// The node that it concerned, where it concerned one.
    pub node: Option<String>,
    /// When it began.
    pub began_at_unix_seconds: f64,
    /// When it was undone, after its beginning.
    pub undone_after_seconds: f64,
    /// When it was seen to be there, after its beginning.
    pub there_after_seconds: Option<f64>,
    /// When the cluster was whole again, after it was undone.
    pub whole_after_seconds: Option<f64>,
    /// What was still missing at the end of the wait.
    pub missing: Vec<String>,
    /// Requests sent from the beginning until the cluster was whole again.
    pub sent: usize,
    /// Those of them that failed.
    pub failed: usize,
    /// The first of them, and how often each kind occurred.
    pub failures: Vec<FailureKind>,
    /// Pods that began to stand or ceased to.
    pub changes: Vec<Change>,
    /// Pods that were taken away before others stood in their place.
    pub taken_too_early: Vec<String>,
    /// Containers that were started again.
    pub restarts: i32,
    /// When as many pods as wanted stood on other nodes than a drained one, after the beginning.
    pub elsewhere_after_seconds: Option<f64>,
}

/// Requests that failed alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureKind {
    /// The node they were sent from.
    pub from_node: String,
    /// How.
    pub how: String,
    /// How many.
    pub count: usize,
    /// When the first was sent, after the fault's beginning.
    pub first_after_seconds: f64,
    /// When the last was.
    pub last_after_seconds: f64,
}

/// What is judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub id: String,
    /// What was seen; nothing where it was waited for in vain.
    pub value: Option<f64>,
    /// Of what.
    pub unit: &'static str,
    /// What it should be.
    pub goal: Goal,
    /// Whether it is.
    pub ok: bool,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// So much or less.
    AtMost(f64),
    /// So much or more.
    AtLeast(f64),
}

impl Figure {
    fn new(id: String, value: Option<f64>, unit: &'static str, goal: Goal) -> Self {
        let ok = value.is_some_and(|value| match goal {
            Goal::AtMost(most) => value <= most,
            Goal::AtLeast(least) => value >= least,
        });
        Self { id, value, unit, goal, ok }
    }

    /// Name, value, unit, goal and verdict, with tabs between them.
    #[must_use]
    pub fn line(&self) -> String {
        let number = |value: f64| if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") };
        let value = self.value.map_or("-".to_owned(), number);
        let goal = match self.goal {
            Goal::AtMost(0.0) => "0".to_owned(),
            Goal::AtMost(most) => format!("<= {}", number(most)),
            Goal::AtLeast(least) => format!(">= {}", number(least)),
        };
        format!("{}\t{value}\t{}\t{goal}\t{}", self.id, self.unit, if self.ok { "ok" } else { "short" })
    }
}

/// How long it may take until a drained node's pods are elsewhere.
const ELSEWHERE_WITHIN_SECONDS: f64 = 10.0;

/// A share of the requests that ought to be sent. Fewer would show that there was no load.
const SENT_SHARE: f64 = 0.95;

/// The figures of one fault. `per_second` is how many requests all nodes send.
pub(super) fn figures(fault: Fault, seen: &FaultReport, per_second: f64, within_seconds: f64) -> Vec<Figure> {
    let name = fault.name().replace('-', "_");
    let id = |what: &str| format!("{name}_{what}");
    let lasted = seen.undone_after_seconds;
    let flowed = lasted + seen.whole_after_seconds.unwrap_or(0.0);
    let mut figures = vec![
        Figure::new(id("failed"), Some(count(seen.failed)), "requests", Goal::AtMost(0.0)),
        Figure::new(id("sent"), Some(count(seen.sent)), "requests", Goal::AtLeast((flowed * per_second * SENT_SHARE).floor())),
        Figure::new(id("taken_too_early"), Some(count(seen.taken_too_early.len())), "pods", Goal::AtMost(0.0)),
        Figure::new(id("restarts"), Some(f64::from(seen.restarts)), "containers", Goal::AtMost(0.0)),
        Figure::new(id("there_s"), seen.there_after_seconds, "s", Goal::AtMost(lasted)),
        Figure::new(id("whole_s"), seen.whole_after_seconds, "s", Goal::AtMost(within_seconds)),
    ];
    if fault == Fault::Drain {
        let within = Goal::AtMost(ELSEWHERE_WITHIN_SECONDS);
        figures.push(Figure::new(id("elsewhere_s"), seen.elsewhere_after_seconds, "s", within));
    }
    if fault == Fault::CutAll {
        figures.push(Figure::new("partition_failed".to_owned(), Some(count(seen.failed)), "requests", Goal::AtMost(0.0)));
    }
    figures
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

impl Report {
    /// Writes it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, file: &Path) -> Result<(), ReportError> {
        let failed = |source| ReportError { path: file.to_owned(), source };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(file, text).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> FaultReport {
        FaultReport {
            name: "drain".to_owned(),
            what: String::new(),
            node: None,
            began_at_unix_seconds: 100.0,
            undone_after_seconds: 60.0,
            there_after_seconds: Some(1.5),
            whole_after_seconds: Some(20.0),
            missing: Vec::new(),
            sent: 12_000,
            failed: 0,
            failures: Vec::new(),
            changes: Vec::new(),
            taken_too_early: Vec::new(),
            restarts: 0,
            elsewhere_after_seconds: Some(3.25),
        }
    }

    fn short(fault: Fault, seen: &FaultReport) -> Vec<String> {
        figures(fault, seen, 150.0, 180.0).into_iter().filter(|figure| !figure.ok).map(|figure| figure.id).collect()
    }

    #[test]
    fn a_fault_that_did_nothing_is_ok_and_each_mistake_makes_its_figure_short() {
        assert_eq!(short(Fault::Drain, &seen()), [""; 0]);
        assert_eq!(short(Fault::CutAll, &FaultReport { failed: 1, ..seen() }), ["cut_all_failed", "partition_failed"]);
        assert_eq!(short(Fault::CutOne, &FaultReport { sent: 9_000, ..seen() }), ["cut_one_sent"]);
        let early = FaultReport { taken_too_early: vec!["a".to_owned()], restarts: 1, ..seen() };
        assert_eq!(short(Fault::LabelOff, &early), ["label_off_taken_too_early", "label_off_restarts"]);
        let never = FaultReport { there_after_seconds: None, whole_after_seconds: None, ..seen() };
        assert_eq!(short(Fault::ProbeFirewall, &never), ["probe_firewall_there_s", "probe_firewall_whole_s"]);
        let late = FaultReport { elsewhere_after_seconds: Some(10.5), ..seen() };
        assert_eq!(short(Fault::Drain, &late), ["drain_elsewhere_s"]);
        assert_eq!(short(Fault::Drain, &FaultReport { elsewhere_after_seconds: None, ..seen() }), ["drain_elsewhere_s"]);
    }

    #[test]
    fn a_figure_is_one_line() {
        let lines: Vec<String> = figures(Fault::Drain, &seen(), 150.0, 180.0).iter().map(Figure::line).collect();
        assert_eq!(lines[0], "drain_failed\t0\trequests\t0\tok");
        assert_eq!(lines[1], "drain_sent\t12000\trequests\t>= 11400\tok");
        assert_eq!(lines[6], "drain_elsewhere_s\t3.2\ts\t<= 10\tok");
    }
}
