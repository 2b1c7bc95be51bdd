//! Sends a train of packets and collects when they arrived, from the replies. Blocking.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::clock::Wall;
use crate::net::{Inbox, Outbox, udp_prober, wait_readable};
use crate::protocol::fleet_key::FleetKeys;
use crate::protocol::icmp::Family;
use crate::protocol::wire::{PACKET_LEN, ProbeRequest, Reply, Sequence, SessionId, packet};

/// Packets of a train.
pub(crate) const TRAIN_PACKETS: u32 = 64;
/// Bytes of each with its IP header: what every path must carry (RFC 8200).
pub(crate) const TRAIN_PACKET_BYTES: u32 = 1_280;
/// Room for a whole train in the socket, so that it leaves at once.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// How long to wait when the socket takes no more packets.
const FULL_FOR: Duration = Duration::from_millis(1);

/// What became of one train.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Train {
    /// Packets sent.
    pub(crate) sent: u32,
    /// Bytes of each packet, with its IP header.
    pub(crate) packet_bytes: u32,
    /// How long the send of the whole train took.
    pub(crate) took: Duration,
    /// When packets arrived at the peer, by its kernel's clock. In any order.
    pub(crate) arrived: Vec<Wall>,
}

/// A socket for trains to one peer.
pub(crate) struct TrainSender {
    socket: Socket,
    to: SocketAddr,
    session: SessionId,
    next: u64,
    payload: usize,
}

impl TrainSender {
    pub(crate) fn open(to: SocketAddr) -> io::Result<Self> {
        let family = Family::of(to.ip());
        let socket = udp_prober(family)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let headers = match family {
            Family::V4 => 28,
            Family::V6 => 48,
        };
        let session = SessionId(rand::random());
        Ok(Self { socket, to, session, next: 0, payload: TRAIN_PACKET_BYTES as usize - headers })
    }

    /// Sends one train, and waits for its replies for at most `patience` after the last packet
    /// left.
    pub(crate) fn send(&mut self, keys: Option<&FleetKeys>, patience: Duration) -> io::Result<Train> {
        let first = self.next;
        self.next += u64::from(TRAIN_PACKETS);
        let mut outbox = Outbox::new(TRAIN_PACKETS as usize, self.payload);
        for sequence in first..self.next {
            let request = ProbeRequest { session: self.session, sequence: Sequence(sequence), sent: Wall::now() };
            let mut start = request.encode_in_train();
            if let Some(keys) = keys {
                keys.sign(FleetKeys::signing(), &mut start);
            }
            outbox.push(&start, self.to, None);
        }
        let begun = Instant::now();
        let mut sent = 0;
        while sent < outbox.len() {
            match outbox.send(self.socket.as_fd(), sent) {
                Ok(more) => sent += more.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < patience => {
                    std::thread::sleep(FULL_FOR);
                }
                Err(error) => return Err(error),
            }
        }
        let took = begun.elapsed();
        let arrived = self.arrivals(first, keys, patience)?;
        Ok(Train { sent: TRAIN_PACKETS, packet_bytes: TRAIN_PACKET_BYTES, took, arrived })
    }

    /// When the packets from `first` on arrived at the peer.
    fn arrivals(&self, first: u64, keys: Option<&FleetKeys>, patience: Duration) -> io::Result<Vec<Wall>> {
        let mut inbox = Inbox::new(TRAIN_PACKETS as usize, PACKET_LEN + 1);
        let mut arrived = vec![None; TRAIN_PACKETS as usize];
        let sent = Instant::now();
        while arrived.contains(&None) && sent.elapsed() < patience {
            wait_readable(std::iter::once(self.socket.as_fd()), patience.saturating_sub(sent.elapsed()))?;
            if inbox.receive(self.socket.as_fd()).is_err() {
                // What woke us is an ICMP error; a packet that did not arrive has no time.
                let _ = inbox.receive_errors(self.socket.as_fd());
                continue;
            }
            for datagram in inbox.iter() {
                let Some((sequence, at)) = self.reply(datagram.bytes, keys) else { continue };
                let place = sequence.checked_sub(first).and_then(|index| arrived.get_mut(usize::try_from(index).ok()?));
                if let Some(place) = place {
                    place.get_or_insert(at);
                }
            }
        }
        Ok(arrived.into_iter().flatten().collect())
    }

    fn reply(&self, bytes: &[u8], keys: Option<&FleetKeys>) -> Option<(u64, Wall)> {
        let reply = Reply::decode(bytes).ok().filter(|reply| reply.request.session == self.session)?;
        if let Some(keys) = keys {
            keys.verify(packet(bytes).ok()?)?;
        }
        Some((reply.request.sequence.0, reply.arrived))
    }
}
