//! The command line, in kubectl's manner.

use std::path::PathBuf;
use std::time::Duration;

/// Shows what Kantai does on a cluster and why, and checks whether it can
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kubectl-kantai", bin_name = "kubectl kantai", version, about)]
pub struct Options {
    /// Which cluster, and as whom
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    /// The question
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which cluster")]
pub(crate) struct ClusterOptions {
    /// The kubeconfig file; without it $KUBECONFIG or ~/.kube/config, as kubectl does
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// Group to act as; may be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "as_user")]
    pub(crate) as_groups: Vec<String>,
    /// How long one request may take, such as 30s; 0 for as long as it takes
    #[arg(long, global = true, default_value = "30s", value_parser = timeout)]
    pub(crate) request_timeout: RequestTimeout,
    /// The namespace of Kantai's own pods
    #[arg(long, global = true, env = "KANTAI_SYSTEM_NAMESPACE", default_value = "kantai-system", value_name = "NAMESPACE")]
    pub(crate) system_namespace: String,
    /// The namespace of Knative Serving
    #[arg(long, global = true, env = "KANTAI_KNATIVE_NAMESPACE", default_value = "knative-serving", value_name = "NAMESPACE")]
    pub(crate) knative_namespace: String,
}

/// How long one request may take; `None` for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestTimeout(pub(crate) Option<Duration>);

fn timeout(text: &str) -> Result<RequestTimeout, String> {
    if text == "0" {
        return Ok(RequestTimeout(None));
    }
    ops_http::duration(text).map(|duration| RequestTimeout(Some(duration)))
}

/// The questions.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Why a revision's pods are where they are; or, with --host and --node, why a request goes
    /// where it goes
    Explain(ExplainOptions),
    /// Which way each node's requests go, per revision
    Routes(RoutesOptions),
    /// What Kantai's daemons said lately about revisions, Seikas, Ingresses and themselves
    Events(EventsOptions),
    /// Whether the daemons and gateways work, and where the revisions' pods are
    Status(StatusOptions),
    /// Whether Kantai can do its work here, and if not, what to do about it. Exit code 1 if
    /// something fails
    Check(CheckOptions),
    /// Where pods would end after a change that is not made, decided by the same code on what the
    /// decision-maker sees now
    DryRun(DryRunOptions),
    /// How far apart nodes are, as the probers measured it
    Matrix(MatrixOptions),
    /// Requests and response times per source and serving node, live
    Top(TopOptions),
    /// Turn the switch off and wait until Knative's own autoscaler has every revision, as before an
    /// uninstall
    HandBack(HandBackOptions),
    /// Write what a report of a fault needs into one archive, without Secrets
    Bundle(BundleOptions),
    /// Print a script of completions
    Completion(CompletionOptions),
    /// Print what completes the words so far
    #[command(hide = true)]
    Complete(CompleteOptions),
    /// Print the manual page
    Man(ManOptions),
}

/// Which namespaces.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NamespaceOptions {
    /// The namespace; without it that of the context
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// Ask about all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

/// In which form.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FormOptions {
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Form,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Words and tables, for people
    #[default]
    Text,
    /// JSON, for programs
    Json,
}

impl FormOptions {
    pub(crate) fn is_json(self) -> bool {
        self.output == Form::Json
    }
}

/// Options of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExplainOptions {
    /// The revision, such as hello-00001
    #[arg(required_unless_present = "host")]
    pub(crate) revision: Option<String>,
    /// The namespace of the revision; without it that of the context
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// The host that a request is for, such as hello.default.example.com
    #[arg(long, requires = "node", conflicts_with = "revision")]
    pub(crate) host: Option<String>,
    /// The node where the request enters
    #[arg(long, requires = "host")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `routes`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RoutesOptions {
    /// The revision; without it all
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) namespaces: NamespaceOptions,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `events`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EventsOptions {
    /// The name of the object; without it all
    pub(crate) object: Option<String>,
    #[command(flatten)]
    pub(crate) namespaces: NamespaceOptions,
    /// Only warnings, no normal events
    #[arg(long)]
    pub(crate) warnings: bool,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `status`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) namespaces: NamespaceOptions,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `check`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CheckOptions {
    /// Before, or in the middle of, an install: what is not there yet is no failure
    #[arg(long)]
    pub(crate) pre: bool,
    /// Look again until nothing fails, or --timeout has passed
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long --wait looks again, such as 5m
    #[arg(long, default_value = "5m", value_parser = ops_http::duration)]
    pub(crate) timeout: Duration,
    /// Warnings and what cannot be checked count as failures in the exit code
    #[arg(long)]
    pub(crate) strict: bool,
    /// Prometheus that is to be asked for latency, before extra-controller is told of it; several
    /// separated by commas
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    pub(crate) prometheus_url: Vec<String>,
    /// For how long a gateway may not have confirmed all configuration
    #[arg(long, default_value = "10s", value_parser = ops_http::duration, value_name = "DURATION")]
    pub(crate) behind_after: Duration,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

impl CheckOptions {
    /// As a bundle checks: what is not there is no failure.
    pub(crate) fn for_bundle() -> Self {
        let (timeout, behind_after) = (Duration::ZERO, Duration::from_secs(10));
        let form = FormOptions { output: Form::Json };
        Self { pre: true, wait: false, timeout, strict: false, prometheus_url: Vec::new(), behind_after, form }
    }
}

/// Options of `dry-run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DryRunOptions {
    /// The change
    #[command(subcommand)]
    pub(crate) change: DryChange,
}

