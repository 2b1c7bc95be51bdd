//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use latency_source::LatencyOptions;
use ops_http::OpsOptions;

/// Scores nodes for kube-scheduler by measured round trips, for pods that opt in.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about)]
pub struct Options {
    /// Where the scheduler asks: POST to any path that ends in /prioritize, /filter or /preempt
    #[arg(long, env = "KANTAI_EXTENDER_LISTEN", default_value = "[::]:8888")]
    pub extender_listen: SocketAddr,
    /// Where operators look; /v1/explain/NAMESPACE/POD says why nodes got their scores
    #[command(flatten)]
    pub ops: OpsOptions,
    /// Refuse nodes that are known to be farther than a pod allows, where the scheduler's
    /// configuration has filterVerb and preemptVerb; otherwise all nodes pass
    #[arg(long, env = "KANTAI_FILTER")]
    pub filter: bool,
    /// What a request takes apart from the network where a pod does not say, such as 5ms: the
    /// longer, the less do small differences of round trips count
    #[arg(long, env = "KANTAI_SERVING_TIME", default_value = "5ms", value_parser = ops_http::duration)]
    pub serving_time: Duration,
    /// Whether each pod that opts in gets an event with the scores of its nodes: true or false
    #[arg(long, env = "KANTAI_SCORE_EVENTS", default_value_t = true, action = clap::ArgAction::Set)]
    pub score_events: bool,
    /// Where latency is read from
    #[command(flatten)]
    pub latency: LatencyOptions,
    /// Label of the probers' pods, which are in this pod's namespace
    #[arg(long, env = "KANTAI_PROBER_SELECTOR", default_value = "app.kubernetes.io/name=latency-probe")]
    pub prober_selector: String,
    /// Port of the probers
    #[arg(long, env = "KANTAI_PROBER_PORT", default_value_t = 9798)]
    pub prober_port: u16,
    /// Namespace of this pod
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    pub pod_namespace: String,
    /// Name of this pod, which events about it are written on
    #[arg(long, env = "POD_NAME", default_value = "scheduler-extender")]
    pub pod_name: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn options_have_working_defaults_and_refuse_nonsense() {
        let options = Options::try_parse_from(["scheduler-extender"]).unwrap();
        assert_eq!((options.extender_listen.port(), options.filter, options.score_events), (8888, false, true));
        assert!(!Options::try_parse_from(["scheduler-extender", "--score-events=false"]).unwrap().score_events);
        assert!(Options::try_parse_from(["scheduler-extender", "--serving-time", "5"]).is_err());
    }
}
