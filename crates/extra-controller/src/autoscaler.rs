//! How many pods: Knative's KPA formulae on demand that was sampled at the gateways. Pure.
//!
//! The count is computed once, on the demand summed over all source nodes; ceilings taken per node would inflate it. What comes on top
//! is [`locality`]: a source node whose requests lose enough time on the wire earns a replica of its own.

mod history;
pub mod locality;
mod scale;

pub use history::{DemandHistory, SourceDemand};
pub use scale::{Observed, Scale, ScaleMemory, serving_mode, within_bounds};
