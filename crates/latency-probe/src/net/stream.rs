//! TCP connect and HTTP GET probes: a connection each, closed at once. The time of a connect is the
//! kernel's own RTT of the handshake; HTTP requests and responses are timestamped like packets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::Protocol;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::clock::{ClockReading, Mono, Wall};
use crate::net::{Inbox, connection_info, set_receive_stamps, set_transmit_stamps};
use crate::session::SharedSession;
use crate::session::round_trip::{Discard, RttSample, Trip, round_trip};
use crate::session::{NotSent, ProbeOrder};

/// Bytes that are read of a response.
const ANSWER_START_BYTES: usize = 64;
/// Bytes up to and behind the status: `HTTP/1.1 200` and a separator.
const STATUS_BYTES: usize = 13;

/// Sends stream probes.
pub(crate) struct Streams {
    /// A runtime with one thread; none until the first stream probe.
    runtime: Option<Runtime>,
    session: SharedSession,
    http_path: Arc<str>,
    timeout: Duration,
}

impl Streams {
    /// Stream probes of this session.
    ///
    /// # Errors
    /// The system's error if the session needs a thread for stream probes and there is none.
    pub(crate) fn new(session: SharedSession) -> io::Result<Self> {
        let settings = session.with(|session| session.settings().clone());
        let runtime = settings.method.primary().is_stream().then(new_runtime).transpose()?;
        Ok(Self { runtime, session, http_path: settings.http_path, timeout: settings.timeout })
    }

    /// Sends the orders that are for streams, each in a task of its own. Their number is bounded by
    /// the probes in flight.
    pub(crate) fn send(&mut self, orders: &[ProbeOrder]) {
        let mut orders = orders.iter().copied().filter(|order| order.protocol.is_stream()).peekable();
        if orders.peek().is_none() {
            return;
        }
        if self.runtime.is_none() {
            self.runtime =
                new_runtime().inspect_err(|error| tracing::warn!(%error, "failed to start a thread for TCP probes")).ok();
        }
        for order in orders {
            let Some(runtime) = &self.runtime else {
                self.session.with(|session| session.not_sent(order.sequence, NotSent::OurFault, Mono::now()));
                continue;
            };
            let (session, http_path, timeout) = (self.session.clone(), self.http_path.clone(), self.timeout);
            runtime.spawn(async move {
                // The session counts the loss after the timeout.
                if let Ok(ended) = tokio::time::timeout(timeout, probe(&order, &http_path)).await {
                    session.with(|session| match ended {
                        Ok(time) => session.end_probe(order.sequence, time, None, Mono::now()),
                        Err(error) => {
                            tracing::debug!(to = %order.to, protocol = order.protocol.as_str(), %error, "a probe failed");
                            session.not_sent(order.sequence, why(&error), Mono::now());
                        }
                    });
                }
            });
        }
    }
}

fn new_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("streams").enable_all().build()
}

