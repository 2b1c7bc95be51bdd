//! ICMP echo for IPv4 and IPv6: requests and the replies to them. The payload carries the prober's
//! session and the whole sequence number: on a ping socket the kernel sets the identifier, and
//! ICMP's own sequence number has 16 bits.

use std::net::IpAddr;

use pnet_packet::Packet as _;
use pnet_packet::icmp::echo_reply::EchoReplyPacket;
use pnet_packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmp::{IcmpCode, IcmpPacket, IcmpType, checksum};
use pnet_packet::ipv4::Ipv4Packet;

use crate::protocol::wire::{Sequence, SessionId};

/// Internet protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Length of the header of the internet protocol, without options.
    pub(crate) const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    const fn echo_request(self) -> IcmpType {
        match self {
            Self::V4 => IcmpType(8),
            Self::V6 => IcmpType(128),
        }
    }

    const fn echo_reply(self) -> IcmpType {
        match self {
            Self::V4 => IcmpType(0),
            Self::V6 => IcmpType(129),
        }
    }
}

const HEADER_LEN: usize = 8;
const PAYLOAD_LEN: usize = 24;
const MAGIC: [u8; 8] = *b"KLPBicmp";

/// Length of an echo request.
pub(crate) const ECHO_LEN: usize = HEADER_LEN + PAYLOAD_LEN;

/// An echo request or reply of a prober.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The prober's session.
    pub session: SessionId,
    /// The probe's sequence number.
    pub sequence: Sequence,
}

impl Echo {
    /// The request as handed to the kernel. On a ping socket the kernel sets the identifier; for
    /// IPv6 it also sets the checksum.
    #[must_use]
    pub fn encode(&self, family: Family) -> [u8; ECHO_LEN] {
        let mut payload = [0; PAYLOAD_LEN];
        payload[..8].copy_from_slice(&MAGIC);
        payload[8..16].copy_from_slice(&self.session.0.to_be_bytes());
        payload[16..].copy_from_slice(&self.sequence.0.to_be_bytes());
        let mut bytes = [0; ECHO_LEN];
        if let Some(mut packet) = MutableEchoRequestPacket::new(&mut bytes) {
            packet.set_icmp_type(family.echo_request());
            packet.set_icmp_code(IcmpCode(0));
            packet.set_identifier(low_16_bits(self.session.0));
            packet.set_sequence_number(low_16_bits(self.sequence.0));
            packet.set_payload(&payload);
        }
        if family == Family::V4 {
            let sum = IcmpPacket::new(&bytes).map_or(0, |packet| checksum(&packet));
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Parses a reply to one of our echo requests; none for any other message. `bytes` begins with
    /// the ICMP header.
    #[must_use]
    pub fn decode_reply(bytes: &[u8], family: Family) -> Option<Self> {
        let packet = EchoReplyPacket::new(bytes)?;
        if packet.get_icmp_type() != family.echo_reply() {
            return None;
        }
        let payload = packet.payload();
        if payload.len() != PAYLOAD_LEN || payload[..8] != MAGIC {
            return None;
        }
        let number = |at: usize| payload.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        Some(Self { session: SessionId(number(8)?), sequence: Sequence(number(16)?) })
    }
}

/// The ICMP message behind the IPv4 header, which a raw socket includes; none if the header is
/// malformed.
#[must_use]
pub fn strip_ipv4_header(bytes: &[u8]) -> Option<&[u8]> {
    let header = Ipv4Packet::new(bytes)?;
    (header.get_version() == 4).then_some(())?;
    let length = usize::from(header.get_header_length()) * 4;
    (length >= Ipv4Packet::minimum_packet_size()).then_some(())?;
    bytes.get(length..)
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
const fn low_16_bits(number: u64) -> u16 {
    number as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ECHO: Echo = Echo { session: SessionId(0x0102_0304_0506_0708), sequence: Sequence(0x1112_1314_1516_1718) };

    /// What the other end's kernel makes of a request.
    fn answer(mut request: [u8; ECHO_LEN], family: Family) -> [u8; ECHO_LEN] {
        request[0] = family.echo_reply().0;
        request
    }

    #[test]
    fn golden() {
        let hex = ECHO.encode(Family::V4).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "08000715070817184b4c504269636d7001020304050607081112131415161718");
        assert_eq!(ECHO.encode(Family::V6)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn a_reply_is_recognised_and_a_request_is_not() {
        for family in [Family::V4, Family::V6] {
            assert_eq!(Echo::decode_reply(&answer(ECHO.encode(family), family), family), Some(ECHO));
            assert_eq!(Echo::decode_reply(&ECHO.encode(family), family), None);
        }
    }

    #[test]
    fn the_ipv4_header_goes_with_its_options() {
        let mut bytes = vec![0x46; 24];
        bytes.extend([1, 2, 3]);
        assert_eq!(strip_ipv4_header(&bytes), Some(&[1, 2, 3][..]));
        assert_eq!(strip_ipv4_header(&[0x4f; 24]), None, "a header longer than the packet");
        assert_eq!(strip_ipv4_header(&[0x41; 24]), None, "a header shorter than a header");
        assert_eq!(strip_ipv4_header(&[0x65; 24]), None, "version 6");
        assert_eq!(strip_ipv4_header(&[]), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), first in prop_oneof![Just(0_u8), Just(129), Just(0x45), any::<u8>()]) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            for family in [Family::V4, Family::V6] {
                let _ = Echo::decode_reply(&bytes, family);
            }
            let _ = strip_ipv4_header(&bytes).map(|rest| Echo::decode_reply(rest, Family::V4));
        }
    }
}
