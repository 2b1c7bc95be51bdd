//! The responder of UDP probes: answers valid requests, with the kernel's timestamp of their
//! arrival.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::clock::{Mono, Wall};
use crate::net::limiter::Limiter;
use crate::net::{Datagram, Inbox, Outbox, register, udp_responder};
use crate::protocol::control_message::LocalAddress;
use crate::protocol::fleet_key::{KeyIndex, SharedKeys};
use crate::protocol::wire::{LONGEST_IN_TRAIN, PACKET_LEN, ProbeRequest, Reply, WireError};

/// Few enough that the first answer of a batch is not timestamped long before the last one leaves.
const BATCH: usize = 4;
/// One byte more than the longest request, to recognise longer packets.
const LONGEST: usize = LONGEST_IN_TRAIN + 1;

/// Counters of a responder.
#[derive(Debug, Default)]
pub struct ResponderCounters {
    answered: AtomicU64,
    malformed: AtomicU64,
    unsigned: AtomicU64,
    limited: AtomicU64,
    failed: AtomicU64,
}

impl ResponderCounters {
    /// The counters by name.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 5] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("answered", read(&self.answered)),
            ("malformed", read(&self.malformed)),
            ("unsigned", read(&self.unsigned)),
            ("limited", read(&self.limited)),
            ("failed", read(&self.failed)),
        ]
    }
}

/// Which requests a responder answers.
#[derive(Debug)]
pub struct AnswerPolicy {
    /// Only requests signed with one of these keys, if there are any.
    pub keys: SharedKeys,
    /// Limit per source and second; 0 = none.
    pub per_source_second: u32,
}

/// A responder with open sockets.
#[derive(Debug)]
pub struct Responder {
    sockets: Vec<AsyncFd<Socket>>,
    keys: SharedKeys,
    limiter: Option<Limiter>,
    counters: Arc<ResponderCounters>,
}

/// A request to be answered.
struct Accepted {
    request: ProbeRequest,
    arrived: Wall,
    from: SocketAddr,
    to: Option<LocalAddress>,
    signed_with: Option<KeyIndex>,
}

/// Why a request is not answered.
enum RequestRefusal {
    Malformed,
    Unsigned,
    Limited,
}

