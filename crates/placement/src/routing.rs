//! Which way requests go: integer weights per source node, and the exact routing behind them.

mod apportion;
mod factored;
mod row;
mod weights;

pub use crate::solver::flow::{Routing, Server, UNSERVED_SECONDS, route};
pub use apportion::apportion;
pub use factored::FactoredWeights;
pub use row::assigned_row;
pub use weights::{WeightError, WeightMatrix};
