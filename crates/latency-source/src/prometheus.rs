//! Latency from Prometheus, or from a store that answers its queries.

use latency_matrix::Measurement;
use latency_matrix::series::{
    PROBER_QUERY, PROBER_TIMES_QUERY, PairLabels, SEED_QUERY, SEED_TIMES_QUERY, Sample, read_prober_series, read_series,
};

use crate::promql::{Access, PromqlClient, Series};
use crate::{LatencyError, SeriesSource};

/// What to ask a store for.
#[derive(Clone, Debug, PartialEq)]
pub enum Queries {
    /// The probers' series.
    Probers(PairLabels),
    /// Somebody else's round-trip times.
    Other {
        /// The query.
        query: String,
        /// Which labels name the nodes.
        labels: PairLabels,
        /// The unit of the values.
        unit_seconds: f64,
    },
}

/// One store.
#[derive(Debug)]
pub struct PrometheusSource {
    client: PromqlClient,
    queries: Queries,
}

/// The seed's metric is in milliseconds.
const MILLISECOND: f64 = 1e-3;

impl PrometheusSource {
    /// The store at `url`.
    ///
    /// # Errors
    /// [`LatencyError::Address`] where `url` is none.
    pub fn new(url: &str, access: Access, queries: Queries) -> Result<Self, LatencyError> {
        Ok(Self { client: PromqlClient::new(url, access)?, queries })
    }

    async fn read_other(
        &self,
        query: &str,
        times: &str,
        labels: &PairLabels,
        unit: f64,
    ) -> Result<Vec<Measurement>, LatencyError> {
        let (values, times) = tokio::try_join!(self.client.query(query), self.client.query(times))?;
        Ok(read_series(&samples(&values), &samples(&times), labels, unit))
    }
}

impl SeriesSource for PrometheusSource {
    fn name(&self) -> &str {
        self.client.url()
    }

    async fn read(&self) -> Result<Vec<Measurement>, LatencyError> {
        let measurements = match &self.queries {
            Queries::Probers(labels) => {
                let (series, times) = tokio::try_join!(self.client.query(PROBER_QUERY), self.client.query(PROBER_TIMES_QUERY))?;
                if times.is_empty() {
                    // Probers of an earlier release.
                    self.read_other(SEED_QUERY, SEED_TIMES_QUERY, labels, MILLISECOND).await?
                } else {
                    read_prober_series(&samples(&series), &samples(&times), labels)
                }
            }
            Queries::Other { query, labels, unit_seconds } => {
                self.read_other(query, &format!("timestamp({query})"), labels, *unit_seconds).await?
            }
        };
        if measurements.is_empty() { Err(LatencyError::NoSeries { url: self.client.url().to_owned() }) } else { Ok(measurements) }
    }
}

fn samples(series: &[Series]) -> Vec<Sample<'_>> {
    series
        .iter()
        .map(|Series { metric, value: (at, value) }| Sample { labels: metric, evaluated_at: *at, value: *value })
        .collect()
}
