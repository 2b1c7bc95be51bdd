//! Reads the gateways: one task per gateway, a request at a time, over a connection that is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use placement::NodeName;
use gateway_link::RevisionKey;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{DemandBoard, parse_page};

/// How often the gauge is read while some revision waits at zero: a held request is noticed within this, plus one round trip.
const STEP_AT_ZERO: Duration = Duration::from_millis(100);
/// How often otherwise.
const STEP: Duration = Duration::from_millis(250);
/// A gateway that takes longer has not answered.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Counters and times are read this often: at least once in every second that is closed.
const FULL_EVERY: Duration = Duration::from_millis(500);
/// The gauge alone: a small page, read often.
const GAUGE_FILTER: &str = "upstream_rq_active$";
/// What the estimate of short requests needs besides.
const FULL_FILTER: &str = "upstream_rq_(active|total|completed|time)$";

/// One gateway pod to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// The node that it is the entry of.
    pub node: NodeName,
    /// Where its statistics are.
    pub address: SocketAddr,
}

/// The board, and which revisions are to be woken by a held request. Shared by the sampler and whoever decides.
#[derive(Debug)]
pub struct Demands {
    board: Mutex<DemandBoard>,
    asleep: Mutex<BTreeSet<RevisionKey>>,
    start: Instant,
}

impl Demands {
    /// An empty board. Its time starts now.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { board: Mutex::default(), asleep: Mutex::default(), start }
    }

    /// The board.
    pub fn board(&self) -> MutexGuard<'_, DemandBoard> {
        // The board holds counters; a panic while one was set leaves it no worse than a lost reading.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the board was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether a request for `key` that a gateway holds is to be announced at once.
    pub fn set_asleep(&self, key: &RevisionKey, asleep: bool) {
        let mut all = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if !asleep {
            all.remove(key);
        } else if !all.contains(key) {
            all.insert(key.clone());
        }
    }

    fn asleep(&self) -> BTreeSet<RevisionKey> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn any_asleep(&self) -> bool {
        !self.asleep.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// What the sampler reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Sampled {
    /// A gateway holds a request for a revision that is asleep.
    Held(RevisionKey),
    /// A gateway did not answer.
    Failed {
        /// Its node.
        node: NodeName,
    },
}

/// Reads until dropped. `gateways` names the gateways there are (by pod), `revisions` those of interest; both are asked every second.
pub async fn run(
    demands: Arc<Demands>,
    http: reqwest::Client,
    gateways: impl Fn() -> BTreeMap<String, GatewayAddress>,
    revisions: impl Fn() -> BTreeSet<RevisionKey>,
    reports: mpsc::Sender<Sampled>,
) {
    let mut readers: BTreeMap<String, (GatewayAddress, Reader)> = BTreeMap::new();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        let now = demands.now();
        let present = gateways();
        {
            let mut board = demands.board();
            // The second that has just ended. Whoever joins now has a whole one to be read in.
            board.close_second(now.as_secs(), now);
            let nodes = present.iter().map(|(pod, gateway)| (pod.clone(), gateway.node.clone())).collect();
            board.retain(&nodes, &revisions());
        }
        readers.retain(|pod, (gateway, _)| present.get(pod) == Some(gateway));
        for (pod, gateway) in present {
            readers.entry(pod.clone()).or_insert_with(|| {
                let task = tokio::spawn(read(demands.clone(), http.clone(), pod, gateway.clone(), reports.clone()));
                (gateway, Reader(task))
            });
        }
    }
}

