//! Prints the figures.

use scorecards::Report;
pub(crate) use scorecards::{Goal, note, progress};

/// Prints a figure.
pub(crate) fn line(id: &'static str, value: f64, unit: &'static str, goal: Goal) {
    Report::default().figure(id, value, unit, goal);
}

/// Prints the line of a figure that needs data which is not there.
pub(crate) fn absent(id: &str, unit: &str) {
    Report::default().absent(id, unit, "KANTAI_LATENCY_DATA names no folder of measured latencies");
}

/// Prints the line of a figure that another program measures.
pub(crate) fn elsewhere(id: &str, unit: &str, how: &str) {
    Report::default().absent(id, unit, how);
}
