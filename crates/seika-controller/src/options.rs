//! The command line.

use lease_election::PodOptions;
use ops_http::OpsOptions;

/// Keeps exactly N pods on each named node.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct Options {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where operators look.
    #[command(flatten)]
    pub ops: OpsOptions,
    /// How to reconcile.
    #[command(flatten)]
    pub controller: ControllerOptions,
    /// Which pod this is.
    #[command(flatten)]
    pub pod: PodOptions,
}

/// What to do instead of running.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Command {
    /// Print the resource definition (YAML) and end.
    Crd,
}

/// How to reconcile.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllerOptions {
    /// Reconcile Seikas in this namespace only.
    #[arg(long, env = "KANTAI_NAMESPACE")]
    pub namespace: Option<String>,
    /// Limit of writes in flight, for all Seikas together.
    #[arg(long, env = "KANTAI_WRITES_AT_ONCE", default_value_t = Self::default().writes_at_once)]
    pub writes_at_once: usize,
    /// Limit of writes per second on average, for all Seikas together. Default: no limit.
    #[arg(long, env = "KANTAI_WRITES_PER_SECOND")]
    pub writes_per_second: Option<f64>,
    /// Limit of Seikas that are reconciled at once.
    #[arg(long, env = "KANTAI_SEIKAS_AT_ONCE", default_value_t = Self::default().seikas_at_once)]
    pub seikas_at_once: u16,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        // Each write in flight has a connection of its own, and both sides pay for making one. On
        // two cores, 64 at once created no more pods per second than 16.
        Self { namespace: None, writes_at_once: 16, writes_per_second: None, seikas_at_once: 64 }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_library() {
        let options = Options::try_parse_from(["seika-controller"]).unwrap().controller;
        let default = ControllerOptions::default();
        assert_eq!((options.namespace, options.writes_per_second), (default.namespace, default.writes_per_second));
        assert_eq!((options.writes_at_once, options.seikas_at_once), (default.writes_at_once, default.seikas_at_once));
        assert!(Options::try_parse_from(["seika-controller", "--seikas-at-once", "many"]).is_err());
    }
}