/// A task that ends when this is dropped.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(
    demands: Arc<Demands>,
    http: reqwest::Client,
    pod: String,
    gateway: GatewayAddress,
    reports: mpsc::Sender<Sampled>,
) {
    let url = |filter| format!("http://{}/stats/prometheus?filter={filter}", gateway.address);
    let (gauge, full) = (url(encoded(GAUGE_FILTER)), url(encoded(FULL_FILTER)));
    let mut last_full: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let is_full = last_full.is_none_or(|at| at.elapsed() >= FULL_EVERY);
        let page = async {
            http.get(if is_full { &full } else { &gauge }).timeout(TIMEOUT).send().await?.error_for_status()?.text().await
        };
        match page.await {
            Ok(page) => {
                if is_full {
                    last_full = Some(started);
                }
                let reading = parse_page(&page);
                let asleep = demands.asleep();
                let mut board = demands.board();
                board.read(&pod, demands.now(), &reading);
                drop(board);
                for (key, cluster) in &reading {
                    if cluster.active.is_some_and(|active| active > 0.0) && asleep.contains(key) {
                        // Full: someone is busy with wake-ups already, and the next step tells again.
                        let _ = reports.try_send(Sampled::Held(key.clone()));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(gateway = pod, node = %gateway.node, %error, "gateway did not answer");
                let _ = reports.try_send(Sampled::Failed { node: gateway.node.clone() });
            }
        }
        let step = if demands.any_asleep() { STEP_AT_ZERO } else { STEP };
        tokio::time::sleep_until(started + step).await;
    }
}

/// The filter as a query's value: of what our filters hold, these have a meaning of their own in an address.
fn encoded(filter: &str) -> String {
    filter.replace('|', "%7C").replace('$', "%24")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{RawQuery, State};
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;
    use crate::settings::Aggregation;

    /// A gateway that holds two requests for one revision, and notes what it was asked.
    async fn gateway(asked: Arc<Mutex<BTreeSet<String>>>) -> SocketAddr {
        let page = "envoy_cluster_upstream_rq_active{envoy_cluster_name=\"default/hello-00001\"} 2\n";
        let stats = get(move |State(asked): State<Arc<Mutex<BTreeSet<String>>>>, RawQuery(query): RawQuery| async move {
            asked.lock().unwrap().insert(query.unwrap_or_default());
            page
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/stats/prometheus", stats).with_state(asked);
        tokio::spawn(async { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn held_requests_are_announced_and_recorded() {
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let address = gateway(asked.clone()).await;
        let key = RevisionKey::new("default", "hello-00001");
        let demands = Arc::new(Demands::new(Instant::now()));
        demands.set_asleep(&key, true);
        let gateways = BTreeMap::from([("gw".to_owned(), GatewayAddress { node: "node3".into(), address })]);
        let revisions = BTreeSet::from([key.clone()]);
        let (sender, mut reports) = mpsc::channel(16);
        let task = tokio::spawn(run(
            demands.clone(),
            reqwest::Client::new(),
            move || gateways.clone(),
            move || revisions.clone(),
            sender,
        ));
        let first = tokio::time::timeout(Duration::from_secs(5), reports.recv()).await.unwrap();
        assert_eq!(first, Some(Sampled::Held(key.clone())));
        assert_eq!(demands.board().held_now(&key), BTreeMap::from([("node3".into(), 2.0)]));
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let second = demands.now().as_secs();
        let demand = demands.board().history(&key).unwrap().average(second, Duration::from_secs(1), Aggregation::Linear).unwrap();
        assert_eq!(demand[&NodeName::from("node3")].concurrency, 2.0);
        task.abort();
        let asked = asked.lock().unwrap().clone();
        assert_eq!(
            asked,
            BTreeSet::from(
                ["filter=upstream_rq_active%24", "filter=upstream_rq_(active%7Ctotal%7Ccompleted%7Ctime)%24"].map(str::to_owned)
            )
        );
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_answer_is_reported() {
        // Bound and dropped: nobody listens there.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let demands = Arc::new(Demands::new(Instant::now()));
        let gateways = BTreeMap::from([("gw".to_owned(), GatewayAddress { node: "node3".into(), address })]);
        let (sender, mut reports) = mpsc::channel(16);
        let task = tokio::spawn(run(demands.clone(), reqwest::Client::new(), move || gateways.clone(), BTreeSet::new, sender));
        let first = tokio::time::timeout(Duration::from_secs(5), reports.recv()).await.unwrap();
        assert_eq!(first, Some(Sampled::Failed { node: "node3".into() }));
        assert_eq!(demands.board().unknown_sources(demands.now()), BTreeSet::from(["node3".into()]));
        task.abort();
    }
}
