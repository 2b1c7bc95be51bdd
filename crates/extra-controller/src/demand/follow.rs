//! Follows the streams of demand that the replicas of locality-ingress serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_link::demand::{DEMAND_PATH, DemandEvent, MAX_LINE_BYTES, SILENCE_SECONDS};
use gateway_link::lines::Lines;
use latency_matrix::{LatencyMatrix, NodeName};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Demands;

/// How often it is looked which replicas there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a stream ended, the first wait before it is asked for again; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// See [`FIRST_WAIT`].
const LONGEST_WAIT: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Follows every replica that `replicas` names (pod name and address) until it is dropped.
pub(crate) async fn follow(
    http: reqwest::Client,
    replicas: impl Fn() -> BTreeMap<String, SocketAddr> + Send,
    demands: Arc<Demands>,
    latency: watch::Receiver<Arc<LatencyMatrix>>,
) {
    let mut tasks: tokio::task::JoinSet<()> = tokio::task::JoinSet::new();
    let mut followed: BTreeMap<String, (SocketAddr, AbortHandle)> = BTreeMap::new();
    loop {
        let present = replicas();
        followed.retain(|name, (address, task)| {
            let stays = present.get(name) == Some(address);
            if !stays {
                task.abort();
                demands.with(|board, now| board.lose(name, now));
            }
            stays
        });
        for (name, address) in present {
            followed.entry(name.clone()).or_insert_with(|| {
                let one = Replica { http: http.clone(), name, address, demands: demands.clone(), latency: latency.clone() };
                (address, tasks.spawn(one.follow()))
            });
        }
        while tasks.try_join_next().is_some() {}
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One replica of locality-ingress.
struct Replica {
    http: reqwest::Client,
    name: String,
    address: SocketAddr,
    demands: Arc<Demands>,
    latency: watch::Receiver<Arc<LatencyMatrix>>,
}

impl Replica {
    async fn follow(self) {
        let mut wait = FIRST_WAIT;
        loop {
            let was_heard = match self.read().await {
                Ok(()) => true,
                Err((was_heard, error)) => {
                    tracing::debug!(replica = self.name, error = &*error as &dyn std::error::Error, "stream of demand ended");
                    was_heard
                }
            };
            self.demands.with(|board, now| board.lose(&self.name, now));
            wait = if was_heard { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads one stream to its end. With an error it is told whether anything was read.
    async fn read(&self) -> Result<(), (bool, Failure)> {
        let mut was_heard = false;
        let silence = Duration::from_secs_f64(SILENCE_SECONDS);
        let failed = |was_heard: bool| move |error: Failure| (was_heard, error);
        let asked = self.http.get(format!("http://{}{DEMAND_PATH}", self.address)).send();
        let answer = tokio::time::timeout(silence, asked).await.map_err(|_| failed(false)("no answer".into()))?;
        let mut response = answer.and_then(reqwest::Response::error_for_status).map_err(|error| failed(false)(error.into()))?;
        let mut lines = Lines::new(MAX_LINE_BYTES);
        loop {
            let chunk = tokio::time::timeout(silence, response.chunk()).await;
            let chunk = chunk.map_err(|_| failed(was_heard)("silent for too long".into()))?;
            let Some(chunk) = chunk.map_err(|error| failed(was_heard)(error.into()))? else { return Ok(()) };
            for line in lines.take_in(&chunk).map_err(|error| failed(was_heard)(error.into()))? {
                let text = std::str::from_utf8(&line).map_err(|error| failed(was_heard)(error.into()))?;
                let event = DemandEvent::from_line(text).map_err(|error| failed(was_heard)(error.into()))?;
                was_heard = true;
                let matrix = self.latency.borrow().clone();
                let rtt_seconds = |source: &NodeName, serving: &NodeName| {
                    matrix.state(source, serving).stats().map_or(0.0, |stats| stats.p50)
                };
                self.demands.with(|board, now| board.take(&self.name, event, now, &rtt_seconds));
                self.demands.wake();
            }
        }
    }
}
