//! How many pods, by the formulae of Knative's own pod autoscaler (KPA).
//!
//! Source: knative/serving `pkg/autoscaler/scaling/autoscaler.go`, `pkg/autoscaler/aggregation`.

mod history;
mod scale;
mod smoothing;

pub use history::{DemandHistory, SourceDemand};
pub use scale::{Observed, Scale, ScaleMemory, initial_burst_capacity, serving_mode, within_bounds};
