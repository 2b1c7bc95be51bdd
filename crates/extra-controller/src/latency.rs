//! Latency between nodes: from Prometheus, or straight from the probers.
//!
//! [`LatencyBook`] keeps what was last read of every pair with its age, [`Feed`] decides whom to ask, and the two sources only read.

mod book;
mod feed;
mod probers;
mod prometheus;

pub use book::{LatencyBook, Measurement};
pub use feed::{Feed, FeedChange};
pub use probers::Probers;
pub use prometheus::PrometheusSource;

/// Somewhere to read latency from.
pub trait LatencySource {
    /// What to call it in logs and events.
    fn name(&self) -> &'static str;

    /// All pairs that it knows of.
    fn read(&self) -> impl Future<Output = Result<Vec<Measurement>, LatencyError>> + Send;
}

/// Why latency could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LatencyError {
    /// The address is none.
    #[error("failed to use {url} as Prometheus' address")]
    Address {
        /// What was given.
        url: String,
        /// Why not.
        source: prometheus_http_query::Error,
    },
    /// Prometheus did not answer the query.
    #[error("failed to query Prometheus for {query}")]
    Query {
        /// The query.
        query: String,
        /// What came instead.
        source: prometheus_http_query::Error,
    },
    /// It answered, and knows no pair.
    #[error("failed to find any latency_between_nodes in Prometheus")]
    NoSeries,
    /// No prober answered.
    #[error("failed to read latency from any of {probers} probers")]
    NoProber {
        /// How many there are.
        probers: usize,
        /// What the last one said, where there is one.
        source: Option<reqwest::Error>,
    },
}
