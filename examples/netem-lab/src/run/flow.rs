//! Requests that flow from inside nodes: this program, started there, whose lines are collected.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::RunError;
use crate::cluster::NodeHandle;
use crate::load::{self, Outcome, Pace};

/// The longest that load may flow: longer than any run. It ends when its standard input does.
const LONGEST_SECONDS: f64 = 3_600.0;

/// How long a request may take.
const TIMEOUT_SECONDS: f64 = 30.0;

/// All outcomes so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

impl Outcomes {
    pub(crate) fn all(&self) -> Vec<Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    }
}

/// Load that flows from a node until it is stopped; killed when dropped.
#[derive(Debug)]
pub(crate) struct Flow {
    process: Child,
    input: Option<ChildStdin>,
    collector: tokio::task::JoinHandle<()>,
}

impl Flow {
    /// `in_node` starts this program in `node`.
    pub(crate) fn start(in_node: Command, node: &str, url: &str, pace: Pace, outcomes: &Outcomes) -> Result<Self, RunError> {
        let mut process = spawn(in_node, node, &load::load_command(node, url, pace, LONGEST_SECONDS))?;
        let input = process.stdin.take();
        let collector = collect(&mut process, outcomes.clone());
        Ok(Self { process, input, collector })
    }

    /// Stops sending, and waits for the answers that are still under way.
    pub(crate) async fn stop(mut self) {
        drop(self.input.take());
        let patience = Duration::from_secs_f64(TIMEOUT_SECONDS + 5.0);
        if tokio::time::timeout(patience, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
        // Its lines end when it does.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.collector).await;
    }
}

/// Sends one request from a node. The outcome is also collected.
pub(super) async fn request(node: &NodeHandle, url: &str, outcomes: &Outcomes) -> Result<Outcome, RunError> {
    let failed = |source| RunError::Start { program: format!("a request on node {}", node.name), source };
    let mut process = spawn(in_node(node)?, &node.name, &load::request_command(&node.name, url, 2.0 * TIMEOUT_SECONDS))?;
    let mut line = String::new();
    if let Some(mut output) = process.stdout.take() {
        output.read_to_string(&mut line).await.map_err(failed)?;
    }
    let outcome: Outcome =
        serde_json::from_str(&line).map_err(|error| failed(std::io::Error::other(format!("{error} in {line:?}"))))?;
    process.wait().await.map_err(failed)?;
    outcomes.push(outcome.clone());
    Ok(outcome)
}

/// Starts this program in a node.
pub(super) fn in_node(node: &NodeHandle) -> Result<Command, RunError> {
    let failed = |source| RunError::Start { program: format!("this program on node {}", node.name), source };
    Ok(node.command(load::own_program().map_err(failed)?))
}

fn spawn(mut in_node: Command, node: &str, arguments: &[String]) -> Result<Child, RunError> {
    let failed = |source| RunError::Start { program: format!("{} on node {node}", arguments.join(" ")), source };
    in_node
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        // A Ctrl-C is for the lab; these end when it drops them, or when their standard input ends.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

fn collect(process: &mut Child, outcomes: Outcomes) -> tokio::task::JoinHandle<()> {
    let output = process.stdout.take();
    tokio::spawn(async move {
        let Some(output) = output else { return };
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => tracing::warn!(%error, line, "a line of the load is no outcome"),
            }
        }
    })
}
