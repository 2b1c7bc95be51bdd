//! Checks of what is under `deploy/`.
//!
//! - [`objects`]: manifests as data, and what tells two sets of them from each other.
//! - [`values`]: the chart's values, their reference and their schema.
//! - [`alerts`]: which metrics alert rules read.
//! - [`images`]: how images are named.
//! - [`tools`]: Helm, kubectl and promtool.
//!
//! Unit tests need no tool. The tests under `tests/` render the chart and run the rules.

pub mod alerts;
pub mod images;
pub mod objects;
pub mod tools;
pub mod values;
