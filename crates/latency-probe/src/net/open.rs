//! Opens sockets and sets what the kernel reports on packets.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::protocol::icmp::Family;
use crate::session::INITIAL_TTL;

/// Requested receive buffer; the system's limit may reduce it.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

const fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

fn prepare(socket: &Socket, family: Family) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Only the privileged may exceed the system's limit.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    set_receive_stamps(socket)?;
    match family {
        Family::V4 => {
            setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
            never_fragment(socket)?;
            socket.set_ttl_v4(u32::from(INITIAL_TTL))
        }
        Family::V6 => {
            setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
            set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
            socket.set_unicast_hops_v6(u32::from(INITIAL_TTL))
        }
    }
}

/// Our packets are never fragmented. The kernel then need not choose an identifier for each, for
/// which it uses a large table.
fn never_fragment(socket: &Socket) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Makes the kernel put ICMP errors about sent packets into the socket's error queue.
fn set_error_reports(socket: &Socket, family: Family) -> io::Result<()> {
    let (level, option) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_number(socket, level, option, 1)
}

fn set_number(socket: &Socket, level: i32, option: i32, number: i32) -> io::Result<()> {
    let length = u32::try_from(size_of_val(&number)).unwrap_or(0);
    let value = std::ptr::from_ref(&number).cast();
    // SAFETY: the pointer is to `length` bytes that live through the call, and the kernel only
    // reads them.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Number of packets dropped because the socket's buffer was full, modulo 2^32; none if the kernel
/// does not say.
pub(crate) fn dropped_packets(socket: &impl AsFd) -> Option<u32> {
    /// From linux/sock_diag.h, which libc lacks: the index of the drop counter, and the length of
    /// the array.
    const SK_MEMINFO_DROPS: usize = 8;
    const SK_MEMINFO_VARS: usize = 9;
    let mut numbers = [0_u32; SK_MEMINFO_VARS];
    let mut length = u32::try_from(size_of_val(&numbers)).ok()?;
    let (socket, into) = (socket.as_fd().as_raw_fd(), numbers.as_mut_ptr().cast());
    // SAFETY: the pointer is to `length` bytes that live through the call; the kernel writes at
    // most so many.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, into, &mut length) };
    (done == 0 && usize::try_from(length).is_ok_and(|length| length == size_of_val(&numbers))).then(|| numbers[SK_MEMINFO_DROPS])
}

/// A socket for UDP probes.
pub(crate) fn udp_prober(family: Family) -> io::Result<Socket> {
    let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, family)?;
    set_error_reports(&socket, family)?;
    let any: SocketAddr = match family {
        Family::V4 => ([0, 0, 0, 0], 0).into(),
        Family::V6 => ([0_u16; 8], 0).into(),
    };
    socket.bind(&any.into())?;
    Ok(socket)
}

/// A socket for the responder. It learns the local address of each probe, so that the answer leaves
/// from there.
pub(crate) fn udp_responder(listen: SocketAddr) -> io::Result<Socket> {
    let family = Family::of(listen.ip());
    let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, family)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        Family::V6 => {
            // IPv4 has a socket of its own.
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    socket.bind(&listen.into())?;
    Ok(socket)
}

/// A socket for ICMP echo.
#[derive(Debug)]
pub(crate) enum IcmpSocket {
    /// A ping socket: needs no privilege if `ping_group_range` includes the process's group.
    Ping(Socket),
    /// A raw socket: needs `CAP_NET_RAW`.
    Raw(Socket),
}

/// Opens a ping socket if permitted, else a raw one.
///
/// # Errors
/// The error of the raw socket.
pub(crate) fn icmp(family: Family) -> io::Result<IcmpSocket> {
    let protocol = match family {
        Family::V4 => Protocol::ICMPV4,
        Family::V6 => Protocol::ICMPV6,
    };
    if let Ok(socket) = Socket::new(domain(family), Type::DGRAM, Some(protocol)) {
        prepare(&socket, family)?;
        return Ok(IcmpSocket::Ping(socket));
    }
    let socket = Socket::new(domain(family), Type::RAW, Some(protocol))?;
    prepare(&socket, family)?;
    pass_echo_replies_only(&socket, family)?;
    Ok(IcmpSocket::Raw(socket))
}

