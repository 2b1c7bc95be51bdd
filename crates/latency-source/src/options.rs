//! Where latency is read from: flags.

use std::path::PathBuf;
use std::time::Duration;

use latency_matrix::series::PairLabels;

use crate::{Access, LatencyError, PrometheusSource, Queries};

/// Where latency is read from
#[derive(Clone, Debug, clap::Args)]
pub struct LatencyOptions {
    /// Prometheus, or a store that answers its queries, that scrapes the probers; several separated
    /// by commas, of whose answers the newest per pair counts. Without it the probers are asked
    /// themselves
    #[arg(long, env = "KANTAI_PROMETHEUS_URL", value_delimiter = ',')]
    pub prometheus_url: Vec<String>,
    /// PEM file of the authorities that Prometheus' certificate is checked against, in place of the
    /// system's
    #[arg(long, env = "KANTAI_PROMETHEUS_CA_FILE")]
    pub prometheus_ca_file: Option<PathBuf>,
    /// File of the bearer token for Prometheus, read for every query
    #[arg(long, env = "KANTAI_PROMETHEUS_TOKEN_FILE")]
    pub prometheus_token_file: Option<PathBuf>,
    /// Tenant, sent as X-Scope-OrgID (Mimir, Cortex, Thanos)
    #[arg(long, env = "KANTAI_PROMETHEUS_TENANT")]
    pub prometheus_tenant: Option<String>,
    /// How long what Prometheus last said about a node holds before its prober is asked, such as
    /// 30s
    #[arg(long, env = "KANTAI_PROMETHEUS_PATIENCE", default_value = "30s", value_parser = ops_http::duration)]
    pub prometheus_patience: Duration,
    /// PromQL of round-trip times between nodes, one series per pair, in place of the probers'
    /// metrics; for example
    /// cilium_node_health_connectivity_latency_seconds{type="node",protocol="icmp"}
    #[arg(long, env = "KANTAI_LATENCY_QUERY")]
    pub latency_query: Option<String>,
    /// Label of the probing node
    #[arg(long, env = "KANTAI_LATENCY_FROM_LABEL", default_value = "from")]
    pub latency_from_label: String,
    /// Label of the probed node
    #[arg(long, env = "KANTAI_LATENCY_TO_LABEL", default_value = "to")]
    pub latency_to_label: String,
    /// Unit of the query's values: s, ms, us or ns
    #[arg(long, env = "KANTAI_LATENCY_UNIT", default_value = "s", value_parser = unit)]
    pub latency_unit: Unit,
    /// How often latency is read, such as 5s
    #[arg(long, env = "KANTAI_LATENCY_INTERVAL", default_value = "5s", value_parser = ops_http::duration)]
    pub latency_interval: Duration,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// Its length in seconds.
    pub seconds: f64,
}

fn unit(text: &str) -> Result<Unit, String> {
    let seconds = match text {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "ns" => 1e-9,
        other => return Err(format!("unknown unit {other:?}: s, ms, us or ns")),
    };
    Ok(Unit { seconds })
}

impl LatencyOptions {
    /// The stores that they name.
    ///
    /// # Errors
    /// Where an address is none.
    pub fn stores(&self) -> Result<Vec<PrometheusSource>, LatencyError> {
        let labels = PairLabels { from: self.latency_from_label.clone(), to: self.latency_to_label.clone() };
        // An empty variable is one that is not set.
        let set = |text: &&String| !text.is_empty();
        let queries = match self.latency_query.as_ref().filter(set) {
            Some(query) => Queries::Other { query: query.clone(), labels, unit_seconds: self.latency_unit.seconds },
            None => Queries::Probers(labels),
        };
        let file = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        let access = Access {
            ca_file: file(&self.prometheus_ca_file),
            token_file: file(&self.prometheus_token_file),
            tenant: self.prometheus_tenant.clone().filter(|tenant| !tenant.is_empty()),
        };
        let urls = self.prometheus_url.iter().filter(set);
        urls.map(|url| PrometheusSource::new(url, access.clone(), queries.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        latency: LatencyOptions,
    }

    fn parse(flags: &[&str]) -> Result<LatencyOptions, clap::Error> {
        Ok(Program::try_parse_from(["program"].iter().chain(flags))?.latency)
    }

    #[test]
    fn flags_have_working_defaults_and_refuse_nonsense() {
        let options = parse(&[]).unwrap();
        assert_eq!((options.prometheus_patience, options.latency_interval), (Duration::from_secs(30), Duration::from_secs(5)));
        assert_eq!(options.stores().unwrap().len(), 0);
        assert_eq!(parse(&["--prometheus-url", ""]).unwrap().stores().unwrap().len(), 0);
        let two = parse(&["--prometheus-url", "http://a:9090,https://b/select/0/prometheus/"]).unwrap();
        assert_eq!(two.stores().unwrap().len(), 2);
        assert!(parse(&["--prometheus-url", "http://a b"]).unwrap().stores().is_err());
        for nonsense in [["--latency-unit", "m"], ["--latency-interval", "0s"], ["--latency-interval", "5"]] {
            assert!(parse(&nonsense).is_err(), "{nonsense:?}");
        }
    }
}
