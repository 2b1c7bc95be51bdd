//! What went over the wire, as a packet capture sees it: an independent witness of every round-trip
//! time.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

/// Kernel stamps of requests and of replies, by the address that answers and the sequence number.
pub(crate) type Stamps = HashMap<(Ipv4Addr, u64), [Option<i64>; 2]>;

/// A capture of the probes that pass the devices of one namespace.
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Stamps>,
}

impl Capture {
    /// Starts one in the namespace of this thread.
    pub(crate) fn start() -> Self {
        let everything = Protocol::from(i32::from(u16::try_from(libc::ETH_P_ALL).unwrap().to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(everything)).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || record(&socket, &stop)
        });
        Self { stop, thread }
    }

    /// Ends it and gives what it saw.
    pub(crate) fn end(self) -> Stamps {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn record(socket: &Socket, stop: &AtomicBool) -> Stamps {
    let mut stamps = Stamps::new();
    let mut buffer = [0; 256];
    let mut control = cmsg_space!(TimeSpec);
    while !stop.load(Ordering::Relaxed) {
        let mut vectors = [IoSliceMut::new(&mut buffer)];
        let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut vectors, Some(&mut control), MsgFlags::empty()) else {
            continue;
        };
        let stamp = message.cmsgs().unwrap().find_map(|note| match note {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp.tv_sec() * 1_000_000_000 + stamp.tv_nsec()),
            _ => None,
        });
        let length = message.bytes;
        // Ethernet, IPv4 without options, UDP; then the probe.
        let Some(probe) = buffer.get(42..length).filter(|probe| probe.starts_with(b"KLPB")) else { continue };
        let sequence = u64::from_be_bytes(probe[16..24].try_into().unwrap());
        let is_reply = probe[5] == 2;
        // Source and destination are the last eight bytes of the IPv4 header.
        let answering = if is_reply { &buffer[26..30] } else { &buffer[30..34] };
        let answering = <[u8; 4]>::try_from(answering).unwrap().into();
        // A capture sees a packet once at each device it passes; a cable's end is one device.
        stamps.entry((answering, sequence)).or_default()[usize::from(is_reply)].get_or_insert(stamp.unwrap());
    }
    stamps
}

/// The time on the wire of each probe of one peer that both ends saw whole, in order of sequence
/// number.
pub(crate) fn wire_nanos(peer: Ipv4Addr, near: &Stamps, far: &Stamps) -> Vec<i64> {
    let whole = |stamps: &Stamps, probe| stamps.get(probe).and_then(|[request, reply]| Some((*reply)? - (*request)?));
    let probes = near.keys().filter(|(answering, _)| *answering == peer);
    let mut times: Vec<_> = probes.filter_map(|probe| Some((probe.1, whole(near, probe)? - whole(far, probe)?))).collect();
    times.sort_unstable();
    times.into_iter().map(|(_, nanos)| nanos).collect()
}
