//! Socket addresses and control messages in the kernel's memory layout, read and written as plain
//! bytes. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::clock::{Wall, nanos_of};

const WORD: usize = size_of::<usize>();
/// `struct cmsghdr`: length, level, type.
const HEADER: usize = WORD + 8;

/// Size of the buffer for the control messages of a received packet.
pub(crate) const CONTROL_LEN: usize = 256;
/// Size of the control message that sets a packet's source address.
pub(crate) const SOURCE_LEN: usize = (HEADER + 20).next_multiple_of(WORD);

/// The local address that a packet arrived at, and that its answer leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress(pub IpAddr);

/// What control messages say about one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Timestamp of the arrival; in the error queue, of a sent packet's departure.
    pub stamp: Option<Wall>,
    /// Time to live of the packet.
    pub ttl: Option<u8>,
    /// The local address that it arrived at.
    pub to: Option<LocalAddress>,
    /// In the error queue: the number of the sent packet that the timestamp is for.
    pub left: Option<u32>,
    /// In the error queue: what an ICMP error says.
    pub reachability: Option<IcmpReachability>,
    /// The sender of that error.
    pub offender: Option<IpAddr>,
}

/// What an ICMP error says about the target of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpReachability {
    /// Nobody listens on the port. If the node itself says so, it is reachable.
    NobodyListens,
    /// A router or this machine's kernel has no route to the node.
    NoRoute,
    /// Anything else, such as a firewall: says nothing about the node.
    Unclear,
}

/// Parses control messages. Unknown ones are skipped.
#[must_use]
pub fn read_notes(control: &[u8]) -> Notes {
    let mut notes = Notes::default();
    let mut rest = control;
    while let Some((level, kind, data, next)) = first_message(rest) {
        match (level, kind) {
            // One `timespec`, or three of which the first is the software timestamp; zero means
            // none.
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS | libc::SCM_TIMESTAMPING) => {
                let stamp = int64(data, 0).zip(int64(data, 8)).filter(|&(seconds, _)| seconds > 0);
                notes.stamp = notes.stamp.or(stamp.map(|(seconds, nanos)| Wall::from_nanos(nanos_of(seconds, nanos))));
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                notes.ttl = int32(data, 0).and_then(|ttl| u8::try_from(ttl).ok());
            }
            // struct in_pktinfo: interface, the address to answer from, the address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                notes.to = bytes::<4>(data, 4).map(|address| LocalAddress(Ipv4Addr::from(address).into()));
            }
            // struct in6_pktinfo: address, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                notes.to = bytes::<16>(data, 0).map(|address| LocalAddress(Ipv6Addr::from(address).into()));
            }
            // struct sock_extended_err: errno u32, origin u8, type u8, code u8, pad u8, info u32,
            // data u32.
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                // The address of the error's sender follows the struct.
                match (data.get(4).copied(), data.get(5), data.get(6)) {
                    (Some(libc::SO_EE_ORIGIN_TIMESTAMPING), ..) => notes.left = int32(data, 12).map(i32::cast_unsigned),
                    (Some(libc::SO_EE_ORIGIN_ICMP), Some(kind), Some(code)) => {
                        notes.reachability = Some(reachability_v4(*kind, *code));
                    }
                    (Some(libc::SO_EE_ORIGIN_ICMP6), Some(kind), Some(code)) => {
                        notes.reachability = Some(reachability_v6(*kind, *code));
                    }
                    _ => {}
                }
                notes.offender = data.get(16..).and_then(read_name).map(|address| address.ip());
            }
            _ => {}
        }
        rest = next;
    }
    notes
}

/// Types and codes of RFC 792 and RFC 1122.
const fn reachability_v4(kind: u8, code: u8) -> IcmpReachability {
    match (kind, code) {
        // Protocol or port unreachable.
        (3, 2 | 3) => IcmpReachability::NobodyListens,
        // Network or host unreachable or unknown.
        (3, 0 | 1 | 6 | 7) => IcmpReachability::NoRoute,
        _ => IcmpReachability::Unclear,
    }
}

/// Types and codes of RFC 4443.
const fn reachability_v6(kind: u8, code: u8) -> IcmpReachability {
    match (kind, code) {
        // Port unreachable.
        (1, 4) => IcmpReachability::NobodyListens,
        // No route, or the address does not answer on its own link.
        (1, 0 | 3) => IcmpReachability::NoRoute,
        _ => IcmpReachability::Unclear,
    }
}

