//! How many pods, by the formulae of Knative's own pod autoscaler (KPA).
//!
//! Source: knative/serving `pkg/autoscaler/scaling/autoscaler.go`, `pkg/autoscaler/aggregation`.

mod history;
mod scale;
mod smoothing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use history::{DemandHistory, SourceDemand};
pub use scale::{Observed, Scale, ScaleMemory, initial_burst_capacity, serving_mode, within_bounds};
