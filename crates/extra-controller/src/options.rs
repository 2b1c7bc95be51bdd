//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use latency_source::LatencyOptions;
use lease_election::PodOptions;
use ops_http::OpsOptions;
use placement::problem::CostModel;

use crate::demand::SourceKind;

/// Decides how many pods a Knative revision gets, on which nodes, and which way each node's traffic
/// goes.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about)]
pub struct Options {
    /// Where to serve weights, routes, explanations and the trace
    #[arg(long, env = "KANTAI_API_LISTEN", default_value = "[::]:18080")]
    pub api_listen: SocketAddr,
    /// Where operators look
    #[command(flatten)]
    pub ops: OpsOptions,
    /// Namespace that Knative Serving runs in, where config-autoscaler is
    #[arg(long, env = "KANTAI_KNATIVE_NAMESPACE", default_value = "knative-serving")]
    pub knative_namespace: String,
    /// Namespace of the gateway pods
    #[arg(long, env = "KANTAI_GATEWAY_NAMESPACE", default_value = "kantai-system")]
    pub gateway_namespace: String,
    /// Label of the gateway pods; for Kourier app=3scale-kourier-gateway
    #[arg(long, env = "KANTAI_GATEWAY_SELECTOR", default_value = "app.kubernetes.io/name=kantai-gateway", value_parser = label)]
    pub gateway_selector: Label,
    /// Port of a gateway's statistics
    #[arg(long, env = "KANTAI_GATEWAY_STATS_PORT", default_value_t = 9000)]
    pub gateway_stats_port: u16,
    /// How gateways choose a pod: local-first (by our routes), or uniform (evenly, as Kourier does)
    #[arg(long, env = "KANTAI_COST_MODEL", default_value = "local-first", value_parser = cost_model)]
    pub cost_model: CostModel,
    /// Where demand is read from
    #[arg(long, env = "KANTAI_DEMAND_SOURCE", value_enum, default_value_t)]
    pub demand_source: SourceKind,
    /// Label of the pods of locality-ingress, which stream the load reports of the gateways
    #[arg(long, env = "KANTAI_INGRESS_SELECTOR", default_value = "app.kubernetes.io/name=locality-ingress", value_parser = label)]
    pub ingress_selector: Label,
    /// Port that locality-ingress serves demand on
    #[arg(long, env = "KANTAI_INGRESS_PORT", default_value_t = 8080)]
    pub ingress_port: u16,
    /// Where latency is read from
    #[command(flatten)]
    pub latency: LatencyOptions,
    /// Label of the probers' pods
    #[arg(long, env = "KANTAI_PROBER_SELECTOR", default_value = "app.kubernetes.io/name=latency-probe", value_parser = label)]
    pub prober_selector: Label,
    /// Port of the probers
    #[arg(long, env = "KANTAI_PROBER_PORT", default_value_t = 9798)]
    pub prober_port: u16,
    /// Which pod this is
    #[command(flatten)]
    pub pod: PodOptions,
    /// Decide and explain, beside whoever leads: no object is written, no route is published
    #[arg(long, env = "KANTAI_DRY_RUN")]
    pub dry_run: bool,
    /// What to do instead of running the daemon
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does once, besides being a daemon.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Turn the switch off, wait until the daemon has handed every revision back to Knative's own
    /// autoscaler, and end
    HandBack {
        /// How long to wait, as 240s or 10m; after that it ends with an error
        #[arg(long, env = "KANTAI_HAND_BACK_TIMEOUT", default_value = "240s", value_parser = ops_http::duration)]
        timeout: Duration,
    },
}

/// A label and the value it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    pub(crate) fn pair(&self) -> (&str, &str) {
        (&self.key, &self.value)
    }
}

fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form label=value"))?;
    Ok(Label { key: key.to_owned(), value: value.to_owned() })
}

fn cost_model(text: &str) -> Result<CostModel, String> {
    match text {
        "local-first" => Ok(CostModel::LocalFirst),
        "uniform" => Ok(CostModel::Uniform),
        other => Err(format!("unknown cost model {other:?}: local-first or uniform")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn options_have_working_defaults_and_refuse_nonsense() {
        let options = Options::try_parse_from(["extra-controller"]).unwrap();
        assert_eq!(options.gateway_selector.pair(), ("app.kubernetes.io/name", "kantai-gateway"));
        assert_eq!((options.api_listen.port(), options.cost_model), (18080, CostModel::LocalFirst));
        assert!(Options::try_parse_from(["extra-controller", "--cost-model", "fastest"]).is_err());
        assert!(Options::try_parse_from(["extra-controller", "--gateway-selector", "gateway"]).is_err());
    }
}
