//! The command line. Every flag has an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use latency_matrix::NodeName;
use ops_http::duration;

use crate::discovery::PeerSource;
use crate::discovery::chooser::SelectionInputs;
use crate::discovery::selection::SelectionLimits;
use crate::peers::Ports;
use crate::report::exposition::RttStat;
use crate::session::histogram::BucketBounds;
use crate::session::pair::{StateLimits, WindowLimits};
use crate::session::round_trip::RttSample;
use crate::session::{Method, Settings};

/// Measures round-trip times between nodes.
#[derive(Debug, Parser)]
#[command(name = "latency-probe", version, about)]
pub struct Options {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe the other nodes and answer their probes, until stopped.
    Run(Box<RunOptions>),
    /// Send some probes to peers and print a table. Exit code 1 if a peer did not answer.
    Once(OnceOptions),
    /// Read the rows of probers and print the matrix.
    Matrix(MatrixOptions),
}

/// Options of every command that probes.
#[derive(Clone, Debug, Args)]
pub struct ProbeOptions {
    /// Time between two probes of a peer.
    #[arg(long, env = "KANTAI_INTERVAL", default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// Time after which a probe counts as lost; at most 4s.
    #[arg(long, env = "KANTAI_TIMEOUT", default_value = "2s", value_parser = timeout)]
    pub timeout: Duration,

    /// Protocol to measure by: prefer-udp (for a peer whose responder is silent also ICMP, then TCP
    /// connect), udp, icmp, tcp (connect) or http (GET).
    #[arg(long, env = "KANTAI_LATENCY_FROM", default_value = "prefer-udp")]
    pub latency_from: Method,

    /// Path of HTTP probes. Responses with status 200 to 399 count as answers.
    #[arg(long, env = "KANTAI_HTTP_PATH", default_value = "/healthz", value_parser = http_path)]
    pub http_path: Arc<str>,

    /// Default port for UDP probes.
    #[arg(long, env = "KANTAI_ECHO_PORT", default_value_t = Ports::DEFAULT.echo)]
    pub echo_port: u16,

    /// Default port for TCP and HTTP probes.
    #[arg(long, env = "KANTAI_HTTP_PORT", default_value_t = Ports::DEFAULT.http)]
    pub http_port: u16,
}

impl ProbeOptions {
    /// The default ports.
    #[must_use]
    pub const fn ports(&self) -> Ports {
        Ports { echo: self.echo_port, http: self.http_port }
    }
}

/// Options of `latency-probe once`.
#[derive(Clone, Debug, Args)]
pub struct OnceOptions {
    /// How to probe.
    #[command(flatten)]
    pub probe: ProbeOptions,

    /// Addresses or names of peers, with or without a port, optionally after NODE=.
    #[arg(required = true, value_name = "PEER")]
    pub peers: Vec<String>,

    /// Number of probes to each peer.
    #[arg(long, short, env = "KANTAI_COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub count: u16,

    /// Size of ICMP packets in bytes, with their headers. They are not fragmented, so their loss
    /// shows a path that does not carry packets of this size. Needs --latency-from icmp.
    #[arg(long, env = "KANTAI_PACKET_SIZE", value_parser = clap::value_parser!(u16).range(72..=9216))]
    pub packet_size: Option<u16>,

    /// Then estimate the bandwidth to each peer: 12 trains of 64 packets of 1,280 bytes, 1 MB in
    /// all, with pauses, one peer after the other. Peers must run a prober that answers UDP; its
    /// limit (--echo-rate) must allow 640 packets a second.
    #[arg(long, env = "KANTAI_BANDWIDTH")]
    pub bandwidth: bool,

    /// File with the fleet's shared key.
    #[arg(long, env = "KANTAI_KEY_FILE")]
    pub key_file: Option<PathBuf>,

    /// Print JSON in the form of /v1/row.
    #[arg(long, env = "KANTAI_JSON")]
    pub json: bool,
}

/// Options of `latency-probe matrix`.
#[derive(Clone, Debug, Args)]
pub struct MatrixOptions {
    /// Probers to read: HOST, HOST:PORT or URL.
    #[arg(required = true, value_name = "URL")]
    pub probers: Vec<String>,

    /// Default port of probers.
    #[arg(long, env = "KANTAI_HTTP_PORT", default_value_t = 9798)]
    pub port: u16,

    /// Print the rows as JSON.
    #[arg(long, env = "KANTAI_JSON")]
    pub json: bool,

    /// Write the matrix as an SVG heat map to this file.
    #[arg(long, env = "KANTAI_SVG")]
    pub svg: Option<PathBuf>,

    /// Write the heat map as an HTML page to this file.
    #[arg(long, env = "KANTAI_HTML")]
    pub html: Option<PathBuf>,
}

