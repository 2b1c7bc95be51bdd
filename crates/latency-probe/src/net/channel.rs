//! A socket that probes are sent from and replies arrive at: the thin layer between a
//! [`Session`](crate::session::Session) and the kernel.
//!
//! Channels are not polled as a rule: the kernel timestamps replies, so they are read in batches
//! when the prober wakes for its probes. Without kernel timestamps the prober waits for replies.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use latency_matrix::Protocol;
use socket2::Socket;

use crate::clock::{ClockReading, Mono};
use crate::net::framing::{Decoded, Framing, icmp_error};
use crate::net::{IcmpSocket, Inbox, Outbox, dropped_packets, icmp, set_transmit_stamps, udp_prober};
use crate::protocol::fleet_key::{FleetKeys, SharedKeys};
use crate::protocol::icmp::{ECHO_LEN, Echo, Family};
use crate::protocol::wire::{PACKET_LEN, ProbeRequest, Sequence};
use crate::session::{NotSent, ProbeOrder, ReceivedReply, Session, SharedSession};

/// Largest number of packets per system call.
pub(crate) const BATCH: usize = 64;
/// The longest packet of interest: an echo reply behind an IPv4 header with options.
const LONGEST: usize = 128;
const LONGEST_IPV4_HEADER: usize = 60;
/// A channel is read at every waking within this time of its last send (no timeout is longer), and
/// otherwise once a second, so that strangers' packets do not fill it.
const REPLIES_COME_WITHIN: Duration = Duration::from_secs(5);
const QUIET_READ_EVERY: Duration = Duration::from_secs(1);
/// Batches per waking, so that sending is not delayed; and after a stop, when all replies count.
const BATCHES_AT_ONCE: usize = 4;
const BATCHES_AFTER_SLEEP: usize = 4_096;
/// A pending ICMP error about an earlier packet makes the next send fail, so a send is retried
/// before its error counts.
const SEND_TRIES: u8 = 3;

/// Why replies are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The prober woke for another reason.
    Waking,
    /// The prober waited for replies, so they are read as they arrive.
    Awaited,
    /// The prober was stopped: everything in the socket counts.
    Late,
}

/// A socket of one protocol and family.
pub(crate) struct Channel {
    socket: Socket,
    family: Family,
    framing: Framing,
    /// For UDP: the flow that uses this socket's port.
    flow: Option<u8>,
    inbox: Inbox,
    outbox: Outbox,
    /// Length of a sent packet without headers of the network: more than [`ECHO_LEN`] if padded.
    length: usize,
    orders: Vec<ProbeOrder>,
    departures: Departures,
    keys: SharedKeys,
    last_sent: Option<Mono>,
    last_read: Mono,
    /// Packets dropped so far because the socket was full, as the kernel counts them.
    dropped: u32,
}

/// Maps the kernel's numbers of sent packets to sequence numbers.
#[derive(Default)]
struct Departures {
    enabled: bool,
    next: u32,
    recent: Vec<(u32, Sequence)>,
}

impl Departures {
    /// Largest number of packets between the socket and the device.
    const KEPT: usize = 1_024;

    fn left(&mut self, sequence: Sequence) {
        if self.enabled {
            let place = self.next as usize % Self::KEPT;
            if self.recent.len() <= place {
                self.recent.push((self.next, sequence));
            } else {
                self.recent[place] = (self.next, sequence);
            }
            self.next = self.next.wrapping_add(1);
        }
    }

    fn find(&self, number: u32) -> Option<Sequence> {
        self.recent.get(number as usize % Self::KEPT).filter(|(kept, _)| *kept == number).map(|(_, sequence)| *sequence)
    }
}

impl Channel {
    /// A channel for the UDP probes of one flow.
    pub(crate) fn udp(family: Family, flow: u8, keys: SharedKeys) -> io::Result<Self> {
        Ok(Self { flow: Some(flow), ..Self::new(udp_prober(family)?, family, Framing::Udp, PACKET_LEN, keys)? })
    }

    /// A channel for ICMP probes, and the kind of its socket.
    pub(crate) fn icmp(family: Family, packet_size: u16, keys: SharedKeys) -> io::Result<(Self, &'static str)> {
        let (socket, framing, kind) = match icmp(family)? {
            IcmpSocket::Ping(socket) => (socket, Framing::IcmpMessage, "ping socket"),
            IcmpSocket::Raw(socket) if family == Family::V4 => (socket, Framing::IcmpBehindIpv4Header, "raw socket"),
            IcmpSocket::Raw(socket) => (socket, Framing::IcmpMessage, "raw socket"),
        };
        let length = usize::from(packet_size).saturating_sub(family.header_len()).max(ECHO_LEN);
        Ok((Self::new(socket, family, framing, length, keys)?, kind))
    }

