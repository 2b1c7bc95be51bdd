//! A way to the API server that can fall silent: connections stay, and nothing passes any more.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on until it falls silent.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    // Connections that were made before this many silences pass nothing any more.
    silences: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Starts one to `target`.
    pub async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let silences = watch::Sender::new(0);
        let subscribed = silences.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let silence = subscribed.subscribe();
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::join!(pass(near_read, far_write, silence.clone()), pass(far_read, near_write, silence));
                });
            }
        });
        Ok(Self { address, silences, task })
    }

    /// From now on no connection that there is passes anything. New ones do.
    pub fn fall_silent(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut silence: watch::Receiver<u64>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = silence.changed() => std::future::pending().await,
            read = from.read(&mut buffer) => read,
        };
        let Ok(1..) = read else { return };
        let length = read.unwrap_or_default();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
