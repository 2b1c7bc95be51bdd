//! What is printed.

use std::fmt;
use std::time::Duration;

/// One figure.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Its name.
    pub(crate) id: &'static str,
    /// What was measured.
    pub(crate) value: f64,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// What it should be.
    pub(crate) goal: Goal,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// This, or less.
    AtMost(f64),
    /// This, or more.
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn reached(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.value <= most,
            Goal::AtLeast(least) => self.value >= least,
        }
    }

    /// A number of requests of which none should have failed.
    pub(crate) fn failed(id: &'static str, count: usize) -> Self {
        Self { id, value: as_f64(count), unit: "requests", goal: Goal::AtMost(0.0) }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, value, unit, goal } = self;
        let goal = match goal {
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::AtLeast(least) => format!(">= {least}"),
        };
        let verdict = if self.reached() { "ok" } else { "short" };
        write!(f, "{id}\t{value:.2}\t{unit}\t{goal}\t{verdict}")
    }
}

/// The smallest of `samples` that the share `quantile` of them does not exceed, in milliseconds.
pub(crate) fn quantile_ms(samples: &[Duration], quantile: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    // Counts of samples are far below what a float holds exactly.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (as_f64(sorted.len()) * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}