    fn new(socket: Socket, family: Family, framing: Framing, length: usize, keys: SharedKeys) -> io::Result<Self> {
        // Without departure timestamps the reading just before the send is used.
        let enabled = set_transmit_stamps(&socket, true).is_ok();
        Ok(Self {
            family,
            framing,
            flow: None,
            inbox: Inbox::new(BATCH, LONGEST.max(length + LONGEST_IPV4_HEADER)),
            outbox: Outbox::new(BATCH, length),
            length,
            orders: Vec::with_capacity(BATCH),
            departures: Departures { enabled, ..Departures::default() },
            keys,
            last_sent: None,
            last_read: Mono::from_nanos(0),
            dropped: dropped_packets(&socket).unwrap_or(0),
            socket,
        })
    }

    /// Sends the orders that belong to this channel.
    pub(crate) fn send(&mut self, orders: &[ProbeOrder], session: &SharedSession) {
        let (protocol, family, flow) = (self.framing.protocol(), self.family, self.flow);
        let is_mine = |order: &&ProbeOrder| {
            protocol == order.protocol && family == Family::of(order.to.ip()) && flow.is_none_or(|flow| flow == order.flow)
        };
        self.orders.clear();
        self.orders.extend(orders.iter().filter(is_mine));
        if self.orders.is_empty() {
            return;
        }
        let id = session.with(|session| session.id());
        let keys = self.keys.borrow().clone();
        self.outbox.clear();
        let now = ClockReading::now();
        for order in &self.orders {
            match self.framing {
                Framing::Udp => {
                    let request = ProbeRequest { session: id, sequence: order.sequence, sent: now.wall };
                    let mut packet = request.encode();
                    if let Some(keys) = &keys {
                        keys.sign(FleetKeys::signing(), &mut packet);
                    }
                    self.outbox.push(&packet, order.to, None);
                }
                _ => {
                    // A raw IPv6 socket takes the port for a protocol and refuses any but its own.
                    let mut to = order.to;
                    to.set_port(0);
                    // Padding with zeros does not change the checksum.
                    let echo = Echo { session: id, sequence: order.sequence }.encode(self.family);
                    self.outbox.push(&echo, to, None);
                }
            }
        }
        let now = ClockReading::now();
        self.last_sent = Some(now.mono);
        session.with(|session| {
            for order in &self.orders {
                session.mark_sent(order.sequence, now);
            }
        });
        let (mut first, mut tries) = (0, 0);
        while first < self.orders.len() {
            let socket = self.socket.as_fd();
            match self.outbox.send(socket, first) {
                Ok(sent) => {
                    for order in self.orders.iter().skip(first).take(sent) {
                        self.departures.left(order.sequence);
                    }
                    first += sent.max(1);
                    tries = 0;
                }
                Err(error) => {
                    self.restart_departures(session);
                    tries += 1;
                    if tries < SEND_TRIES && error.kind() != io::ErrorKind::WouldBlock {
                        continue;
                    }
                    let order = self.orders[first];
                    tracing::debug!(to = %order.to, protocol = order.protocol.as_str(), %error, "failed to send a probe");
                    session.with(|session| session.not_sent(order.sequence, why_not_sent(&error), now.mono));
                    first += 1;
                    tries = 0;
                }
            }
        }
    }

    /// The kernel may or may not have counted a packet that failed, so numbering restarts.
    fn restart_departures(&mut self, session: &SharedSession) {
        let off = set_transmit_stamps(&self.socket, false);
        self.read_errors(session, false);
        if self.departures.enabled {
            let enabled = off.is_ok() && set_transmit_stamps(&self.socket, true).is_ok();
            self.departures = Departures { enabled, ..Departures::default() };
        }
    }

