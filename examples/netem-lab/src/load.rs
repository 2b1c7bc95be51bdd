//! Sends requests from inside a node and writes what became of each as a line of JSON.
//!
//! The lab starts these two commands in a node's namespaces, so that a request takes the way that a
//! program on that node's would:
//!
//! ```text
//! netem-lab request --from-node west --url http://greeter.shop.svc.cluster.local/
//! netem-lab load --from-node west --url ... --rate 50 --seconds 20    open loop: sent on time
//! netem-lab load --from-node west --url ... --workers 5 --seconds 20  closed loop
//! ```
//!
//! Times count from when a request was meant to be sent, so that a slow start shows as slow answers
//! and not as fewer requests.

mod client;
mod pace;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::Client;
pub use client::{Connections, Target};

/// What became of one request: one line of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The node it was sent from.
    pub from_node: String,
    /// The status of the answer; none when there was none.
    pub status: Option<u16>,
    /// The node that the answer says it comes from; none when it does not say.
    pub served_by_node: Option<String>,
    /// The pod that the answer says it comes from; none when it does not say.
    pub served_by_pod: Option<String>,
    /// From when it was meant to be sent to the end of the answer, or to the failure.
    pub seconds: f64,
    /// When it was meant to be sent.
    pub at_unix_seconds: f64,
    /// Why there was no answer.
    pub error: Option<String>,
    /// How much later than meant the sender got to it: of a sender that keeps up, next to nothing.
    #[serde(default)]
    pub late_seconds: f64,
}

impl Outcome {
    /// Whether the request was answered, and with success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// Options of both commands.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// What to ask for, over http.
    #[arg(long)]
    pub url: Target,
    /// The node this runs on, for the output.
    #[arg(long)]
    pub from_node: String,
    /// How long to wait for an answer.
    #[arg(long, default_value_t = 30.0)]
    pub timeout_seconds: f64,
}

/// Options of `netem-lab request`.
#[derive(Debug, Clone, clap::Args)]
pub struct RequestArgs {
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Options of `netem-lab load`.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("pace").required(true))]
pub struct LoadArgs {
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Requests per second, sent on time whatever is still under way.
    #[arg(long, group = "pace")]
    pub rate: Option<f64>,
    /// Senders that each wait for an answer before they send again.
    #[arg(long, group = "pace")]
    pub workers: Option<usize>,
    /// How long to send for.
    #[arg(long)]
    pub seconds: f64,
    /// Whether connections are used again.
    #[arg(long, value_enum, default_value_t = Connections::KeepAlive)]
    pub connections: Connections,
    /// Open this many connections before the first request and send over them only, at most as many
    /// requests at a time, as a client with a pool does.
    #[arg(long, conflicts_with = "connections")]
    pub pool: Option<usize>,
    /// Stop sending when standard input ends, so that the parent process can stop it, also by
    /// exiting.
    #[arg(long)]
    pub stop_on_stdin_end: bool,
}

/// Why no request could be sent.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A number makes no sense.
    #[error("failed to use {name} {value}: must be more than 0 and at most {most}")]
    Number {
        /// The flag.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The largest that is allowed.
        most: f64,
    },
    /// No connection could be opened.
    #[error("failed to open the pool: {0}")]
    Pool(String),
    /// The outcomes cannot be written.
    #[error("failed to write outcomes")]
    Output(#[from] std::io::Error),
}

/// Sends one request on a connection of its own.
///
/// # Errors
///
/// When the timeout makes no sense or the outcome cannot be written. A request that fails is an
/// outcome.
pub async fn request(args: RequestArgs) -> Result<(), LoadError> {
    let client = Client::new(&args.target, Connections::New)?;
    let (sender, outcomes) = mpsc::unbounded_channel();
    let _ = sender.send(client.send(Instant::now()).await);
    drop(sender);
    write_lines(outcomes).await
}

/// Sends requests at a pace for a time, then waits for those under way.
///
/// # Errors
///
/// When a number makes no sense or the outcomes cannot be written. Requests that fail are outcomes.
pub async fn load(args: LoadArgs) -> Result<(), LoadError> {
    let mut client = Client::new(&args.target, args.connections)?;
    if let Some(size) = args.pool {
        client.open(size).await?;
    }
    let client = Arc::new(client);
    let length = Duration::from_secs_f64(in_range("--seconds", args.seconds, 86_400.0)?);
    let (sender, outcomes) = mpsc::unbounded_channel();
    let paced = async move {
        match (args.rate, args.workers) {
            (Some(rate), _) => {
                pace::open_loop(&client, in_range("--rate", rate, 10_000.0)?, length, args.stop_on_stdin_end, sender).await;
            }
            (None, workers) => pace::closed_loop(&client, workers.unwrap_or(1), length, args.stop_on_stdin_end, sender).await,
        }
        Ok(())
    };
    let (paced, written) = tokio::join!(paced, write_lines(outcomes));
    paced.and(written)
}

