//! The UDP probe on the network: 64 bytes each way, so that an answer is never larger than its
//! request. All numbers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `KLPB` |
//! | 4 | version, 1 |
//! | 5 | 1 = request, 2 = reply, 3 = request in a train |
//! | 6..8 | zero |
//! | 8..16 | the prober's session: random, so that replies to an earlier session do not match |
//! | 16..24 | sequence number within the session |
//! | 24..32 | prober's wall clock at the send (ns since 1970) |
//! | 32..40 | responder's wall clock when its kernel had the request; zero in a request |
//! | 40..48 | responder's wall clock just before it answered; zero in a request |
//! | 48..64 | tag over bytes 0..48 where the fleet shares a key, else zero |
//!
//! A request in a train is followed by padding, up to 1,472 bytes in all; the padding is not
//! signed. Its reply has 64 bytes as any other.
//!
//! The fourth timestamp, the reply's arrival, is taken by the prober and not sent.

use std::time::Duration;

use crate::clock::Wall;

/// Length of every probe and every reply.
pub const PACKET_LEN: usize = 64;

/// Longest request in a train.
pub const LONGEST_IN_TRAIN: usize = 1_472;

/// Number of leading bytes that the tag covers.
pub(crate) const SIGNED_LEN: usize = 48;

/// Length of the tag.
pub(crate) const TAG_LEN: usize = PACKET_LEN - SIGNED_LEN;

const MAGIC: [u8; 4] = *b"KLPB";
const VERSION: u8 = 1;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const IN_TRAIN: u8 = 3;

/// A random number that identifies one session of one prober.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// A probe's number within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A packet on the wire.
pub type Packet = [u8; PACKET_LEN];

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The prober's session.
    pub session: SessionId,
    /// The probe's sequence number.
    pub sequence: Sequence,
    /// The prober's clock at the send.
    pub sent: Wall,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request.
    pub request: ProbeRequest,
    /// The responder's clock when its kernel had the request.
    pub arrived: Wall,
    /// The responder's clock just before it answered.
    pub answered: Wall,
}

/// Why bytes are no packet of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Any other length than [`PACKET_LEN`].
    #[error("failed to read a probe: {0} bytes instead of 64")]
    Length(usize),
    /// Another magic number.
    #[error("failed to read a probe: not a packet of this protocol")]
    Magic,
    /// An unknown version.
    #[error("failed to read a probe: version {0} is not spoken here")]
    Version(u8),
    /// Not of the expected kind.
    #[error("failed to read a probe: kind {0} is not expected here")]
    Kind(u8),
}

impl ProbeRequest {
    /// Encodes it without a tag.
    #[must_use]
    pub fn encode(&self) -> Packet {
        self.encode_as(REQUEST)
    }

    /// Encodes the start of a request in a train, without a tag. Padding follows.
    #[must_use]
    pub fn encode_in_train(&self) -> Packet {
        self.encode_as(IN_TRAIN)
    }

    /// Parses a request of either kind, and returns the part of it that the tag covers. The caller
    /// checks the tag.
    ///
    /// # Errors
    /// [`WireError`] if it is not a request of this version.
    pub fn decode_any(bytes: &[u8]) -> Result<(Self, &Packet), WireError> {
        match bytes.split_first_chunk() {
            Some((start, padding)) if !padding.is_empty() && bytes.len() <= LONGEST_IN_TRAIN => {
                Ok((Self::decode_as(start, IN_TRAIN)?, start))
            }
            _ => packet(bytes).and_then(|packet| Ok((Self::decode_as(packet, REQUEST)?, packet))),
        }
    }

    fn encode_as(&self, kind: u8) -> Packet {
        let mut packet = [0; PACKET_LEN];
        packet[..4].copy_from_slice(&MAGIC);
        packet[4] = VERSION;
        packet[5] = kind;
        packet[8..16].copy_from_slice(&self.session.0.to_be_bytes());
        packet[16..24].copy_from_slice(&self.sequence.0.to_be_bytes());
        packet[24..32].copy_from_slice(&self.sent.as_nanos().to_be_bytes());
        packet
    }

