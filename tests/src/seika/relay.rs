//! A way to the API server that can go silent: connections stay open and nothing comes through any
//! more, as when the machine at the other end loses power or something between has forgotten them.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Passes bytes on as long as it is kept.
pub struct Relay {
    address: SocketAddr,
    silenced: watch::Sender<u64>,
    accepting: AbortHandle,
}

impl Relay {
    /// Begins to pass on to `upstream`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let silenced = watch::Sender::new(0);
        let from = silenced.clone();
        let accepting = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass_on(stream, upstream, from.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, silenced, accepting: accepting.abort_handle() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing comes through the connections that are open now, in either direction, and none of
    /// them ends. Later ones work.
    pub fn silence(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(mut stream: TcpStream, upstream: SocketAddr, mut silenced: watch::Receiver<u64>) {
    let Ok(mut upstream) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut upstream) => {}
        _ = silenced.changed() => std::future::pending().await,
    }
}
