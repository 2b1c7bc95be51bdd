//! Plain data between the session, its sockets and its readers.

use std::net::SocketAddr;
use std::time::Duration;

use latency_matrix::{NodeName, Protocol};

use crate::clock::Wall;
use crate::protocol::control_message::IcmpReachability;
use crate::protocol::wire::{Sequence, SessionId};
use crate::session::histogram::Histogram;
use crate::session::pair::Summary;
use crate::session::path::Path;

/// A probe to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOrder {
    /// The sequence number.
    pub sequence: Sequence,
    /// The protocol.
    pub protocol: Protocol,
    /// The target. ICMP ignores the port.
    pub to: SocketAddr,
    /// The peer's flow. Each flow has a source port of its own.
    pub flow: u8,
}

/// Why a probe was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// A limit of this node: says nothing about the peer.
    OurFault,
    /// No route to the peer's node: a loss, and evidence against the node.
    NoRoute,
    /// The peer's node refused the connection: a loss, and evidence that the node is up.
    Refused,
    /// Anything else: a loss.
    Failed,
}

/// An ICMP error about a UDP probe.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    /// The target of the probe.
    pub to: SocketAddr,
    /// The probe, if the error quotes enough of it.
    pub probe: Option<(SessionId, Sequence)>,
    /// What the error says about the node.
    pub reachability: IcmpReachability,
    /// The kernel's timestamp of the error's arrival.
    pub stamp: Option<Wall>,
    /// Time to live of the error.
    pub ttl: Option<u8>,
}

/// A reply, not yet checked against the probes in flight.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedReply {
    /// The protocol.
    pub protocol: Protocol,
    /// The sender.
    pub from: SocketAddr,
    /// The session that the probe belongs to.
    pub session: SessionId,
    /// The probe's sequence number.
    pub sequence: Sequence,
    /// How long the responder held the request; none if its clock was set back meanwhile.
    pub held: Option<Duration>,
    /// When the request arrived at the responder and when it answered, by its clock. UDP only.
    pub turned: Option<(Wall, Wall)>,
    /// The kernel's timestamp of the arrival.
    pub stamp: Option<Wall>,
    /// Whether it was read as soon as it arrived.
    pub prompt: bool,
    /// Time to live of the reply.
    pub ttl: Option<u8>,
}

/// A peer at one moment.
#[derive(Debug)]
pub struct PeerView<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// The protocol that the summary comes from.
    pub protocol: Protocol,
    /// The statistics.
    pub summary: Summary,
    /// All RTTs since the peer was added, with
    /// [`Settings::pair_bounds`](super::Settings::pair_bounds) only.
    pub times: Option<&'a Histogram>,
    /// The path.
    pub path: &'a Path,
}
