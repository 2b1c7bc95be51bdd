//! The node-to-node latency prober. One runs on each node. It probes the others by UDP or ICMP
//! echo, TCP connect or HTTP GET, answers their probes, and exports what it measured.
//!
//! An RTT sample passes the modules in this order:
//!
//! - [`discovery`]: which nodes there are, and which of them this one probes.
//! - [`session`]: when each peer is probed, what a reply means, the state of each pair. Pure.
//! - [`protocol`]: probes, replies and the kernel's control messages as bytes. Pure.
//! - [`net`]: sockets, the probing loop, and the responder.
//! - [`report`]: metrics, the node's row of the latency matrix, and the matrix.
//!
//! [`run_daemon`] and [`once`] put them together for the commands in [`Options`].

mod bandwidth;
mod clock;
mod daemon;
mod options;
mod peers;
mod process;

pub mod discovery;
pub mod net;
pub mod once;
pub mod protocol;
pub mod report;
pub mod session;

pub use clock::{ClockReading, Mono, Wall};
pub use daemon::{DaemonError, run as run_daemon};
pub use options::{Command, MatrixOptions, OnceOptions, Options, ProbeOptions, RunOptions};
pub use peers::{Peer, PeerSet, Ports};
pub use process::use_batch_scheduling;
