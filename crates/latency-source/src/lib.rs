//! Latency between nodes: read from Prometheus and, for nodes without new samples there, directly
//! from the probers.
//!
//! Both only read. [`Feed`] decides which to ask; [`latency_matrix::LatencyBook`] keeps the last
//! report about every pair; [`follow`] does both again and again for a daemon.

mod feed;
mod follow;
mod options;
mod probers;
mod prometheus;
mod promql;

use std::path::PathBuf;

use latency_matrix::{Measurement, NodeName};

pub use feed::{Feed, FeedChange};
pub use follow::{Latency, Reading, follow, follow_while};
pub use options::LatencyOptions;
pub use probers::Probers;
pub use prometheus::{PrometheusSource, Queries};
pub use promql::Access;

/// Somewhere to read all pairs from that it knows.
pub trait SeriesSource {
    /// What to call it in logs and events.
    fn name(&self) -> &str;

    /// All pairs that it knows of.
    fn read(&self) -> impl Future<Output = Result<Vec<Measurement>, LatencyError>> + Send;
}

/// Somewhere to ask single nodes for their row.
pub trait RowSource {
    /// Asks these nodes, as far as they can be asked, and hands on each row as it comes. An error
    /// where none of them answered.
    fn read(
        &self,
        nodes: &[NodeName],
        take: &mut (dyn FnMut(Vec<Measurement>) + Send),
    ) -> impl Future<Output = Result<(), LatencyError>> + Send;
}

/// Why latency could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LatencyError {
    /// The address is none.
    #[error("failed to use {url:?} as the address of a Prometheus")]
    Address {
        /// What was given.
        url: String,
        /// Why not.
        source: http::uri::InvalidUri,
    },
    /// A file cannot be read or has not what it should have.
    #[error("failed to read {what} from {}", path.display())]
    File {
        /// What it should have.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store did not answer a query.
    #[error("failed to query {url} for {query}")]
    Query {
        /// The store.
        url: String,
        /// The query.
        query: String,
        /// What came instead.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered, and knows no pair.
    #[error("failed to find the latency of any pair in {url}")]
    NoSeries {
        /// The store.
        url: String,
    },
    /// A prober's row could not be read.
    #[error("failed to read the row of the prober on {node}")]
    Row {
        /// The node.
        node: NodeName,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No prober answered.
    #[error("failed to read latency from any of {probers} probers")]
    NoProber {
        /// How many were asked.
        probers: usize,
        /// What one of them said, where there is one.
        source: Option<Box<LatencyError>>,
    },
}
