//! An HTTP extender of stock kube-scheduler: pods that opt in prefer the nodes that are nearest, by
//! measured round trips, to the Services that they call and to where they are called from.
//!
//! ```text
//! scheduler: pod, node names -> wish (annotations) -> ends (endpoints, nodes) -> score -> 0 to 10
//!                                 latency -> network --^
//! ```
//!
//! A pod that did not opt in gets an empty answer, which counts as the same score for every node.
//! Nothing that goes wrong here keeps a pod from being scheduled.

mod configuration;
mod explain;
pub mod measuring;
mod metrics;
mod network;
mod options;
mod report;
mod run;
mod score;
mod server;
mod services;
mod verbs;
mod watches;
mod wire;
mod wish;

pub use options::Options;
pub use run::run;
