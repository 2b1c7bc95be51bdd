//! Seikas on a real API server: a cluster to run them on, an unreliable way to it, and chaos. Used
//! by the tests of the seika-controller and by its scorecard.

// A panic is how a test says that something is wrong.
#![allow(clippy::unwrap_used)]

pub mod budgets;
pub mod chaos;
pub mod cluster;
pub mod faults;
pub mod keeper;
pub mod kubectl;
pub mod observer;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod silence;
