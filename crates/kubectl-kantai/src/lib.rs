//! The plugin `kubectl kantai`: what Kantai does on a cluster and why, and whether it can.
//!
//! Objects come from the API server, and what only the daemons know comes through the API server's
//! proxy to their pods: whoever may use kubectl needs nothing else. All text from the cluster is
//! outside data, so no control character of it reaches the terminal.
//!
//! ```no_run
//! # async fn example() -> Result<(), kubectl_kantai::PluginError> {
//! use clap::Parser as _;
//! use kubectl_kantai::{Options, run};
//!
//! let options = Options::parse_from(["kubectl-kantai", "explain", "hello-00001"]);
//! let mut text = Vec::new();
//! run(options, &mut text, false).await?;
//! # Ok(())
//! # }
//! ```

mod bundle;
mod check;
mod cluster;
mod daemons;
mod dry_run;
mod error;
mod events;
mod explain;
mod facts;
mod generate;
mod hand_back;
mod known;
mod matrix;
mod metrics;
mod options;
mod output;
mod routes;
mod status;
mod top;

use std::io::Write;
use std::process::ExitCode;

pub use error::PluginError;
pub use options::Options;

use cluster::Cluster;
use options::Command;
use output::Output;

/// Does what the command line says, and writes the answer to `out`, with colours where that is a
/// terminal.
///
/// # Errors
/// [`PluginError`] where the question cannot be answered at all. What is unknown of an answer is
/// said in the answer.
pub async fn run(options: Options, out: &mut dyn Write, is_terminal: bool) -> Result<ExitCode, PluginError> {
    let mut out = Output::new(out, is_terminal);
    match &options.command {
        Command::Completion(options) => return generate::completion(*options, &mut out).map(|()| ExitCode::SUCCESS),
        Command::Complete(options) => return generate::complete(options, &mut out).map(|()| ExitCode::SUCCESS),
        Command::Man(options) => return generate::man(options, &mut out).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let cluster = Cluster::connect(&options.cluster).await?;
    match options.command {
        Command::Explain(options) => explain::run(&cluster, &options, &mut out).await?,
        Command::Routes(options) => routes::run(&cluster, &options, &mut out).await?,
        Command::Events(options) => events::run(&cluster, &options, &mut out).await?,
        Command::Status(options) => status::run(&cluster, &options, &mut out).await?,
        Command::Check(options) => return check::run(&cluster, &options, &mut out).await,
        Command::DryRun(options) => dry_run::run(&cluster, &options, &mut out).await?,
        Command::Matrix(options) => matrix::run(&cluster, options, &mut out).await?,
        Command::Top(options) => top::run(&cluster, &options, &mut out).await?,
        Command::HandBack(options) => return hand_back::run(&cluster, options, &mut out).await,
        Command::Bundle(options) => bundle::run(&cluster, &options, &mut out).await?,
        // Answered above: they need no cluster.
        Command::Completion(_) | Command::Complete(_) | Command::Man(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}