impl From<WireError> for RequestRefusal {
    fn from(_: WireError) -> Self {
        Self::Malformed
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen for probes on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Responder {
    /// Listens on all `addresses`. Those of a family that this machine lacks are skipped, unless
    /// none remains. Call it on the runtime that will run the responder.
    ///
    /// # Errors
    /// [`ListenError`] with the address.
    pub fn open(addresses: &[SocketAddr], policy: AnswerPolicy, counters: Arc<ResponderCounters>) -> Result<Self, ListenError> {
        let mut sockets = Vec::new();
        let mut missing = None;
        for &address in addresses {
            let opened = udp_responder(address).and_then(register);
            match opened.map_err(|source| ListenError { address, source }) {
                Ok(socket) => sockets.push(socket),
                Err(error) if is_family_missing(&error.source) => {
                    tracing::info!(%address, error = %error.source, "skipped a listen address of a family that this machine lacks");
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if sockets.is_empty() => Err(error),
            _ => Ok(Self { sockets, keys: policy.keys, limiter: Limiter::new(policy.per_source_second), counters }),
        }
    }

    /// The addresses that it listens on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.get_ref().local_addr().ok()?.as_socket()).collect()
    }

    /// Answers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut inbox = Inbox::new(BATCH, LONGEST);
        let mut outbox = Outbox::new(BATCH, PACKET_LEN);
        let mut accepted = Vec::with_capacity(BATCH);
        loop {
            let index = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                index = self.readable() => index,
            };
            match self.sockets[index].try_io(Interest::READABLE, |socket| inbox.receive(socket.as_fd())) {
                Ok(_) => {
                    self.accept(&inbox, &mut accepted);
                    self.answer(self.sockets[index].get_ref(), &accepted, &mut outbox);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::debug!(%error, "failed to receive"),
            }
        }
    }

    async fn readable(&self) -> usize {
        poll_fn(|context| {
            let ready =
                self.sockets.iter().position(|socket| matches!(socket.poll_read_ready(context), std::task::Poll::Ready(Ok(_))));
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    fn accept(&mut self, inbox: &Inbox, accepted: &mut Vec<Accepted>) {
        accepted.clear();
        let (read, now) = (Wall::now(), Mono::now());
        for datagram in inbox.iter() {
            match self.judge(&datagram, read, now) {
                Ok(request) => accepted.push(request),
                Err(RequestRefusal::Malformed) => count(&self.counters.malformed, 1),
                Err(RequestRefusal::Unsigned) => count(&self.counters.unsigned, 1),
                Err(RequestRefusal::Limited) => count(&self.counters.limited, 1),
            }
        }
    }

    /// The tag is checked before the limit, because a source address can be forged and a tag
    /// cannot: without the key the limit of a node cannot be used up. Without keys the address is
    /// all there is.
    fn judge(&mut self, datagram: &Datagram<'_>, read: Wall, now: Mono) -> Result<Accepted, RequestRefusal> {
        let (request, signed) = ProbeRequest::decode_any(datagram.bytes)?;
        let from = datagram.from.ok_or(RequestRefusal::Malformed)?;
        let signed_with = match &*self.keys.borrow() {
            Some(keys) => Some(keys.verify(signed).ok_or(RequestRefusal::Unsigned)?),
            None => None,
        };
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.allows(from.ip(), now)) {
            return Err(RequestRefusal::Limited);
        }
        Ok(Accepted { request, arrived: datagram.notes.stamp.unwrap_or(read), from, to: datagram.notes.to, signed_with })
    }

    fn answer(&self, socket: &Socket, accepted: &[Accepted], outbox: &mut Outbox) {
        outbox.clear();
        let keys = self.keys.borrow().clone();
        let answered = Wall::now();
        for Accepted { request, arrived, from, to, signed_with } in accepted {
            let mut packet = Reply { request: *request, arrived: *arrived, answered }.encode();
            if let Some((keys, with)) = keys.as_ref().zip(*signed_with) {
                keys.sign(with, &mut packet);
            }
            outbox.push(&packet, *from, *to);
        }
        let mut first = 0;
        while first < outbox.len() {
            match outbox.send(socket.as_fd(), first) {
                Ok(sent) => {
                    count(&self.counters.answered, sent);
                    first += sent.max(1);
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to answer a probe");
                    count(&self.counters.failed, 1);
                    first += 1;
                }
            }
        }
    }
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use tokio::net::UdpSocket;
    use tokio::sync::watch;

    use super::*;
    use crate::protocol::fleet_key::FleetKeys;
    use crate::protocol::wire::{Packet, Sequence, SessionId};

    fn request(sequence: u64) -> Packet {
        ProbeRequest { session: SessionId(1), sequence: Sequence(sequence), sent: Wall::from_nanos(2) }.encode()
    }

    /// Whoever has no key may forge a node's address, but uses up nothing of what the node may ask.
    #[tokio::test]
    async fn packets_without_the_key_do_not_count_against_the_limit() {
        const LIMIT: u32 = 5;
        let keys = FleetKeys::parse("the key of the fleet of this test", Path::new("key")).unwrap();
        let (_keys_out, keys_in) = watch::channel(Some(Arc::new(keys.clone())));
        let counters = Arc::new(ResponderCounters::default());
        let policy = AnswerPolicy { keys: keys_in, per_source_second: LIMIT };
        let responder = Responder::open(&["127.0.0.1:0".parse().unwrap()], policy, counters.clone()).unwrap();
        let (to, stop) = (responder.addresses()[0], CancellationToken::new());
        let answering = tokio::spawn(responder.run(stop.clone()));

        let source = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for sequence in 0..200 {
            source.send_to(&request(sequence), to).await.unwrap();
        }
        let mut signed = request(1_000);
        keys.sign(FleetKeys::signing(), &mut signed);
        source.send_to(&signed, to).await.unwrap();
        let mut reply = [0; PACKET_LEN];
        let answered = tokio::time::timeout(Duration::from_secs(60), source.recv_from(&mut reply)).await;
        assert_eq!(answered.expect("the one with the key is answered").unwrap(), (PACKET_LEN, to));
        assert_eq!(Reply::decode(&reply).unwrap().request.sequence, Sequence(1_000));

        // Who has the key has the limit.
        let begun = Instant::now();
        for _ in 0..100 {
            source.send_to(&signed, to).await.unwrap();
        }
        let limited = || counters.read().into_iter().find(|(name, _)| *name == "limited").map_or(0, |(_, count)| count);
        loop {
            // All but those of each second that it took, the first and the last of them not whole.
            let answered = u64::from(LIMIT) * (begun.elapsed().as_secs() + 2);
            if limited() + answered >= 100 && limited() > 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", counters.read());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        answering.await.unwrap();
    }
}
