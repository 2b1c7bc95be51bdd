//! Reads the gateways' statistics pages: one task per gateway, a request at a time, over a
//! connection that is kept.

use std::sync::Arc;
use std::time::Duration;

use autoscaler::demand::{GatewayPages, parse_page};
use futures::StreamExt as _;
use tokio::time::Instant;

use super::{DemandPeer, DemandSource, Demands, Peers, follow_peers};
use crate::objects::PodChanges;

/// How often the gauge is read while some revision waits at zero: a held request is noticed within
/// this, plus one round trip.
const STEP_AT_ZERO: Duration = Duration::from_millis(100);
/// How often otherwise.
const STEP: Duration = Duration::from_millis(250);
/// A gateway that takes longer has not answered.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Counters and times are read this often.
const WHOLE_EVERY: Duration = Duration::from_millis(500);
/// The gauge alone: a small page, read often. The value of the query is encoded.
const GAUGE_FILTER: &str = "upstream_rq_active%24";
/// What the estimate of short requests needs besides.
const WHOLE_FILTER: &str = "upstream_rq_(active%7Ctotal%7Ccompleted%7Ctime)%24";
/// A longer page is no gateway's.
const MOST_PAGE_BYTES: usize = 32 * 1024 * 1024;

/// The statistics pages of the gateways.
pub(crate) struct StatisticsPages<P> {
    /// To read with.
    pub(crate) http: reqwest::Client,
    /// The gateways there are now, with the addresses of their statistics.
    pub(crate) gateways: P,
    /// Says when they may be others.
    pub(crate) pods: PodChanges,
}

impl<P: Fn() -> Peers + Send + Sync + 'static> DemandSource for StatisticsPages<P> {
    async fn run(self, demands: Arc<Demands>) {
        let follow = |name: String, peer: DemandPeer| tokio::spawn(read(demands.clone(), self.http.clone(), name, peer));
        follow_peers(demands.clone(), self.pods.clone(), &self.gateways, follow).await;
    }
}

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error("failed to read the statistics page")]
    Http(#[from] reqwest::Error),
    #[error("failed to read the statistics page: no answer within {TIMEOUT:?}")]
    Late,
    #[error("failed to read the statistics page: more than {MOST_PAGE_BYTES} bytes")]
    TooLong,
}

/// Reads one gateway until dropped.
async fn read(demands: Arc<Demands>, http: reqwest::Client, pod: String, gateway: DemandPeer) {
    let url = |filter| format!("http://{}/stats/prometheus?filter={filter}", gateway.address);
    let (gauges, whole) = (url(GAUGE_FILTER), url(WHOLE_FILTER));
    let mut pages = GatewayPages::new(gateway.node.clone());
    let mut last_whole: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let is_whole = last_whole.is_none_or(|at| at.elapsed() >= WHOLE_EVERY);
        let page = tokio::time::timeout(TIMEOUT, page(&http, if is_whole { &whole } else { &gauges })).await;
        match page.unwrap_or(Err(PageError::Late)) {
            Ok(page) => {
                let (reading, now) = (parse_page(&page), demands.now());
                let event = if is_whole { Some(pages.read_whole(&reading, now)) } else { pages.read_gauges(&reading, now) };
                if is_whole {
                    last_whole = Some(started);
                }
                if let Some(event) = event {
                    demands.apply_event(&pod, event, now);
                }
            }
            Err(error) => {
                tracing::debug!(gateway = pod, node = %gateway.node, error = &error as &dyn std::error::Error, "gateway");
                pages.lost();
            }
        }
        let step = if demands.is_anyone_asleep() { STEP_AT_ZERO } else { STEP };
        tokio::time::sleep_until(started + step).await;
    }
}

async fn page(http: &reqwest::Client, url: &str) -> Result<String, PageError> {
    let mut chunks = http.get(url).send().await?.error_for_status()?.bytes_stream();
    let mut page = Vec::new();
    while let Some(chunk) = chunks.next().await {
        page.extend_from_slice(&chunk?);
        if page.len() > MOST_PAGE_BYTES {
            return Err(PageError::TooLong);
        }
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::{RawQuery, State};
    use axum::routing::get;
    use gateway_link::RevisionKey;
    use tokio::net::TcpListener;

    use super::*;
    use crate::objects::ChangeLog;

    type Asked = Arc<Mutex<BTreeSet<String>>>;

    /// A gateway that holds two requests for one revision, and notes what it was asked.
    async fn gateway(asked: Asked) -> SocketAddr {
        let page = "envoy_cluster_upstream_rq_active{envoy_cluster_name=\"default/hello-00001\"} 2\n";
        let stats = get(move |State(asked): State<Asked>, RawQuery(query): RawQuery| async move {
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
        let asked = Asked::default();
        let address = gateway(asked.clone()).await;
        let peers = Peers::from([("gw".to_owned(), DemandPeer { node: "node3".into(), address })]);
        let demands = Arc::new(Demands::new(Instant::now()));
        let source =
            StatisticsPages { http: reqwest::Client::new(), gateways: move || peers.clone(), pods: ChangeLog::default().pods() };
        let task = tokio::spawn(source.run(demands.clone()));
        let key = RevisionKey::new("default", "hello-00001");
        let woken = tokio::time::timeout(Duration::from_secs(60), demands.woken()).await.unwrap();
        assert_eq!(woken.0, [key.clone()].into());
        assert_eq!(demands.board().in_flight(&key), BTreeMap::from([("node3".into(), 2.0)]));
        // The first second is not a whole one; a busy machine may miss some more.
        let begun = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let tick = demands.board().tick(demands.now(), |_| true);
            let last = tick.busy.get(&key).and_then(|busy| busy.seconds.last());
            let demand = last.and_then(|(_, demand)| demand.as_ref()?.get("node3"));
            if demand.is_some_and(|demand| (demand.concurrency - 2.0).abs() < 1e-6) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the last that was seen is {last:?}");
        }
        let queries = ["filter=upstream_rq_active%24", "filter=upstream_rq_(active%7Ctotal%7Ccompleted%7Ctime)%24"];
        let queries: BTreeSet<String> = queries.map(str::to_owned).into();
        while *asked.lock().unwrap() != queries {
            assert!(begun.elapsed() < Duration::from_secs(60), "{asked:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_answer_stays_unknown() {
        // Bound and dropped: nobody listens there.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let peers = Peers::from([("gw".to_owned(), DemandPeer { node: "node3".into(), address })]);
        let demands = Arc::new(Demands::new(Instant::now()));
        demands.board().expect_gateways(["node3".into()].into());
        let source =
            StatisticsPages { http: reqwest::Client::new(), gateways: move || peers.clone(), pods: ChangeLog::default().pods() };
        let task = tokio::spawn(source.run(demands.clone()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(demands.board().unknown_sources(demands.now()), ["node3".into()].into());
        task.abort();
    }
}
