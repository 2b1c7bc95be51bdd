//! A backend that answers like a queue-proxy: probes itself, everything else with its own name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::bench::eventually;

/// A backend; it ends with this.
pub struct Backend {
    /// Headers of the last request other than a probe.
    pub last_headers: Arc<std::sync::Mutex<Vec<(String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a backend answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How many requests it answers at once; the others wait, as at a queue-proxy.
    pub at_once: usize,
    /// How long it takes for each.
    pub takes: Duration,
}

impl Backend {
    /// Starts one that answers at once, however many requests there are.
    pub async fn start(name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        Self::with_manner(name, address, Manner { at_once: Semaphore::MAX_PERMITS, takes: Duration::ZERO }).await
    }

    /// Starts one that answers in this manner.
    pub async fn with_manner(name: &str, address: SocketAddr, manner: Manner) -> anyhow::Result<Self> {
        let slots = Arc::new(Semaphore::new(manner.at_once));
        // One that was there before may still be on its way out.
        let listener = eventually("the address to be free", async || Ok(TcpListener::bind(address).await?)).await?;
        let last_headers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (name, headers) = (name.to_owned(), last_headers.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (name, headers, slots) = (name.clone(), headers.clone(), slots.clone());
                connections.spawn(async move {
                    let _ = answer(stream, &name, &headers, (&slots, manner.takes)).await;
                });
            }
        });
        Ok(Self { last_headers, task })
    }
}

async fn answer(
    mut stream: TcpStream,
    name: &str,
    last_headers: &std::sync::Mutex<Vec<(String, String)>>,
    (slots, takes): (&Semaphore, Duration),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    loop {
        // The request line, then headers up to an empty line. Requests here have no bodies.
        let Some(_request_line) = lines.next_line().await? else { return Ok(()) };
        let mut headers = Vec::new();
        while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
            if let Some((key, value)) = line.split_once(':') {
                headers.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let header = |wanted: &str| headers.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
        let response = if header("k-network-probe").as_deref() == Some("probe") {
            let hash = header("k-network-hash").unwrap_or_default();
            format!("HTTP/1.1 200 OK\r\nk-network-hash: {hash}\r\ncontent-length: 0\r\n\r\n")
        } else if header("upgrade").as_deref() == Some("websocket") {
            write.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await?;
            // The content of a web socket is echoed.
            tokio::io::copy_buf(&mut lines.into_inner(), &mut write).await?;
            return Ok(());
        } else {
            *last_headers.lock().expect("no holder panics") = headers;
            if !takes.is_zero() {
                let _slot = slots.acquire().await;
                tokio::time::sleep(takes).await;
            }
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())
        };
        write.write_all(response.as_bytes()).await?;
    }
}
