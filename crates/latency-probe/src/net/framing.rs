//! Received packets and ICMP errors as the session takes them. Pure.

use std::time::Duration;

use latency_matrix::Protocol;

use crate::clock::Wall;
use crate::net::Datagram;
use crate::protocol::control_message::IcmpReachability;
use crate::protocol::fleet_key::FleetKeys;
use crate::protocol::icmp::{ECHO_LEN, Echo, Family, strip_ipv4_header};
use crate::protocol::wire::{ProbeRequest, Reply, Sequence, SessionId, packet};
use crate::session::IcmpError;

/// The form of received packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Udp,
    IcmpMessage,
    IcmpBehindIpv4Header,
}

/// The content of a reply.
pub(crate) struct Decoded {
    pub(crate) protocol: Protocol,
    pub(crate) session: SessionId,
    pub(crate) sequence: Sequence,
    pub(crate) held: Option<Duration>,
    pub(crate) turned: Option<(Wall, Wall)>,
}

impl Framing {
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::IcmpMessage | Self::IcmpBehindIpv4Header => Protocol::Icmp,
        }
    }

    /// `length` is that of our packets.
    pub(crate) fn decode(self, bytes: &[u8], length: usize, keys: Option<&FleetKeys>) -> Option<Decoded> {
        let echo = |bytes: &[u8], family| {
            let bytes = bytes.get(..ECHO_LEN).filter(|_| bytes.len() == length)?;
            let Echo { session, sequence } = Echo::decode_reply(bytes, family)?;
            Some(Decoded { protocol: Protocol::Icmp, session, sequence, held: Some(Duration::ZERO), turned: None })
        };
        match self {
            Self::Udp => {
                let reply = Reply::decode(bytes).ok()?;
                if let Some(keys) = keys {
                    keys.verify(packet(bytes).ok()?)?;
                }
                let ProbeRequest { session, sequence, .. } = reply.request;
                let turned = Some((reply.arrived, reply.answered));
                Some(Decoded { protocol: Protocol::Udp, session, sequence, held: reply.held(), turned })
            }
            Self::IcmpMessage => echo(bytes, if bytes.first() == Some(&0) { Family::V4 } else { Family::V6 }),
            Self::IcmpBehindIpv4Header => echo(strip_ipv4_header(bytes)?, Family::V4),
        }
    }
}

/// The ICMP error in a message of the error queue.
pub(crate) fn icmp_error(datagram: &Datagram<'_>) -> Option<IcmpError> {
    let (reachability, to) = datagram.notes.reachability.zip(datagram.from)?;
    // A firewall on the path may send "port unreachable" too.
    let by_node = datagram.notes.offender == Some(to.ip());
    let reachability =
        if reachability == IcmpReachability::NobodyListens && !by_node { IcmpReachability::Unclear } else { reachability };
    let probe = ProbeRequest::decode(datagram.bytes).ok().map(|request| (request.session, request.sequence));
    Some(IcmpError { to, probe, reachability, stamp: datagram.notes.stamp, ttl: datagram.notes.ttl })
}
