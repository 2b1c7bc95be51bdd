//! A backend that answers like a queue-proxy: probes itself, everything else with its own name.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A backend; it ends with this.
pub(crate) struct Backend {
    /// Headers of the last request other than a probe.
    pub(crate) last_headers: Arc<std::sync::Mutex<Vec<(String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    pub(crate) async fn start(name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let last_headers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (name, headers) = (name.to_owned(), last_headers.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (name, headers) = (name.clone(), headers.clone());
                connections.spawn(async move {
                    let _ = answer(stream, &name, &headers).await;
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
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    loop {
        // The request line, then headers up to an empty line. Bodies are not read: nobody here sends one.
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
            // What a web socket carries does not matter to anybody on its way: it is sent back as it is.
            tokio::io::copy_buf(&mut lines.into_inner(), &mut write).await?;
            return Ok(());
        } else {
            *last_headers.lock().expect("no holder panics") = headers.clone();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())
        };
        write.write_all(response.as_bytes()).await?;
    }
}