impl Drop for Streams {
    fn drop(&mut self) {
        // Probes in flight are abandoned.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A limit of this machine says nothing about the peer.
fn why(error: &io::Error) -> NotSent {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => NotSent::OurFault,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => NotSent::NoRoute,
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => NotSent::Refused,
        _ => NotSent::Failed,
    }
}

async fn probe(order: &ProbeOrder, http_path: &str) -> io::Result<Result<RttSample, Discard>> {
    let before = ClockReading::now();
    let stream = connect(order.to).await?;
    let connected = connect_time(&stream, before);
    let time = if order.protocol == Protocol::Http { get(&stream, order.to, http_path).await? } else { connected };
    // A retransmission took a timeout, which is no latency.
    if connection_info(&stream).is_some_and(|info| info.resent) {
        return Err(io::Error::other("a packet of the connection was lost"));
    }
    Ok(time)
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Close by reset: a lingering connection would keep its port for a minute, and ports would run
    // out.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    set_receive_stamps(&socket)?;
    socket.connect(to).await
}

/// The kernel's RTT, else the time we measured.
fn connect_time(stream: &TcpStream, before: ClockReading) -> Result<RttSample, Discard> {
    let (read, held) = (ClockReading::now(), Duration::ZERO);
    let ours = round_trip(&Trip { sent: before, sent_stamp: None, received_stamp: None, read, prompt: true, held })?;
    let theirs = connection_info(stream).and_then(|info| info.round_trip);
    let theirs = theirs.and_then(|time| RttSample::from_nanos(u64::try_from(time.as_nanos()).ok()?));
    Ok(theirs.map_or(ours, |theirs| theirs.min(ours)))
}

async fn get(stream: &TcpStream, to: SocketAddr, path: &str) -> io::Result<Result<RttSample, Discard>> {
    // Where the kernel cannot stamp departures, our own reading just before the send has to do.
    let stamped = set_transmit_stamps(stream, true).is_ok();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nuser-agent: latency-probe\r\nconnection: close\r\n\r\n");
    stream.writable().await?;
    let sent = ClockReading::now();
    if stream.try_write(request.as_bytes())? < request.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the request did not fit into a fresh connection's buffer"));
    }
    let (read, received_stamp, answer) = answer_start(stream).await?;
    match status(&answer) {
        Some(200..=399) => {}
        Some(status) => return Err(io::Error::other(format!("answered with status {status}"))),
        None => return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
    }
    let sent_stamp = if stamped { departure(stream) } else { None };
    Ok(round_trip(&Trip { sent, sent_stamp, received_stamp, read, prompt: true, held: Duration::ZERO }))
}

/// The time of the response's first byte, by our clock and by the kernel's timestamp, and the
/// response as far as its status. It may arrive in pieces.
async fn answer_start(stream: &TcpStream) -> io::Result<(ClockReading, Option<Wall>, Vec<u8>)> {
    let mut inbox = Inbox::new(1, ANSWER_START_BYTES);
    let mut first = None;
    let mut answer = Vec::with_capacity(ANSWER_START_BYTES);
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || inbox.receive(stream.as_fd())) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let (piece, stamp) = inbox.iter().next().map_or((&[][..], None), |piece| (piece.bytes, piece.notes.stamp));
        let (read, stamp) = *first.get_or_insert_with(|| (ClockReading::now(), stamp));
        answer.extend_from_slice(piece);
        // An empty piece is the end of the stream.
        if answer.len() >= STATUS_BYTES || piece.is_empty() {
            return Ok((read, stamp, answer));
        }
    }
}

/// The kernel's timestamp of the request's departure.
fn departure(stream: &TcpStream) -> Option<Wall> {
    let mut inbox = Inbox::new(1, ANSWER_START_BYTES);
    inbox.receive_errors(stream.as_fd()).ok()?;
    inbox.iter().next().filter(|note| note.notes.left.is_some())?.notes.stamp
}

/// The status of an HTTP response, from its first line.
///
/// ```
/// assert_eq!(latency_probe::net::status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
/// assert_eq!(latency_probe::net::status(b"SSH-2.0-OpenSSH_9.2p1\r\n"), None);
/// ```
#[must_use]
pub fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    let ends = after.first().is_none_or(|byte| !byte.is_ascii_digit());
    let number =
        digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')))?;
    (ends && number >= 100).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_status_is_none() {
        for answer in ["", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 -20 ", "HTTP/2.0 200", "HTTP/1.1 099 "] {
            assert_eq!(status(answer.as_bytes()), None, "{answer}");
        }
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(rest in proptest::collection::vec(any::<u8>(), 0..20), ours in any::<bool>()) {
            let answer = [if ours { &b"HTTP/1.1 "[..] } else { b"" }, &rest].concat();
            prop_assert!(status(&answer).is_none_or(|status| (100..1_000).contains(&status)));
        }
    }
}
