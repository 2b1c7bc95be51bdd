//! What is known of the latency between nodes: the vocabulary that the probers, who measure, and
//! the planners share.
//!
//! - [`NodeName`] and [`Rtt`]: a node and a round-trip time in seconds;
//! - [`PairStats`], [`PairState`], [`Freshness`]: what is known of one ordered pair, and for how
//!   long;
//! - [`LatencyMatrix`]: the state of every ordered pair of a list of nodes;
//! - [`Row`]: one node's row as a prober serves it;
//! - [`LatencyBook`]: the last report about every pair, from whatever source;
//! - [`series`]: pairs from the time series of a store such as Prometheus.

mod book;
mod matrix;
mod node;
mod pair;
mod row;
pub mod series;

pub use book::{LatencyBook, Measurement, PairCounts};
pub use matrix::{LatencyMatrix, MatrixError};
pub use node::{EmptyNodeName, NodeName, Rtt, RttError};
pub use pair::{Freshness, PairState, PairStats, Quantile, StateKind};
pub use row::{BandwidthRow, FlowRow, PeerRow, Protocol, Row, RttSeconds};
