//! Keeps exactly N pods on each named node.
//!
//! A `Seika` maps node names to counts. What decides is pure: `plan` says which pods to create
//! and delete, `status` what to tell, `index` what is known of the pods, our own writes
//! included. What talks to the API server is thin: [`controller`] wires the watches to passes that
//! validate, gather, decide, apply and write the status.

mod announce;
mod backoff;
pub mod controller;
mod history;
mod index;
pub mod manifest;
pub mod metrics;
pub mod naming;
mod observed;
mod options;
mod ownership;
mod pace;
mod plan;
mod queue;
mod reconcile;
mod run;
mod status;
mod taints;
mod watched;
mod writes;

pub use options::{Command, ControllerOptions, Options};
pub use run::run;
