//! What goes between a session and its sockets, and between it and its readers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Wall;
use crate::peers::{NodeName, Protocol};
use crate::protocol::control_message::Verdict;
use crate::protocol::wire::{Sequence, SessionId};
use crate::session::histogram::Histogram;
use crate::session::pair::Summary;
use crate::session::path::Path;

/// A probe to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub sequence: Sequence,
    /// How.
    pub protocol: Protocol,
    /// Where to. The port is of no meaning for ICMP.
    pub to: SocketAddr,
    /// In which of the peer's flows, each of which leaves from a port of its own.
    pub flow: u8,
}

/// Why a probe did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// Something of ours was full or missing: no statement about the peer.
    OurFault,
    /// There is no route to the peer's node: lost, and a second opinion against the node.
    NoRoute,
    /// The peer's node refused the connection: lost, and a second opinion for the node.
    Refused,
    /// Anything else: lost.
    Failed,
}

/// What the network said about a probe that did not arrive.
#[derive(Clone, Copy, Debug)]
pub struct Bounced {
    /// Where the probe went to.
    pub to: SocketAddr,
    /// The probe, where enough of it came back.
    pub probe: Option<(SessionId, Sequence)>,
    /// What is said about the node.
    pub verdict: Verdict,
    /// When the kernel had the message.
    pub stamp: Option<Wall>,
    /// The time to live the message had left.
    pub ttl: Option<u8>,
}

/// A reply as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// How.
    pub protocol: Protocol,
    /// Where from.
    pub from: SocketAddr,
    /// To whose probe.
    pub session: SessionId,
    /// To which probe.
    pub sequence: Sequence,
    /// How long the responder held the request; none where its clock was set back meanwhile.
    pub held: Option<Duration>,
    /// When the responder had the request and when it answered, by its clock, where it says so.
    pub turned: Option<(Wall, Wall)>,
    /// When the kernel had it.
    pub stamp: Option<Wall>,
    /// Whether it was read as soon as it came.
    pub prompt: bool,
    /// The time to live it had left.
    pub ttl: Option<u8>,
}

/// One peer as it stands.
#[derive(Debug)]
pub struct PeerView<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// The protocol that tells.
    pub protocol: Protocol,
    /// What it tells.
    pub summary: Summary,
    /// All times since the peer is one, where [`Settings::pair_bounds`](super::Settings::pair_bounds) asks for them.
    pub times: Option<&'a Histogram>,
    /// The way there.
    pub path: &'a Path,
}
