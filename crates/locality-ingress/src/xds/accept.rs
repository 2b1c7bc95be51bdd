//! Accepts the connections of gateways, over TLS if configured.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Concurrent handshakes: each costs a signature.
const HANDSHAKES: usize = 64;
/// How long to wait after a failed accept: the system is out of some resource.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Concurrent connections per address. A gateway has one, and two for a moment after a break.
const CONNECTIONS_PER_PEER: usize = 16;

/// A gateway's connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    counted: Counted,
}

/// The number of connections per address.
#[derive(Clone, Debug, Default)]
struct ConnectionsByAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A counted connection; dropping it decrements the count.
#[derive(Debug)]
struct Counted {
    peers: ConnectionsByAddress,
    address: IpAddr,
}

impl ConnectionsByAddress {
    /// Counts one more connection of `address`, unless it has the maximum.
    fn count(&self, address: IpAddr) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count == CONNECTIONS_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Counted { peers: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Accepts connections until the receiver is dropped.
pub(super) fn connections(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let (handshakes, peers) = (Arc::new(Semaphore::new(HANDSHAKES)), ConnectionsByAddress::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            // Small responses must not wait for the ACK of earlier segments.
            let (stream, address) =
                match accepted.and_then(|(stream, peer)| stream.set_nodelay(true).map(|()| (stream, peer.ip()))) {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a gateway");
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                        continue;
                    }
                };
            let Some(counted) = peers.count(address) else {
                tracing::warn!(%address, "refused a connection: too many from this address");
                continue;
            };
            let Some(tls) = &tls else {
                let _ = sender.send(Ok(Connection { stream: Either::Left(stream), counted })).await;
                continue;
            };
            let (config, sender, handshakes) = (tls.borrow().clone(), sender.clone(), handshakes.clone());
            tokio::spawn(async move {
                let Ok(_one_of_them) = handshakes.acquire().await else { return };
                let peer = stream.peer_addr().ok();
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
                    // The receiver is gone only while the process stops.
                    Ok(Ok(stream)) => {
                        let _ = sender.send(Ok(Connection { stream: Either::Right(Box::new(stream)), counted })).await;
                    }
                    Ok(Err(error)) => tracing::warn!(?peer, %error, "refused a gateway: TLS handshake failed"),
                    Err(_) => tracing::warn!(?peer, "refused a gateway: TLS handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

/// The peer's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) IpAddr);

impl Connected for Connection {
    type ConnectInfo = PeerAddress;

    fn connect_info(&self) -> PeerAddress {
        PeerAddress(self.counted.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_no_more_until_one_ends() {
        let peers = ConnectionsByAddress::default();
        let [one, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let mut counted: Vec<_> = (0..CONNECTIONS_PER_PEER).map(|_| peers.count(one).unwrap()).collect();
        assert!(peers.count(one).is_none());
        drop(peers.count(other).unwrap());
        counted.pop();
        assert!(peers.count(one).is_some());
        drop(counted);
        assert!(peers.0.lock().unwrap().is_empty());
    }
}