/// A raw socket receives all ICMP of the machine; a kernel filter passes echo replies only.
fn pass_echo_replies_only(socket: &Socket, family: Family) -> io::Result<()> {
    /// From linux/icmp.h, which libc lacks.
    const ICMP_FILTER: i32 = 1;
    const ICMPV6_FILTER: i32 = 1;
    // A set bit blocks a type. IPv4: types 0 to 31, reply is 0. IPv6: types 0 to 255, reply is 129.
    let mut blocked = [u32::MAX; 8];
    let (level, option, words) = match family {
        Family::V4 => {
            blocked[0] &= !1;
            (libc::SOL_RAW, ICMP_FILTER, 1)
        }
        Family::V6 => {
            blocked[129 / 32] &= !(1 << (129 % 32));
            (libc::IPPROTO_ICMPV6, ICMPV6_FILTER, blocked.len())
        }
    };
    let length = u32::try_from(words * size_of::<u32>()).unwrap_or(0);
    // SAFETY: the pointer is to at least `length` bytes that live through the call, and the kernel
    // only reads them.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, blocked.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel timestamp received packets.
pub(crate) fn set_receive_stamps(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
}

/// What the kernel measured on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    /// RTT of the handshake.
    pub(crate) round_trip: Option<Duration>,
    /// Whether a packet was retransmitted.
    pub(crate) resent: bool,
}

/// Reads `TCP_INFO`; none if that fails.
pub(crate) fn connection_info(stream: &impl AsFd) -> Option<ConnectionInfo> {
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = u32::try_from(size_of::<libc::tcp_info>()).ok()?;
    let (socket, into) = (stream.as_fd().as_raw_fd(), std::ptr::from_mut(&mut info).cast());
    // SAFETY: the pointer is to `length` bytes that live through the call; the kernel writes at
    // most so many.
    let done = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut length) };
    (done == 0).then(|| ConnectionInfo {
        round_trip: (info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into())),
        resent: info.tcpi_total_retrans > 0,
    })
}

/// Turns departure timestamps in the error queue on (numbered from 0) or off. Arrivals are
/// timestamped in either case, by this option alone: a second timestamp per packet would cost more.
pub(crate) fn set_transmit_stamps(socket: &impl AsFd, on: bool) -> io::Result<()> {
    use nix::sys::socket::TimestampingFlag as Flag;
    let mut flags = Flag::SOF_TIMESTAMPING_RX_SOFTWARE | Flag::SOF_TIMESTAMPING_SOFTWARE;
    if on {
        // TSONLY: the queue gets the timestamp without the packet.
        flags |= Flag::SOF_TIMESTAMPING_TX_SOFTWARE | Flag::SOF_TIMESTAMPING_OPT_ID | Flag::SOF_TIMESTAMPING_OPT_TSONLY;
    }
    setsockopt(socket, sockopt::Timestamping, &flags)?;
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &false)?)
}

/// Registers the descriptor with the runtime, to await readability.
pub(crate) fn register<T: AsRawFd + Into<OwnedFd>>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: a type that converts into an owned descriptor owns it. `AsyncFd::get_ref` gives no
    // mutable access, so it stays the same and open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Waits until a socket or its error queue is readable, at most `patience`.
pub(crate) fn wait_readable<'fd>(sockets: impl Iterator<Item = BorrowedFd<'fd>>, patience: Duration) -> io::Result<()> {
    let mut sockets: Vec<PollFd<'fd>> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
    match ppoll(&mut sockets, Some(TimeSpec::from_duration(patience)), None) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn waiting_ends_with_a_packet_or_with_patience() {
        let receiver = udp_responder(([127, 0, 0, 1], 0).into()).unwrap();
        let waited = |patience| {
            let started = std::time::Instant::now();
            wait_readable(std::iter::once(receiver.as_fd()), patience).unwrap();
            started.elapsed()
        };
        assert!(waited(Duration::from_millis(50)) >= Duration::from_millis(50));
        let to = receiver.local_addr().unwrap().as_socket().unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0; 64], to).unwrap();
        assert!(waited(Duration::from_secs(60)) < Duration::from_secs(30));
    }

    #[test]
    fn a_full_socket_says_how_much_it_dropped() {
        let receiver = udp_responder(([127, 0, 0, 1], 0).into()).unwrap();
        receiver.set_recv_buffer_size(1).unwrap();
        assert_eq!(dropped_packets(&receiver), Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap().as_socket().unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 64], to).unwrap();
        }
        let dropped = dropped_packets(&receiver).unwrap();
        assert!((1..100).contains(&dropped), "{dropped}");
    }
}
