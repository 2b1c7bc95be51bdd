//! What a pair of nodes costs: measurements, a policy that turns them into seconds, and estimates
//! for pairs without a measurement.

#[cfg(feature = "completion")]
pub mod completion;
mod cost;
mod costs;
mod site_costs;
pub mod synthetic;

pub use cost::{CostMatrix, CostPolicy, Statistic};
pub(crate) use costs::Columns;
pub use costs::Costs;
pub use latency_matrix::{Freshness, LatencyMatrix, MatrixError, NodeName, PairState, PairStats, Quantile, Rtt, RttError};
pub use site_costs::SiteCosts;
pub(crate) use site_costs::join;
