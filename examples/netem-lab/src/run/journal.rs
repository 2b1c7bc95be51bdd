//! The events of a run, in order, and how they are printed while they happen.

use std::fmt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::load::Outcome;
use crate::report::{RequestReport, SkippedStep, StepReport};
use local_control_plane::progress::Progress;

/// What a step wanted to see, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) expected: String,
    pub(super) seen: String,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { expected: expected.into(), seen: seen.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected: {}\nseen: {}", self.expected, self.seen)
    }
}

/// An API server that does not answer is what was seen, whatever was expected.
impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::new("an answer of the API server", error.to_string())
    }
}

/// A step that held: what was seen. One that did not: why.
pub(super) type StepResult = Result<String, Failure>;

/// From a moment on, requests belong to a part of a step.
#[derive(Debug)]
struct Mark {
    from_unix_seconds: f64,
    name: String,
}

/// A step under way.
#[derive(Debug)]
pub(super) struct Open {
    name: String,
    began: Instant,
    began_at_unix_seconds: f64,
}

#[derive(Debug)]
pub(super) struct Journal {
    progress: Progress,
    began: Instant,
    pub(super) steps: Vec<StepReport>,
    pub(super) skipped: Vec<SkippedStep>,
    marks: Vec<Mark>,
}

impl Journal {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, began: Instant::now(), steps: Vec::new(), skipped: Vec::new(), marks: Vec::new() }
    }

    /// A step that is over already.
    pub(super) fn done_before(&mut self, name: &str, began_at_unix_seconds: f64, seconds: f64, detail: String) {
        let step = StepReport { name: name.to_owned(), ok: true, seconds, began_at_unix_seconds, detail };
        self.tell(&step);
        self.steps.push(step);
    }

    pub(super) fn begin(&mut self, name: &str) -> Open {
        self.mark(name);
        self.progress.line(format!("[{:6.1} s] {name} ...", self.began.elapsed().as_secs_f64()));
        Open { name: name.to_owned(), began: Instant::now(), began_at_unix_seconds: unix_seconds() }
    }

    /// Says whether the step held.
    pub(super) fn end(&mut self, open: Open, result: StepResult) -> bool {
        let (ok, detail) = match result {
            Ok(seen) => (true, seen),
            Err(failure) => (false, failure.to_string()),
        };
        let step = StepReport {
            name: open.name,
            ok,
            seconds: open.began.elapsed().as_secs_f64(),
            began_at_unix_seconds: open.began_at_unix_seconds,
            detail,
        };
        self.tell(&step);
        self.steps.push(step);
        ok
    }

    pub(super) fn not_applicable(&mut self, name: &str, reason: &str) {
        self.progress.line(format!("       n/a  {name}: {reason}"));
        self.skipped.push(SkippedStep { name: name.to_owned(), reason: reason.to_owned() });
    }

    /// Requests from now on belong to this.
    pub(super) fn mark(&mut self, name: &str) {
        self.marks.push(Mark { from_unix_seconds: unix_seconds(), name: name.to_owned() });
    }

    /// The requests of all steps, by the time at which they were meant to be sent.
    pub(super) fn requests(&self, outcomes: Vec<Outcome>) -> Vec<RequestReport> {
        let mut outcomes = outcomes;
        outcomes.sort_by(|a, b| a.at_unix_seconds.total_cmp(&b.at_unix_seconds));
        outcomes
            .into_iter()
            .map(|outcome| RequestReport {
                step: step_at(&self.marks, outcome.at_unix_seconds).to_owned(),
                from_node: outcome.from_node,
                status: outcome.status,
                served_by_node: outcome.served_by_node,
                seconds: outcome.seconds,
                at_unix_seconds: outcome.at_unix_seconds,
                error: outcome.error,
            })
            .collect()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn note(&self, text: impl fmt::Display) {
        self.progress.line(format!("            {text}"));
    }

    fn tell(&self, step: &StepReport) {
        let verdict = if step.ok { "ok    " } else { "FAILED" };
        let detail = step.detail.replace('\n', "\n            ");
        self.progress.line(format!("  {verdict}    {} ({:.1} s)\n            {detail}", step.name, step.seconds));
    }
}

fn step_at(marks: &[Mark], unix_seconds: f64) -> &str {
    marks.iter().rev().find(|mark| mark.from_unix_seconds <= unix_seconds).or(marks.first()).map_or("", |mark| &mark.name)
}

pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_belongs_to_the_step_in_which_it_was_meant_to_be_sent() {
        let mark = |from_unix_seconds, name: &str| Mark { from_unix_seconds, name: name.to_owned() };
        let marks = [mark(10.0, "first"), mark(20.0, "second")];
        assert_eq!(step_at(&marks, 9.0), "first");
        assert_eq!(step_at(&marks, 19.9), "first");
        assert_eq!(step_at(&marks, 20.0), "second");
        assert_eq!(step_at(&[], 20.0), "");
    }
}