/// A change that is not made.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum DryChange {
    /// Drain a node: it takes no new pods, and those on it are evicted
    Drain {
        /// The node
        node: String,
        #[command(flatten)]
        shown: DryShown,
    },
    /// Make a link between two nodes slower or faster, both ways
    Link {
        /// One end
        one: String,
        /// The other end
        other: String,
        /// The round trip then, such as 80ms
        #[arg(value_parser = ops_http::duration)]
        round_trip: Duration,
        #[command(flatten)]
        shown: DryShown,
    },
}

/// How far ahead, and in which form.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DryShown {
    #[command(flatten)]
    pub(crate) namespaces: NamespaceOptions,
    /// How far ahead to decide, with demand as it is now
    #[arg(long, default_value = "3m", value_parser = ops_http::duration, value_name = "DURATION")]
    pub(crate) ahead: Duration,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `matrix`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct MatrixOptions {
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: MatrixForm,
    /// Which of the round trips within the probers' window
    #[arg(long, value_enum, default_value_t)]
    pub(crate) stat: Stat,
}

/// The form of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MatrixForm {
    /// A heat map in the terminal
    #[default]
    Text,
    /// The probers' rows, for programs
    Json,
    /// One line per pair
    Csv,
    /// A heat map as a page of its own
    Html,
}

/// Which of many round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stat {
    /// The shortest
    Min,
    /// The median
    #[default]
    P50,
    /// The 90th percentile
    P90,
    /// The 99th percentile
    P99,
}

impl From<Stat> for latency_matrix::Quantile {
    fn from(stat: Stat) -> Self {
        match stat {
            Stat::Min => Self::Min,
            Stat::P50 => Self::P50,
            Stat::P90 => Self::P90,
            Stat::P99 => Self::P99,
        }
    }
}

/// Options of `top`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TopOptions {
    /// The revision; without it all
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) namespaces: NamespaceOptions,
    /// How long to count before each look, such as 2s
    #[arg(long, default_value = "2s", value_parser = ops_http::duration, value_name = "DURATION")]
    pub(crate) interval: Duration,
    /// Look once, and end; so it is with -o json
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) form: FormOptions,
}

/// Options of `hand-back`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct HandBackOptions {
    /// Do it; without this, what would be done is only shown
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// How long to wait, as 240s or 10m; after that it ends with an error
    #[arg(long, default_value = "240s", value_parser = ops_http::duration)]
    pub(crate) timeout: Duration,
}

/// Options of `bundle`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BundleOptions {
    /// Where to write it; without this, into a new file here, named after the time
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How many of the last lines of each log go into it
    #[arg(long, default_value_t = 5000, value_name = "LINES")]
    pub(crate) log_lines: i64,
}

/// Options of `completion`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct CompletionOptions {
    /// For which shell; `kubectl` is for `kubectl kantai` in any shell
    #[arg(value_enum)]
    pub(crate) shell: CompletionOf,
}

/// What completions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CompletionOf {
    /// kubectl's own completion, which asks kubectl_complete-kantai on the path
    Kubectl,
    /// bash, for kubectl-kantai
    Bash,
    /// zsh, for kubectl-kantai
    Zsh,
    /// fish, for kubectl-kantai
    Fish,
    /// PowerShell, for kubectl-kantai
    Powershell,
}

/// Options of `complete`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompleteOptions {
    /// The words behind `kubectl kantai`, of which the last is being typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// Options of `man`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ManOptions {
    /// Write a page per command into this folder instead
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("kubectl-kantai").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_sound_and_calls_itself_kubectl_kantai() {
        Options::command().debug_assert();
        let help = parse("--help").unwrap_err().to_string();
        assert!(help.contains("Usage: kubectl kantai"), "{help}");
    }

    #[test]
    fn kubectls_flags_stand_before_and_behind_the_command() {
        let options = parse("--context a status -n blue --as eve --request-timeout 0").unwrap();
        assert_eq!((options.cluster.context.as_deref(), options.cluster.as_user.as_deref()), (Some("a"), Some("eve")));
        assert_eq!(options.cluster.request_timeout, RequestTimeout(None));
        for nonsense in ["status -n a -A", "explain", "explain a --host b", "routes -o csv", "status --as-group a"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
        assert!(parse("explain --host a.b --node node1").is_ok());
    }
}