    /// Reads replies and errors, and hands them to the session.
    pub(crate) fn receive(&mut self, session: &SharedSession, now: Mono, occasion: Occasion) {
        let quiet = self.last_sent.is_none_or(|last| now.since(last) > REPLIES_COME_WITHIN);
        if quiet && occasion == Occasion::Waking && now.since(self.last_read) < QUIET_READ_EVERY {
            return;
        }
        self.last_read = now;
        let prompt = occasion == Occasion::Awaited;
        for _ in 0..if occasion == Occasion::Late { BATCHES_AFTER_SLEEP } else { BATCHES_AT_ONCE } {
            // Departures precede replies, so their timestamps are read first.
            self.read_errors(session, prompt);
            match self.inbox.receive(self.socket.as_fd()) {
                Ok(more) => {
                    self.hand_over(session, prompt);
                    if !more {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The error queue has the same error with its details.
                Err(error) => tracing::debug!(%error, "failed to receive"),
            }
        }
        self.note_drops(session);
    }

    fn hand_over(&self, session: &SharedSession, prompt: bool) {
        let read = ClockReading::now();
        let keys = self.keys.borrow().clone();
        session.with(|session| {
            for datagram in self.inbox.iter() {
                let Some(from) = datagram.from else { continue };
                let (stamp, ttl) = (datagram.notes.stamp, datagram.notes.ttl);
                let Some(decoded) = self.framing.decode(datagram.bytes, self.length, keys.as_deref()) else {
                    note_stranger(session, self.framing);
                    continue;
                };
                let Decoded { protocol, session: id, sequence, held, turned } = decoded;
                session.handle_reply(
                    &ReceivedReply { protocol, from, session: id, sequence, held, turned, stamp, prompt, ttl },
                    read,
                );
            }
        });
    }

    /// Reads the error queue, and hands departure timestamps and ICMP errors to the session.
    fn read_errors(&mut self, session: &SharedSession, prompt: bool) {
        for _ in 0..BATCHES_AFTER_SLEEP {
            let Ok(more) = self.inbox.receive_errors(self.socket.as_fd()) else { return };
            let read = ClockReading::now();
            session.with(|session| {
                for datagram in self.inbox.iter() {
                    let sequence = datagram.notes.left.and_then(|number| self.departures.find(number));
                    if let Some((sequence, stamp)) = sequence.zip(datagram.notes.stamp) {
                        session.mark_departed(sequence, stamp);
                    }
                    if let Some(icmp_error) = icmp_error(&datagram) {
                        session.handle_icmp_error(&icmp_error, read, prompt);
                    }
                }
            });
            if !more {
                return;
            }
        }
    }

    fn note_drops(&mut self, session: &SharedSession) {
        if let Some(dropped) = dropped_packets(&self.socket).filter(|dropped| *dropped != self.dropped) {
            let more = dropped.wrapping_sub(self.dropped);
            self.dropped = dropped;
            tracing::warn!(packets = more, "the kernel dropped packets because the socket was full");
            session.with(|session| session.note_overrun(self.framing.protocol(), more.into()));
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Echoes of other programs are common on ping and raw sockets. On our own UDP port a packet that
/// is no reply is not.
const fn note_stranger(session: &mut Session, framing: Framing) {
    let counters = session.counters_mut();
    match framing {
        Framing::Udp => counters.rejected += 1,
        _ => counters.foreign += 1,
    }
}

/// What a send error says about the peer.
fn why_not_sent(error: &io::Error) -> NotSent {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => NotSent::NoRoute,
        // A firewall rule of this machine.
        Some(libc::EPERM | libc::EACCES) => NotSent::Failed,
        _ => NotSent::OurFault,
    }
}

/// Opens the channels of a prober. Families that the machine does not have, and ICMP without the
/// privilege, are skipped with a warning.
///
/// # Errors
/// The error of the last channel if none could be opened.
pub(crate) fn open(session: &SharedSession, keys: &SharedKeys) -> io::Result<Vec<Channel>> {
    let (method, flows, packet_size) = session.with(|session| {
        let settings = session.settings();
        (settings.method, settings.flows.max(1), settings.packet_size)
    });
    let mut channels = Vec::new();
    let mut refused = None;
    for family in [Family::V4, Family::V6] {
        for flow in 0..if method.primary() == Protocol::Udp { flows } else { 0 } {
            match Channel::udp(family, flow, keys.clone()) {
                Ok(channel) => channels.push(channel),
                Err(error) => refused = Some(skip(family, "udp", error)),
            }
        }
        if method.wants_icmp() {
            match Channel::icmp(family, packet_size, keys.clone()) {
                Ok((channel, kind)) => {
                    tracing::info!(?family, kind, "icmp probes are available");
                    session.with(|session| session.enable_icmp(family));
                    channels.push(channel);
                }
                Err(error) => refused = Some(skip(family, "icmp", error)),
            }
        }
    }
    match refused {
        Some(error) if channels.is_empty() => Err(error),
        _ => Ok(channels),
    }
}

fn skip(family: Family, protocol: &str, error: io::Error) -> io::Error {
    tracing::warn!(?family, protocol, %error, "cannot probe by this protocol (icmp needs the process's group in net.ipv4.ping_group_range, or CAP_NET_RAW)");
    error
}
