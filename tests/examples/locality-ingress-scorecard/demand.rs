//! What gateways report, and what follows from it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use gateway_link::demand::{DEMAND_PATH, DemandEvent, Held, RevisionDemand};
use scorecards::{Figure, Goal};

use crate::figure::{as_f64, quantile_ms};
use crate::load::{Connection, shares, throughput};
use crate::stage::{Stage, entry};
use kantai_tests::ingress::backend::{Backend, Manner};
use kantai_tests::ingress::bench::{NODES, OPS, eventually, pod_address};

/// The pods on the source node are full, there is room elsewhere.
pub(crate) async fn spill(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    const CLIENTS: usize = 16;
    const MANNER: Manner = Manner { at_once: 4, takes: Duration::from_millis(100) };
    const TIME: Duration = Duration::from_secs(20);
    let places = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)];
    let mut pods = Vec::new();
    for (node, pod) in places {
        pods.push(Backend::with_manner(&format!("node{node}"), pod_address(node, pod), MANNER).await?);
    }
    stage.bench.limited_revision("full-00001", MANNER.at_once).await?;
    stage.plan.say("full-00001", &[("node1", &[("node1", 100)])])?;
    let host = stage.revision("full", &places).await?;
    // Where it fits it stays.
    let few = shares(entry(1), &host, 4, 40).await?;
    eprintln!("4 clients are answered by {few:?}");
    let done = throughput(entry(1), &host, CLIENTS, TIME).await?;
    stage.forget("full").await?;
    let ideal = as_f64(CLIENTS) * TIME.as_secs_f64() / MANNER.takes.as_secs_f64();
    eprintln!("{CLIENTS} clients: {done:?} in {TIME:?}, ideal {ideal}");
    let value = as_f64(done.answered) / ideal * 100.0;
    Ok(vec![
        Figure::failed("spill_failed", done.failed),
        Figure { id: "spill_efficiency_pct", value, unit: "%", goal: Goal::AtLeast(90.0) },
    ])
}

/// One request for a revision at zero, which the activator of the node holds: until the stream of
/// demand says so.
pub(crate) async fn seen(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    const REQUESTS: usize = 60;
    const HELD: Manner = Manner { at_once: 1_000, takes: Duration::from_millis(300) };
    let mut activators = Vec::new();
    for node in NODES {
        activators.push(Backend::with_manner(&format!("activator{node}"), pod_address(node, 4), HELD).await?);
    }
    stage.bench.service("default", "asleep-00001", "http").await?;
    let endpoints = NODES.map(|node| (pod_address(node, 4).ip(), node));
    stage.bench.slice("default", "asleep-00001", "http", 8012, &endpoints, "knative-serving").await?;
    stage.bench.ingress("asleep", &[("asleep-00001", 100)]).await?;
    stage.bench.ready("asleep").await?;
    let response = reqwest::Client::builder().no_proxy().build()?.get(format!("http://{OPS}{DEMAND_PATH}")).send().await?;
    let mut lines =
        Lines { chunks: Box::pin(response.bytes_stream()), rest: Vec::new(), held: Vec::new(), told_with_it: Vec::new() };
    let mut took = Vec::new();
    for request in 0..REQUESTS {
        let node = NODES[request % NODES.len()];
        let mut connection = Connection::open(entry(node), "asleep.default").await?;
        let sent = Instant::now();
        let asking = tokio::spawn(async move { connection.ask().await });
        let source = format!("node{node}");
        lines.until_held(&source).await?;
        took.push(sent.elapsed());
        lines.until(&source, |in_flight| in_flight > 0).await?;
        anyhow::ensure!(asking.await??.status == 200, "the activator did not answer");
        lines.until(&source, |in_flight| in_flight == 0).await?;
        // So that not every request comes at the same time after a report.
        tokio::time::sleep(Duration::from_millis(u64::try_from(request)? * 7 % 50)).await;
    }
    stage.forget("asleep").await?;
    eprintln!("demand seen: p50 {:.1} ms, max {:.1} ms", quantile_ms(&took, 0.5), quantile_ms(&took, 1.0));
    Ok(vec![Figure { id: "demand_seen_ms_p99", value: quantile_ms(&took, 0.99), unit: "ms", goal: Goal::AtMost(100.0) }])
}

struct Lines<S> {
    chunks: S,
    rest: Vec<u8>,
    held: Vec<Held>,
    told_with_it: Vec<RevisionDemand>,
}

/// What the revision at zero has in flight from `source`, where `demand` says.
fn in_flight(demand: &[RevisionDemand], source: &str) -> Option<u64> {
    let of = demand.iter().find(|one| one.key.revision == "asleep-00001")?;
    Some(of.loads.get(source)?.values().map(|load| load.in_flight).sum())
}

impl<S: Stream<Item = reqwest::Result<B>> + Unpin, B: AsRef<[u8]>> Lines<S> {
    /// Reads until a request from `source` is told of, as held or as in flight.
    async fn until_held(&mut self, source: &str) -> anyhow::Result<()> {
        eventually("the stream of demand to tell of a held request", async || {
            while !self.held.iter().any(|held| held.key.revision == "asleep-00001" && held.source == source) {
                let demand = self.next().await?;
                if in_flight(&demand, source).is_some_and(|in_flight| in_flight > 0) {
                    self.told_with_it = demand;
                    break;
                }
            }
            self.held.clear();
            Ok(())
        })
        .await
    }

    /// Reads until what is in flight for the revision from `source` is as wanted.
    async fn until(&mut self, source: &str, wanted: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        eventually("the stream of demand", async || {
            loop {
                let demand = match std::mem::take(&mut self.told_with_it) {
                    told if told.is_empty() => self.next().await?,
                    told => told,
                };
                if in_flight(&demand, source).is_some_and(&wanted) {
                    return Ok(());
                }
            }
        })
        .await
    }

    async fn next(&mut self) -> anyhow::Result<Vec<RevisionDemand>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(match serde_json::from_slice(&line)? {
                    DemandEvent::Snapshot { demand, .. } => demand,
                    DemandEvent::Update { demand, held, .. } => {
                        self.held.extend(held);
                        demand
                    }
                    DemandEvent::Heartbeat { .. } => Vec::new(),
                });
            }
            let chunk = self.chunks.next().await.context("the stream ended")??;
            self.rest.extend_from_slice(chunk.as_ref());
        }
    }
}