/// Options of `latency-probe run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// How to probe.
    #[command(flatten)]
    pub probe: ProbeOptions,

    /// Name of the node that this prober runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: NodeName,

    /// Read peers from this file (TOML or JSON) instead of from Kubernetes. Changes take effect at
    /// once.
    #[arg(long, env = "KANTAI_PEERS_FILE")]
    pub peers_file: Option<PathBuf>,

    /// Namespace of the prober's headless Service, whose endpoints are the peers.
    #[arg(long, env = "POD_NAMESPACE", required_unless_present = "peers_file")]
    pub namespace: Option<String>,

    /// Name of that Service.
    #[arg(long, env = "KANTAI_SERVICE", default_value = "latency-probe")]
    pub service: String,

    /// Address to serve /metrics, /v1/row, /healthz and /readyz on.
    #[arg(long, env = "KANTAI_HTTP_LISTEN", default_value = "[::]:9798")]
    pub http_listen: SocketAddr,

    /// Addresses to answer the UDP probes of other nodes on.
    #[arg(long, env = "KANTAI_ECHO_LISTEN", default_value = "0.0.0.0:9799,[::]:9799", value_delimiter = ',')]
    pub echo_listen: Vec<SocketAddr>,

    /// Largest fleet in which every node probes every other one. In a larger fleet each node probes
    /// --peers others, and the interval grows with the logarithm of the fleet's size.
    #[arg(long, env = "KANTAI_ALL_UP_TO", default_value_t = 64)]
    pub all_up_to: usize,

    /// Number of other nodes that each node probes in a larger fleet, spread over the zones.
    #[arg(long, env = "KANTAI_PEERS", default_value_t = 32)]
    pub peers: usize,

    /// Time within which each of them is drawn again once.
    #[arg(long, env = "KANTAI_RENEWAL", default_value = "6h", value_parser = duration)]
    pub renewal: Duration,

    /// Number of source ports that UDP probes to each peer use in turn. Routers with several routes
    /// of equal cost choose by port, so one flow sees one route. /v1/row lists each flow.
    #[arg(long, env = "KANTAI_FLOWS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub flows: u8,

    /// File with the nodes that are always probed, one per line. It is re-read every 5 s; a missing
    /// file means none.
    #[arg(long, env = "KANTAI_PINNED_FILE")]
    pub pinned_file: Option<PathBuf>,

    /// File with the fleet's shared keys, one per line: the first signs, each is accepted. Unsigned
    /// probes are then neither answered nor accepted. It is re-read every 2 s.
    #[arg(long, env = "KANTAI_KEY_FILE")]
    pub key_file: Option<PathBuf>,

    /// Limit of answered probes per source and second; 0 = no limit.
    #[arg(long, env = "KANTAI_ECHO_RATE", default_value_t = 1_000)]
    pub echo_rate: u32,

    /// Number of newest probes per pair that statistics are computed from.
    #[arg(long, env = "KANTAI_WINDOW_SAMPLES", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub window_samples: u16,

    /// Age after which probes leave the statistics. Default: 60s, or --window-samples intervals if
    /// that is longer. At most 24 days count.
    #[arg(long, env = "KANTAI_WINDOW", value_parser = duration)]
    pub window: Option<Duration>,

    /// Number of probes lost in a row after which a peer is unreachable if a second opinion agrees,
    /// else unknown.
    #[arg(long, env = "KANTAI_UNREACHABLE_AFTER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub unreachable_after: u32,

    /// Age of the last reply after which a pair is stale. Default: ten intervals.
    #[arg(long, env = "KANTAI_STALE_AFTER", value_parser = duration)]
    pub stale_after: Option<Duration>,

    /// Statistics of each pair's RTT to export, comma-separated; each is one series per pair.
    #[arg(long, env = "KANTAI_PAIR_STATS", value_enum, value_delimiter = ',', default_value = "p50")]
    pub pair_stats: Vec<RttStat>,

    /// Export a histogram per pair (kantai_probe_pair_rtt_seconds) with these upper bounds: rising
    /// seconds, comma-separated; empty for sum and count only. Each bound is one series per pair.
    /// The histogram over all peers (kantai_probe_node_rtt_seconds) is always exported.
    #[arg(long, env = "KANTAI_PAIR_BUCKETS")]
    pub pair_buckets: Option<BucketBounds>,

    /// Log format: json or text.
    #[arg(long, env = "KANTAI_LOG_FORMAT", default_value = "json")]
    pub log_format: ops_http::LogFormat,

    /// Log in JSON, whatever --log-format says. Every command has this flag.
    #[arg(long, env = "KANTAI_JSON")]
    pub json: bool,
}

