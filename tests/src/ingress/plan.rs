//! A writer of plans, as the extra-controller is one.

use std::net::SocketAddr;

use gateway_link::{Event, RevisionKey, RevisionRoutes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A stream of routes over HTTP.
pub struct PlanWriter {
    /// Where it is read.
    pub url: String,
    lines: watch::Sender<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for PlanWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PlanWriter {
    /// Starts one without routes.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let (lines, receiver) = watch::channel(Event::Snapshot { version: 0, parts_left: 0, routes: Vec::new() }.to_line());
        let task = tokio::spawn(async move {
            let mut readers = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut receiver = receiver.clone();
                receiver.mark_changed();
                readers.spawn(async move {
                    // The request goes on until an empty line; there is only one thing that it can
                    // ask for.
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await?);
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                    while receiver.changed().await.is_ok() {
                        let line = receiver.borrow_and_update().clone();
                        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        Ok(Self { url: format!("http://{address}{}", gateway_link::ROUTES_PATH), lines, task })
    }

    /// Everything that is planned from now on: one revision's rows.
    pub fn say(&self, revision: &str, rows: &[(&str, &[(&str, u32)])]) -> anyhow::Result<()> {
        let rows = rows.iter().map(|(source, row)| (*source, row.iter().map(|&(node, weight)| (node, weight))));
        let routes = RevisionRoutes::new(RevisionKey::new("default", revision), rows)?;
        self.lines.send_replace(Event::Snapshot { version: 1, parts_left: 0, routes: vec![routes] }.to_line());
        Ok(())
    }
}
