//! Latency from Prometheus, which scrapes the probers.

use std::collections::BTreeMap;
use std::time::Duration;

use placement::{NodeName, PairState, PairStats};
use prometheus_http_query::Client;
use prometheus_http_query::response::{Data, PromqlResult};

use super::{LatencyError, LatencySource, Measurement};

/// The gauge that the probers serve: the median round trip in milliseconds.
const METRIC: &str = "latency_between_nodes";
/// When each of its samples was scraped.
const SCRAPED_AT: &str = "timestamp(latency_between_nodes)";

/// Prometheus' query API.
#[derive(Clone)]
pub struct PrometheusSource {
    client: Client,
}

impl PrometheusSource {
    /// Prometheus at `url`.
    ///
    /// # Errors
    /// [`LatencyError::Address`] where `url` is none.
    pub fn new(http: reqwest::Client, url: &str) -> Result<Self, LatencyError> {
        let client = Client::from(http, url).map_err(|source| LatencyError::Address { url: url.to_owned(), source })?;
        Ok(Self { client })
    }

    async fn query(&self, query: &str) -> Result<PromqlResult, LatencyError> {
        let failed = |source| LatencyError::Query { query: query.to_owned(), source };
        self.client.query(query).timeout(QUERY_TIMEOUT.as_millis().try_into().unwrap_or(i64::MAX)).get().await.map_err(failed)
    }
}

/// A query that takes longer is of no use to anyone.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

impl LatencySource for PrometheusSource {
    fn name(&self) -> &'static str {
        "Prometheus"
    }

    async fn read(&self) -> Result<Vec<Measurement>, LatencyError> {
        let (values, times) = tokio::try_join!(self.query(METRIC), self.query(SCRAPED_AT))?;
        let measurements = join(&series(values.data()), &series(times.data()));
        if measurements.is_empty() { Err(LatencyError::NoSeries) } else { Ok(measurements) }
    }
}

/// One sample of one series: labels, when it was evaluated, value.
type Series<'a> = Vec<(&'a std::collections::HashMap<String, String>, f64, f64)>;

fn series(data: &Data) -> Series<'_> {
    let vector = match data {
        Data::Vector(vector) => vector.as_slice(),
        Data::Matrix(_) | Data::Scalar(_) => &[],
    };
    vector.iter().map(|series| (series.metric(), series.sample().timestamp(), series.sample().value())).collect()
}

/// Values with the age that their timestamps show. Prometheus goes on showing a series for minutes after its last scrape, and two
/// series of one pair after a prober restarted: the newest counts.
fn join(values: &Series<'_>, times: &Series<'_>) -> Vec<Measurement> {
    let identity = |labels: &std::collections::HashMap<String, String>| -> BTreeMap<String, String> {
        labels.iter().filter(|(label, _)| *label != "__name__").map(|(label, value)| (label.clone(), value.clone())).collect()
    };
    let ages: BTreeMap<_, f64> =
        times.iter().map(|(labels, evaluated, scraped)| (identity(labels), evaluated - scraped)).collect();
    let mut newest: BTreeMap<(NodeName, NodeName), PairStats> = BTreeMap::new();
    for (labels, _, milliseconds) in values {
        let (Some(from), Some(to), Some(age)) = (labels.get("from"), labels.get("to"), ages.get(&identity(labels))) else {
            continue;
        };
        let stats = PairStats { age_seconds: age.max(0.0), ..PairStats::constant(milliseconds / 1000.0) };
        if !stats.is_credible() {
            continue;
        }
        let held = newest.entry((from.as_str().into(), to.as_str().into())).or_insert(stats);
        if stats.age_seconds < held.age_seconds {
            *held = stats;
        }
    }
    newest.into_iter().map(|((from, to), stats)| Measurement { from, to, state: PairState::Known(stats) }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn milliseconds_become_seconds_and_the_newest_series_counts() {
        let pair = |pod| labels(&[("from", "node1"), ("to", "node3"), ("pod", pod)]);
        let (old, new, odd) = (pair("a"), pair("b"), labels(&[("from", "node1")]));
        let values = vec![(&old, 1000.0, 70.0), (&new, 1000.0, 50.25), (&odd, 1000.0, 3.0)];
        let times = vec![(&old, 1000.0, 880.0), (&new, 1000.0, 997.0), (&odd, 1000.0, 999.0)];
        let joined = join(&values, &times);
        assert_eq!(joined.len(), 1);
        let stats = *joined[0].state.stats().unwrap();
        assert_eq!((stats.p50, stats.age_seconds), (0.05025, 3.0));
    }

    #[test]
    fn numbers_that_are_no_latency_are_left_out() {
        let pair = labels(&[("from", "node1"), ("to", "node3")]);
        for milliseconds in [f64::NAN, f64::INFINITY, -1.0, 1e6] {
            assert_eq!(join(&vec![(&pair, 10.0, milliseconds)], &vec![(&pair, 10.0, 9.0)]), vec![]);
        }
        assert_eq!(join(&vec![(&pair, 10.0, 5.0)], &vec![]), vec![]);
    }
}
