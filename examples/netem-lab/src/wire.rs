//! The network between the nodes: every ordered pair of nodes has its own delay, jitter and loss.
//!
//! Where the kernel has `netem`, [`kernel`] sets it up on each node's uplink and the kernel does
//! the rest. Where it has not, our own emulator does: a process with one TUN device in each node's
//! network namespace, to which the routes to the other nodes and their pods are turned. Its one
//! real-time thread reads packets, holds each for the delay of its pair ([`queue`](self)) and
//! writes it to the receiving node's device. It records how late it lets packets go; a reader of
//! results should mistrust a run in which that is much.
//!
//! Traffic with the control plane does not pass: only routes to nodes and pods are turned.
//!
//! What the two ways do not share: the emulator keeps the order of a pair's packets and draws the
//! offset of a jittering link five times a second; netem draws per packet and lets packets
//! overtake. And netem does not say how late it is. **The kernel way has been tested only as far as
//! its command lines go**, on a kernel without netem.
//!
//! ```text
//!   netem-lab wire --config wire.json          one process, started by `up`, left running
//!     main thread   signals, control socket (status, other delays), one statistics file
//!     wire thread   SCHED_FIFO, locked memory:  TUN -> heap of due times -> TUN
//! ```

mod calibrate;
mod config;
mod control;
mod install;
pub mod kernel;
mod lateness;
mod links;
mod queue;
mod realtime;
mod serve;
mod sys;
mod userspace;

pub use config::{EmulatorChoice, PodCidr, WireConfig, WireNode};
pub use control::{EmulatorKind, WireClient, WireStatus};
pub use lateness::{Interval, Lateness, Slice, lateness_outside};
pub use links::{Link, LinkMatrix};
pub use serve::{WireArgs, serve};

use std::path::PathBuf;

/// Why the wire could not be laid, or asked.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The configuration cannot be read or written.
    #[error("failed to use wire configuration {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration makes no sense.
    #[error("failed to use wire configuration: {problem}")]
    Invalid {
        /// What is wrong.
        problem: String,
    },
    /// A node's network namespace cannot be entered, or its device not be made.
    #[error("failed to lay the wire into node {node}: {action}")]
    Node {
        /// The node.
        node: String,
        /// What was tried.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `ip` or `tc` refused.
    #[error("failed to run {command}: {output}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The process behind the control socket does not answer as it should.
    #[error("failed to ask the wire at {}: {problem}", socket.display())]
    Control {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// Something the process needs for itself.
    #[error("failed to {action}")]
    Own {
        /// What was tried.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
}
