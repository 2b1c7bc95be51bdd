//! The one form in which the scorecards of all crates print their figures, so that one reader
//! understands them all.
//!
//! A figure is one line, with tabs between: id, value, unit, goal, verdict, and perhaps under which
//! conditions it was measured. The verdict is `ok`, `short` where the goal was missed, or `absent`
//! where the figure was not measured. Lines that start with `#` are notes.
//!
//! ```
//! use scorecards::{Figure, Goal};
//!
//! let figure = Figure { id: "plan_5k_ms", value: 8.05, unit: "ms", goal: Goal::AtMost(10.0) };
//! assert_eq!(figure.to_string(), "plan_5k_ms\t8.05\tms\t<= 10\tok");
//! ```

use std::fmt;
use std::process::ExitCode;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// One measured figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub id: &'static str,
    /// The measured value. NaN reaches no goal.
    pub value: f64,
    /// The unit of value and goal.
    pub unit: &'static str,
    /// What the value should be.
    pub goal: Goal,
}

impl Figure {
    /// A number of requests, of which none should have failed.
    #[must_use]
    pub fn failed(id: &'static str, count: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far below the integers that a double holds exactly")]
        Self { id, value: count as f64, unit: "requests", goal: Goal::AtMost(0.0) }
    }

    /// Whether the value reaches the goal.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.value <= most,
            Goal::AtLeast(least) => self.value >= least,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, value, unit, goal } = self;
        let verdict = if self.is_reached() { "ok" } else { "short" };
        write!(f, "{id}\t{}\t{unit}\t{goal}\t{verdict}", rounded(*value))
    }
}

/// Four decimals, without zeros at the end.
fn rounded(value: f64) -> String {
    let text = format!("{value:.4}");
    match text.split_once('.') {
        Some((whole, decimals)) => match decimals.trim_end_matches('0') {
            "" => whole.to_owned(),
            decimals => format!("{whole}.{decimals}"),
        },
        None => text,
    }
}

/// Prints figures as they come, and remembers whether one was short.
#[derive(Debug, Default)]
pub struct Report {
    short: bool,
}

impl Report {
    /// Prints a figure.
    pub fn print(&mut self, figure: &Figure) {
        self.short |= !figure.is_reached();
        println!("{figure}");
    }

    /// Prints a figure with the conditions that it was measured under.
    pub fn print_under(&mut self, figure: &Figure, conditions: &str) {
        self.short |= !figure.is_reached();
        println!("{figure}\t{conditions}");
    }

    /// Prints a figure of these parts.
    pub fn figure(&mut self, id: &'static str, value: f64, unit: &'static str, goal: Goal) {
        self.print(&Figure { id, value, unit, goal });
    }

    /// Prints the line of a figure that was not measured, and why.
    pub fn absent(&mut self, id: &str, unit: &str, why: &str) {
        println!("{id}\t-\t{unit}\t-\tabsent\t{why}");
    }

    /// Whether a goal was missed.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.short
    }

    /// How the scorecard's program ends: with a failure when a goal was missed.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Prints something worth knowing beside the figures.
pub fn note(text: &str) {
    println!("# {text}");
}

/// Says on standard error what is measured now.
pub fn progress(text: &str) {
    eprintln!("{text} ...");
}

/// Runs the example `example` of the package `kantai-tests`, with this program's arguments and in
/// this program's profile, and ends as it does.
///
/// A scorecard that starts a real API server or Envoy needs libraries that depend on the crate
/// which it measures. So it is an example of `kantai-tests`, and the crate's own example leads to
/// it.
#[must_use]
pub fn run_example_of_tests(example: &str) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(&cargo);
    command.args(["run", "--quiet", "--package", "kantai-tests", "--example", example]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.arg("--").args(std::env::args_os().skip(1)).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("failed to run {}: {error}", cargo.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_value_as_short_as_it_can_be_and_a_verdict() {
        for (value, goal, line) in [
            (8.0, Goal::AtMost(10.0), "x\t8\tms\t<= 10\tok"),
            (10.01, Goal::AtMost(10.0), "x\t10.01\tms\t<= 10\tshort"),
            (0.123_45, Goal::AtLeast(0.2), "x\t0.1235\tms\t>= 0.2\tshort"),
            (100.0, Goal::AtLeast(99.9), "x\t100\tms\t>= 99.9\tok"),
            (f64::NAN, Goal::AtMost(1.0), "x\tNaN\tms\t<= 1\tshort"),
            (f64::INFINITY, Goal::AtLeast(1.0), "x\tinf\tms\t>= 1\tok"),
        ] {
            assert_eq!(Figure { id: "x", value, unit: "ms", goal }.to_string(), line);
        }
    }

    #[test]
    fn a_report_remembers_that_a_goal_was_missed() {
        let mut report = Report::default();
        report.print(&Figure::failed("none", 0));
        report.absent("other", "ms", "its program is not installed");
        assert!(!report.is_short());
        report.print_under(&Figure::failed("some", 1), "while the machine was busy");
        report.figure("good", 1.0, "ms", Goal::AtMost(1.0));
        assert!(report.is_short());
    }
}