/// Period for re-reading pins and renewing draws. Changes of the fleet take effect at once.
const CHOICE_PERIOD: Duration = Duration::from_secs(5);
/// Shortest default window, for short intervals.
const SHORTEST_WINDOW: Duration = Duration::from_secs(60);

impl RunOptions {
    /// The log format.
    #[must_use]
    pub const fn log_format(&self) -> ops_http::LogFormat {
        if self.json { ops_http::LogFormat::Json } else { self.log_format }
    }

    /// The session's settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let all_samples = self.probe.interval * u32::from(self.window_samples);
        Settings {
            interval: self.probe.interval,
            timeout: self.probe.timeout,
            window: WindowLimits {
                samples: usize::from(self.window_samples),
                span: self.window.unwrap_or_else(|| all_samples.max(SHORTEST_WINDOW)),
            },
            states: StateLimits {
                unreachable_after: self.unreachable_after,
                stale_after: self.stale_after.unwrap_or_else(|| (self.probe.interval * 10).max(self.probe.timeout)),
            },
            method: self.probe.latency_from,
            pair_bounds: self.pair_buckets.clone(),
            flows: self.flows,
            packet_size: 0,
            probes_per_peer: None,
            http_path: self.probe.http_path.clone(),
        }
    }

    /// How to choose among the peers.
    #[must_use]
    pub fn choice(&self) -> SelectionInputs {
        let limits = SelectionLimits { all_up_to: self.all_up_to, peers: self.peers, renewal: self.renewal };
        SelectionInputs { own: self.node_name.clone(), limits, pinned_file: self.pinned_file.clone(), period: CHOICE_PERIOD }
    }

    /// The source of peers.
    #[must_use]
    pub fn source(&self) -> PeerSource {
        match (&self.peers_file, &self.namespace) {
            (Some(path), _) => PeerSource::File(path.clone()),
            // clap requires one of the two.
            (None, namespace) => {
                PeerSource::Service { namespace: namespace.clone().unwrap_or_default(), service: self.service.clone() }
            }
        }
    }
}

/// The path is sent in the request line as it is.
fn http_path(text: &str) -> Result<Arc<str>, String> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.into()) } else { Err("must begin with / and hold no blanks and no characters beyond ASCII".into()) }
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|timeout| if timeout > RttSample::MAX { Err("must be at most 4s".into()) } else { Ok(timeout) })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run_options(arguments: &[&str]) -> Result<RunOptions, clap::Error> {
        let given = ["latency-probe", "run", "--node-name", "a"].iter().chain(arguments);
        Options::try_parse_from(given).map(|options| match options.command {
            Command::Run(run) => *run,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_command_line_holds_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_flag_can_come_from_the_environment() {
        for command in Options::command().get_subcommands_mut() {
            command.build();
            for flag in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let from_nature = ["help", "version"].contains(&flag.get_id().as_str());
                assert!(from_nature || flag.get_env().is_some(), "--{} of {}", flag.get_id(), command.get_name());
            }
            assert!(command.get_arguments().any(|argument| argument.get_id() == "json"), "{}", command.get_name());
        }
    }

    #[test]
    fn defaults_are_as_documented() {
        let options = run_options(&["--peers-file", "peers.toml"]).unwrap();
        let settings = options.settings();
        assert_eq!((settings.window.samples, settings.window.span), (60, Duration::from_secs(60)));
        assert_eq!((settings.states.unreachable_after, settings.states.stale_after), (5, Duration::from_secs(10)));
        assert_eq!(options.echo_listen.len(), 2);
        assert!(options.pair_buckets.is_none() && options.pair_stats == [RttStat::P50]);
        let all = run_options(&["--peers-file", "p", "--pair-stats", "min,p50,p90,p99,ewma", "--pair-buckets", "0.1"]).unwrap();
        assert_eq!((all.pair_stats.len(), all.settings().pair_bounds), (5, Some("0.1".parse().unwrap())));
        let slow = run_options(&["--peers-file", "peers.toml", "--interval", "10s"]).unwrap().settings();
        assert_eq!((slow.window.span, slow.states.stale_after), (Duration::from_secs(600), Duration::from_secs(100)));
    }

    #[test]
    fn peers_must_come_from_somewhere_and_numbers_must_make_sense() {
        assert!(run_options(&[]).is_err());
        for wrong in [
            ["--interval", "0s"],
            ["--interval", "-1s"],
            ["--timeout", "5s"],
            ["--pair-buckets", "2,1"],
            ["--pair-stats", "p42"],
            ["--latency-from", "sctp"],
            ["--http-path", "healthz"],
            ["--http-path", "/ HTTP/1.0"],
            ["--node-name", ""],
        ] {
            assert!(run_options(&[&["--peers-file", "p"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
    }
}