fn in_range(name: &'static str, value: f64, most: f64) -> Result<f64, LoadError> {
    if value > 0.0 && value <= most { Ok(value) } else { Err(LoadError::Number { name, value, most }) }
}

async fn write_lines(mut outcomes: mpsc::UnboundedReceiver<Outcome>) -> Result<(), LoadError> {
    while let Some(outcome) = outcomes.recv().await {
        let mut line = serde_json::to_vec(&outcome).map_err(std::io::Error::from)?;
        line.push(b'\n');
        let mut output = std::io::stdout().lock();
        output.write_all(&line)?;
        output.flush()?;
    }
    Ok(())
}

/// Comes back when standard input ends; never, when that is not to be watched.
async fn stdin_end(watch: bool) {
    if !watch {
        std::future::pending::<()>().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    // On a thread that nothing waits for: the program may end before its input does.
    std::thread::spawn(move || {
        let mut ignored = [0_u8; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(length) if length > 0) {}
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// The pod and the node in an answer such as `Konnichiwa from hello-00001-abc in node3`.
///
/// ```
/// let answer = "Konnichiwa from hello-00001-abc in node3\n";
/// assert_eq!(netem_lab::load::served_by(answer), Some(("hello-00001-abc", "node3")));
/// assert_eq!(netem_lab::load::served_by("no healthy upstream"), None);
/// ```
#[must_use]
pub fn served_by(answer: &str) -> Option<(&str, &str)> {
    let mut words = answer.split_whitespace().skip_while(|word| *word != "from").skip(1);
    let (pod, joint, node) = (words.next()?, words.next()?, words.next()?);
    (joint == "in").then_some((pod, node))
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The command line that makes `program` send one request.
#[must_use]
pub fn request_command(from_node: &str, url: &str, timeout_seconds: f64) -> Vec<String> {
    target_flags("request", from_node, url, timeout_seconds)
}

/// How much load there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many requests are in flight.
    ///
    /// The lab shares its machine with what it measures: at a fixed rate, answers that are slow for
    /// want of processors look like more demand, which makes more pods, which makes answers slower.
    InFlight(u32),
    /// Requests per second, regardless of those in flight, over a pool of this many connections. A
    /// failure does not delay others.
    PerSecond(f64, usize),
}

/// The command line that makes `program` send requests until its standard input ends or `seconds`
/// have passed.
#[must_use]
pub fn load_command(from_node: &str, url: &str, pace: Pace, seconds: f64) -> Vec<String> {
    let mut command = target_flags("load", from_node, url, 30.0);
    command.extend(match pace {
        Pace::InFlight(workers) => vec!["--workers".to_owned(), workers.to_string()],
        Pace::PerSecond(rate, pool) => {
            vec!["--rate".to_owned(), rate.to_string(), "--pool".to_owned(), pool.to_string()]
        }
    });
    command.extend(["--seconds".to_owned(), seconds.to_string(), "--stop-on-stdin-end".to_owned()]);
    command
}

fn target_flags(verb: &str, from_node: &str, url: &str, timeout_seconds: f64) -> Vec<String> {
    [verb, "--from-node", from_node, "--url", url, "--timeout-seconds", &timeout_seconds.to_string()].map(str::to_owned).to_vec()
}

/// This program itself, to be started in a node.
///
/// # Errors
///
/// When the system does not say where it is.
pub fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_served_is_read_from_the_answer() {
        assert_eq!(served_by("Konnichiwa from a-b-c in west"), Some(("a-b-c", "west")));
        assert_eq!(served_by("from a"), None);
        assert_eq!(served_by("from a at b"), None);
        assert_eq!(served_by(""), None);
    }

    #[test]
    fn numbers_are_checked() {
        assert!(in_range("--rate", 0.0, 10.0).is_err());
        assert!(in_range("--rate", f64::NAN, 10.0).is_err());
        assert!(in_range("--rate", 11.0, 10.0).is_err());
        assert!(in_range("--rate", 10.0, 10.0).is_ok());
    }
}
