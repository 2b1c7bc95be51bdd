//! What takes long: uploads to a pod that pauses, requests across a roll-out of the gateways, and a
//! connection to the API server that has fallen silent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use locality_ingress::endpoints::LocalityPolicy;
use scorecards::{Figure, Goal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::load::Connection;
use crate::stage::{Stage, entry};
use kantai_tests::ingress::backend::{Backend, Manner};
use kantai_tests::ingress::bench::{NODES, gateway_pod_address, pod_address};
use kantai_tests::ingress::gateway::Gateway;
use kantai_tests::ingress::relay::Relay;

/// Large uploads at once, to a pod that reads the head of a request and then nothing for a while.
pub(crate) async fn uploads_to_a_pausing_pod(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    const UPLOADS: usize = 20;
    const BYTES: u64 = 64 * 1024 * 1024;
    const PAUSE: Duration = Duration::from_secs(30);
    let pod = start_pausing_pod(pod_address(1, 1), PAUSE).await?;
    let host = stage.revision("upload", &[(1, 1)]).await?;
    let began = Instant::now();
    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        uploads.spawn(upload(entry(1), host.clone(), BYTES));
    }
    let mut failed = 0;
    while let Some(status) = uploads.join_next().await {
        match status? {
            Ok(200) => {}
            other => {
                eprintln!("an upload failed: {other:?}");
                failed += 1;
            }
        }
    }
    eprintln!("{UPLOADS} uploads of {BYTES} bytes with a pause of {PAUSE:?} took {:?}", began.elapsed());
    pod.abort();
    stage.forget("upload").await?;
    Ok(vec![Figure::failed("upload_pause_failed", failed)])
}

async fn start_pausing_pod(address: SocketAddr, pause: Duration) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(receive_upload(stream, pause));
        }
    }))
}

async fn receive_upload(mut stream: TcpStream, pause: Duration) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    tokio::time::sleep(pause).await;
    tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await
}

/// Uploads `bytes` and returns the status of the response.
async fn upload(gateway: SocketAddr, host: String, bytes: u64) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(gateway).await?;
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    // A response that comes before the end of the upload ends the upload.
    let sent = async { tokio::io::copy(&mut tokio::io::repeat(b'x').take(bytes), &mut write).await.map(drop) };
    let mut status_line = [0; 12];
    let (_, answered) = tokio::join!(sent, read.read_exact(&mut status_line));
    answered.context("no response")?;
    let status = std::str::from_utf8(&status_line)?.strip_prefix("HTTP/1.1 ").context("no HTTP response")?;
    Ok(status.parse()?)
}

/// Requests that take a minute, while all gateways are replaced at once.
pub(crate) async fn long_requests_across_a_roll_out(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    const PER_GATEWAY: usize = 10;
    const SLOW: Manner = Manner { at_once: 1_000, takes: Duration::from_secs(60) };
    let _pod = Backend::with_manner("pod", pod_address(1, 1), SLOW).await?;
    let host = stage.revision("long", &[(1, 1)]).await?;
    let (old, new) = (stage.pod, 3 - stage.pod);
    let mut requests = JoinSet::new();
    for node in NODES {
        for _ in 0..PER_GATEWAY {
            let gateway = (gateway_pod_address(node, old), 8081).into();
            let mut connection = Connection::open(gateway, &host).await?;
            requests.spawn(async move { connection.ask().await });
        }
    }
    // The requests are in flight before any gateway is told to end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut replacements = Vec::new();
    for node in NODES {
        replacements.push(stage.bench.gateway_pod(node, new).await?);
    }
    stage.bench.gateway_pods_ready(&NODES.map(|node| (node, new)), &NODES.map(|node| (node, old))).await?;
    let ending = std::mem::replace(&mut stage.gateways, replacements);
    futures::future::try_join_all(ending.into_iter().map(Gateway::end_as_a_pod)).await?;
    stage.pod = new;
    let mut failed = 0;
    while let Some(answer) = requests.join_next().await {
        match answer? {
            Ok(answer) if answer.status == 200 => {}
            other => {
                eprintln!("a long request failed: {other:?}");
                failed += 1;
            }
        }
    }
    stage.forget("long").await?;
    Ok(vec![Figure::failed("drain_long_failed", failed)])
}

/// All connections to the API server fall silent: until a change is acted upon all the same.
pub(crate) async fn silent_api_server(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let _pods = [Backend::start("old", pod_address(1, 1)).await?, Backend::start("new", pod_address(1, 2)).await?];
    let host = stage.revision("silent", &[(1, 1)]).await?;
    stage.kill_daemon().await?;
    let relay = Relay::to(stage.bench.api_server()?).await?;
    let daemon = stage.bench.daemon_through(Some(relay.address), LocalityPolicy::Locality, &stage.plan.url).await?;
    // The daemon follows once it has acted upon a change.
    stage.bench.pods("silent-00001", &[(1, 2)]).await?;
    wait_until_served_by(stage, &host, "new", PATIENCE).await?;
    relay.fall_silent();
    let began = Instant::now();
    stage.bench.pods("silent-00001", &[(1, 1)]).await?;
    wait_until_served_by(stage, &host, "old", PATIENCE).await?;
    let took = began.elapsed();
    daemon.end().await?;
    stage.start_daemon()?;
    stage.forget("silent").await?;
    Ok(vec![Figure { id: "stall_notice_s", value: took.as_secs_f64(), unit: "s", goal: Goal::AtMost(30.0) }])
}

async fn wait_until_served_by(stage: &Stage, host: &str, pod: &str, patience: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (status, who) = stage.bench.get(1, 8081, host, "/").await?;
        if who == pod {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < patience, "still served by {who:?} ({status}) after {patience:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