fn first_message(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(bytes::<WORD>(control, 0)?);
    let data = control.get(HEADER..length)?;
    let next = control.get(length.next_multiple_of(WORD)..).unwrap_or_default();
    Some((int32(control, WORD)?, int32(control, WORD + 4)?, data, next))
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn int32(from: &[u8], at: usize) -> Option<i32> {
    bytes(from, at).map(i32::from_ne_bytes)
}

fn int64(from: &[u8], at: usize) -> Option<i64> {
    bytes(from, at).map(i64::from_ne_bytes)
}

/// Writes the control message that sets a packet's source address. Returns its length.
pub(crate) fn write_source(control: &mut [u8; SOURCE_LEN], from: LocalAddress) -> usize {
    let (level, kind, data): (i32, i32, &[u8]) = match from.0 {
        IpAddr::V4(address) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&address.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &info.clone())
        }
        IpAddr::V6(address) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&address.octets());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info.clone())
        }
    };
    let length = HEADER + data.len();
    control[..WORD].copy_from_slice(&length.to_ne_bytes());
    control[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    control[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    control[HEADER..length].copy_from_slice(data);
    length.next_multiple_of(WORD)
}

/// `struct sockaddr_in6`, the longer of the two.
pub(crate) const NAME_LEN: usize = 28;
const NAME_LEN_V4: usize = 16;

/// Reads a socket address.
#[must_use]
pub fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes(name, 2)?);
    match i32::from(u16::from_ne_bytes(bytes(name, 0)?)) {
        libc::AF_INET => Some(SocketAddr::from((bytes::<4>(name, 4)?, port))),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(bytes(name, 24)?);
            Some(SocketAddrV6::new(bytes::<16>(name, 8)?.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// Writes a socket address. Returns its length.
pub(crate) fn write_name(name: &mut [u8; NAME_LEN], address: SocketAddr) -> usize {
    *name = [0; NAME_LEN];
    let (family, length) = match address {
        SocketAddr::V4(v4) => {
            name[4..8].copy_from_slice(&v4.ip().octets());
            (libc::AF_INET, NAME_LEN_V4)
        }
        SocketAddr::V6(v6) => {
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (libc::AF_INET6, NAME_LEN)
        }
    };
    // Address families are small numbers.
    name[..2].copy_from_slice(&u16::try_from(family).unwrap_or_default().to_ne_bytes());
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_back_as_they_went() {
        for text in ["10.1.2.3:9799", "[fd00::1]:9799", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [0xff; NAME_LEN];
            let length = write_name(&mut name, address);
            assert_eq!(read_name(&name[..length]), Some(address));
        }
    }

    #[test]
    fn the_source_is_written_as_the_kernel_writes_it() {
        for text in ["10.1.2.3", "fd00::1"] {
            let from = LocalAddress(text.parse().unwrap());
            let mut control = [0; SOURCE_LEN];
            let length = write_source(&mut control, from);
            assert_eq!(read_notes(&control[..length]).to, Some(from));
        }
    }

    /// A control message as the kernel writes it: header, `sock_extended_err`, the offender's
    /// address.
    fn extended_error(level: i32, kind: i32, error: [u8; 16], offender: SocketAddr) -> Vec<u8> {
        let mut name = [0; NAME_LEN];
        let length = write_name(&mut name, offender);
        let data = [&error[..], &name[..length]].concat();
        let mut message = (HEADER + data.len()).to_ne_bytes().to_vec();
        message.extend(level.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn the_network_s_word_on_a_packet_is_read() {
        let origin = |origin, kind, code| {
            let mut error = [0; 16];
            (error[4], error[5], error[6]) = (origin, kind, code);
            error
        };
        let (v4, v6) = ((libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR));
        for ((level, option), error, from, wanted) in [
            (v4, origin(libc::SO_EE_ORIGIN_ICMP, 3, 3), "10.0.0.2:0", Some(IcmpReachability::NobodyListens)),
            (v4, origin(libc::SO_EE_ORIGIN_ICMP, 3, 1), "10.0.0.1:0", Some(IcmpReachability::NoRoute)),
            (v4, origin(libc::SO_EE_ORIGIN_ICMP, 3, 13), "10.0.0.1:0", Some(IcmpReachability::Unclear)),
            (v4, origin(libc::SO_EE_ORIGIN_ICMP, 11, 0), "10.0.0.1:0", Some(IcmpReachability::Unclear)),
            (v6, origin(libc::SO_EE_ORIGIN_ICMP6, 1, 4), "[fd00::2]:0", Some(IcmpReachability::NobodyListens)),
            (v6, origin(libc::SO_EE_ORIGIN_ICMP6, 1, 3), "[fd00::1]:0", Some(IcmpReachability::NoRoute)),
            (v4, origin(libc::SO_EE_ORIGIN_LOCAL, 3, 3), "10.0.0.1:0", None),
        ] {
            let offender: SocketAddr = from.parse().unwrap();
            let notes = read_notes(&extended_error(level, option, error, offender));
            assert_eq!((notes.reachability, notes.offender, notes.left), (wanted, Some(offender.ip()), None));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(control in proptest::collection::vec(any::<u8>(), 0..CONTROL_LEN), length in 0_usize..300) {
            let _ = read_notes(&control);
            let _ = read_name(&control);
            let mut control = control;
            if control.len() >= WORD {
                control[..WORD].copy_from_slice(&length.to_ne_bytes());
                let _ = read_notes(&control);
            }
        }
    }
}
