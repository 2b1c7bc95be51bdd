//! The one program that decides: how many pods a Knative revision gets, on which nodes, and which
//! way each node's requests go.
//!
//! ```text
//! objects, latency, demand -> gather -> Picture -> decide -> Decisions -> apply, report
//! ```
//!
//! It is the reconciler of the PodAutoscaler class [`k8s_api::CLASS`]. Stock Knative makes a
//! PodAutoscaler per revision and leaves those of a foreign class alone; this program answers with
//! what a revision needs to be ready, and with pods on the nodes where requests enter. Everything
//! that decides is in the crate `autoscaler`; here is what reads and writes.

mod activator;
mod api;
mod apply;
mod cold_start;
mod demand;
mod explain;
mod gather;
mod hand_back;
mod leader_label;
mod metrics;
mod objects;
mod options;
pub mod pins;
mod report;
mod routes;
mod run;
mod service_monitor;
#[cfg(test)]
mod testing;
mod tick;
mod trace;

pub use activator::ActivatorProber;
pub use hand_back::{HandBackError, hand_back};
pub use leader_label::LEADS;
pub use options::{Command, Options};
pub use run::{run, run_with};
