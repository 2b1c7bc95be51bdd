//! What the prober reports: metrics, the node's row of the latency matrix, and matrices of several
//! rows.

mod accept;
pub(crate) mod exposition;
pub(crate) mod fetch_row;
pub(crate) mod matrix;
pub(crate) mod row;

pub use accept::prefers_binary;
pub use exposition::RttStat;
pub use fetch_row::{FetchError, fetch_row};
pub use matrix::Matrix;
pub use row::binary;
