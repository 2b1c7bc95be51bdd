//! Senders of requests, as thin as can be: what they cost is taken from what is measured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// No answer within this is a failure.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    line: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Who answered.
    pub(crate) who: String,
    /// Whether the other side ends the connection.
    pub(crate) last: bool,
}

impl Connection {
    pub(crate) async fn open(gateway: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes();
        Ok(Self { stream: BufReader::new(stream), request, line: Vec::new() })
    }

    /// Whether the other side has not ended it, as far as is known.
    fn is_open(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.get_ref().try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(crate) async fn ask(&mut self) -> anyhow::Result<Answer> {
        self.stream.get_mut().write_all(&self.request).await?;
        self.next_line().await?;
        let status = std::str::from_utf8(&self.line)?.split(' ').nth(1).context("no status")?.parse()?;
        let (mut length, mut last) = (0, false);
        loop {
            self.next_line().await?;
            let header = std::str::from_utf8(&self.line)?.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
            last |= header == "connection: close";
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, who: String::from_utf8(body)?, last })
    }

    async fn next_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        let read = self.stream.read_until(b'\n', &mut self.line).await?;
        anyhow::ensure!(read > 0, "the connection ended");
        Ok(())
    }
}

/// `count` requests in all over `connections` connections: how many each answered; what failed is
/// under its status.
pub(crate) async fn shares(
    gateway: SocketAddr,
    host: &str,
    connections: usize,
    count: usize,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(gateway, host).await?;
        senders.spawn(async move {
            let mut shares: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..count / connections {
                let answer = connection.ask().await?;
                let who = if answer.status == 200 { answer.who } else { answer.status.to_string() };
                *shares.entry(who).or_default() += 1;
            }
            anyhow::Ok(shares)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(shares) = senders.join_next().await {
        for (who, count) in shares?? {
            *all.entry(who).or_default() += count;
        }
    }
    Ok(all)
}

/// How many requests `connections` connections get answered within `time`, each sending the next
/// when it has its answer.
pub(crate) async fn throughput(
    gateway: SocketAddr,
    host: &str,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Throughput> {
    let mut senders = JoinSet::new();
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(gateway, host).await?);
    }
    let until = Instant::now() + time;
    for mut connection in opened {
        senders.spawn(async move {
            let mut done = Throughput::default();
            while Instant::now() < until {
                match connection.ask().await? {
                    Answer { status: 200, .. } => done.answered += 1,
                    _ => done.failed += 1,
                }
            }
            anyhow::Ok(done)
        });
    }
    let mut all = Throughput::default();
    while let Some(done) = senders.join_next().await {
        let done = done??;
        all.answered += done.answered;
        all.failed += done.failed;
    }
    Ok(all)
}

/// What closed-loop senders got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throughput {
    /// Answers of 200.
    pub(crate) answered: usize,
    /// Other answers.
    pub(crate) failed: usize,
}

/// What became of one request of an [`OpenLoop`].
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// When it was sent.
    pub(crate) sent: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// Who answered, or why nobody did.
    pub(crate) answer: Result<String, String>,
}

/// Requests at a steady rate, whatever is still under way, over connections that are kept and used
/// again: what a client's own pool does. What fails is not tried again.
pub(crate) struct OpenLoop {
    gateway: watch::Sender<SocketAddr>,
    stop: watch::Sender<bool>,
    sender: tokio::task::JoinHandle<Vec<Outcome>>,
}

impl OpenLoop {
    pub(crate) fn start(gateway: SocketAddr, host: &str, per_second: u32) -> Self {
        let (gateway, to) = watch::channel(gateway);
        let (stop, stopped) = watch::channel(false);
        let sender = tokio::spawn(send(to, host.to_owned(), per_second, stopped));
        Self { gateway, stop, sender }
    }

    /// New connections go there from now on, as kube-proxy would have it; old ones stay where they
    /// are.
    pub(crate) fn turn_to(&self, gateway: SocketAddr) {
        self.gateway.send_replace(gateway);
    }

    /// Sends no more, and waits for what is under way.
    pub(crate) async fn end(self) -> anyhow::Result<Vec<Outcome>> {
        self.stop.send_replace(true);
        Ok(self.sender.await?)
    }
}

type Pool = Arc<Mutex<Vec<Connection>>>;

async fn send(to: watch::Receiver<SocketAddr>, host: String, per_second: u32, stopped: watch::Receiver<bool>) -> Vec<Outcome> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let pool = Pool::default();
    let mut under_way = JoinSet::new();
    let mut outcomes = Vec::new();
    while !*stopped.borrow() {
        ticks.tick().await;
        let (gateway, host, pool) = (*to.borrow(), host.clone(), pool.clone());
        under_way.spawn(async move {
            let sent = Instant::now();
            let answer = match tokio::time::timeout(PATIENCE, ask_once(gateway, &host, &pool)).await {
                Ok(Ok(Answer { status: 200, who, .. })) => Ok(who),
                Ok(Ok(Answer { status, .. })) => Err(format!("status {status}")),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            Outcome { sent, took: sent.elapsed(), answer }
        });
        while let Some(done) = under_way.try_join_next() {
            outcomes.extend(done);
        }
    }
    while let Some(done) = under_way.join_next().await {
        outcomes.extend(done);
    }
    outcomes
}

async fn ask_once(gateway: SocketAddr, host: &str, pool: &Pool) -> anyhow::Result<Answer> {
    let kept = {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        // As any client does, it leaves those that have been ended meanwhile.
        std::iter::from_fn(|| pool.pop()).find(Connection::is_open)
    };
    let mut connection = match kept {
        Some(kept) => kept,
        None => Connection::open(gateway, host).await?,
    };
    let answer = connection.ask().await?;
    if !answer.last {
        pool.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
    Ok(answer)
}