    /// Parses a request. The caller checks the tag.
    ///
    /// # Errors
    /// [`WireError`] if it is not a request of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_as(packet(bytes)?, REQUEST)
    }

    fn decode_as(packet: &Packet, kind: u8) -> Result<Self, WireError> {
        if packet[..4] != MAGIC {
            return Err(WireError::Magic);
        }
        if packet[4] != VERSION {
            return Err(WireError::Version(packet[4]));
        }
        if packet[5] != kind {
            return Err(WireError::Kind(packet[5]));
        }
        Ok(Self {
            session: SessionId(number(packet, 8)),
            sequence: Sequence(number(packet, 16)),
            sent: Wall::from_nanos(number(packet, 24)),
        })
    }
}

impl Reply {
    /// Encodes it without a tag.
    #[must_use]
    pub fn encode(&self) -> Packet {
        let mut packet = self.request.encode_as(REPLY);
        packet[32..40].copy_from_slice(&self.arrived.as_nanos().to_be_bytes());
        packet[40..48].copy_from_slice(&self.answered.as_nanos().to_be_bytes());
        packet
    }

    /// Parses a reply. The caller checks the tag.
    ///
    /// # Errors
    /// [`WireError`] if it is not a reply of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let packet = packet(bytes)?;
        Ok(Self {
            request: ProbeRequest::decode_as(packet, REPLY)?,
            arrived: Wall::from_nanos(number(packet, 32)),
            answered: Wall::from_nanos(number(packet, 40)),
        })
    }

    /// How long the responder held the request; none if its clock was set back meanwhile.
    #[must_use]
    pub fn held(&self) -> Option<Duration> {
        self.answered.as_nanos().checked_sub(self.arrived.as_nanos()).map(Duration::from_nanos)
    }
}

/// The bytes as a packet.
///
/// # Errors
/// [`WireError::Length`] if there are more or fewer bytes.
pub(crate) fn packet(bytes: &[u8]) -> Result<&Packet, WireError> {
    bytes.try_into().map_err(|_| WireError::Length(bytes.len()))
}

fn number(packet: &Packet, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&packet[at..at + 8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> ProbeRequest {
        ProbeRequest {
            session: SessionId(0x0102_0304_0506_0708),
            sequence: Sequence(0x1112_1314_1516_1718),
            sent: Wall::from_nanos(0x2122_2324_2526_2728),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.chunks(8).map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect::<Vec<_>>().join(" ")
    }

    /// The wire format is a promise between releases: these bytes may only change together with the
    /// version.
    #[test]
    fn golden() {
        assert_eq!(
            hex(&request().encode()),
            "4b4c504201010000 0102030405060708 1112131415161718 2122232425262728 \
             0000000000000000 0000000000000000 0000000000000000 0000000000000000"
        );
        let reply = Reply {
            request: request(),
            arrived: Wall::from_nanos(0x3132_3334_3536_3738),
            answered: Wall::from_nanos(0x4142_4344_4546_4748),
        };
        assert_eq!(
            hex(&reply.encode()),
            "4b4c504201020000 0102030405060708 1112131415161718 2122232425262728 \
             3132333435363738 4142434445464748 0000000000000000 0000000000000000"
        );
    }

    #[test]
    fn a_request_is_not_a_reply() {
        assert_eq!(Reply::decode(&request().encode()), Err(WireError::Kind(1)));
        assert_eq!(ProbeRequest::decode(&[0; 63]), Err(WireError::Length(63)));
        assert_eq!(ProbeRequest::decode(&[0; 64]), Err(WireError::Magic));
        let mut newer = request().encode();
        newer[4] = 9;
        assert_eq!(ProbeRequest::decode(&newer), Err(WireError::Version(9)));
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in(numbers in any::<[u64; 5]>()) {
            let request = ProbeRequest { session: SessionId(numbers[0]), sequence: Sequence(numbers[1]), sent: Wall::from_nanos(numbers[2]) };
            prop_assert_eq!(ProbeRequest::decode(&request.encode()), Ok(request));
            let reply = Reply { request, arrived: Wall::from_nanos(numbers[3]), answered: Wall::from_nanos(numbers[4]) };
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
            let mut bytes = bytes;
            if ours && bytes.len() >= 6 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4] = VERSION;
            }
            let _ = ProbeRequest::decode(&bytes);
            if let Ok(reply) = Reply::decode(&bytes) {
                let _ = reply.held();
            }
        }
    }
}
