//! Follows the stream of demand of every replica of locality-ingress.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, DemandStreamError, MAX_LINE_BYTES, SILENCE_SECONDS};
use gateway_link::lines::{LineTooLong, Lines};

use super::{DemandPeer, DemandSource, Demands, Peers, follow_peers};
use crate::objects::PodChanges;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Follows the load reports that the replicas of locality-ingress stream.
pub(crate) struct LoadReports<P> {
    /// Without a time-out of its own for whole answers: a stream has no end.
    pub(crate) http: reqwest::Client,
    /// The replicas there are now.
    pub(crate) replicas: P,
    /// Says when they may be others.
    pub(crate) pods: PodChanges,
}

impl<P: Fn() -> Peers + Send + Sync + 'static> DemandSource for LoadReports<P> {
    async fn run(self, demands: Arc<Demands>) {
        let follow = |name: String, peer: DemandPeer| tokio::spawn(follow(demands.clone(), self.http.clone(), name, peer));
        follow_peers(demands.clone(), self.pods.clone(), &self.replicas, follow).await;
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("failed to read demand from {url}")]
    Http { url: String, source: reqwest::Error },
    #[error("failed to read demand: no line for {SILENCE_SECONDS} s")]
    Silence,
    #[error("failed to read demand: the replica ended the stream")]
    Ended,
    #[error("failed to read demand")]
    TooLong(#[from] LineTooLong),
    #[error("failed to read demand: a line is not UTF-8")]
    NotText(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Line(#[from] DemandStreamError),
}

/// Follows one replica until dropped.
async fn follow(demands: Arc<Demands>, http: reqwest::Client, name: String, replica: DemandPeer) {
    let url = format!("http://{}{DEMAND_PATH}", replica.address);
    let mut retry = FIRST_RETRY;
    loop {
        let (heard, end) = read(&demands, &http, &name, &url).await;
        demands.lose(&name);
        tracing::info!(replica = name, error = &end as &dyn std::error::Error, "lost a stream of demand");
        if heard {
            retry = FIRST_RETRY;
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Reads one stream to its end. Whether anything came, and why it ended.
async fn read(demands: &Demands, http: &reqwest::Client, name: &str, url: &str) -> (bool, StreamEnd) {
    let mut heard = false;
    let end = match read_on(demands, http, name, url, &mut heard).await {
        Ok(()) => StreamEnd::Ended,
        Err(end) => end,
    };
    (heard, end)
}

async fn read_on(demands: &Demands, http: &reqwest::Client, name: &str, url: &str, heard: &mut bool) -> Result<(), StreamEnd> {
    let silence = Duration::from_secs_f64(SILENCE_SECONDS);
    let failed = |source| StreamEnd::Http { url: url.to_owned(), source };
    let response = tokio::time::timeout(silence, http.get(url).send()).await.map_err(|_| StreamEnd::Silence)?;
    let mut chunks = response.and_then(reqwest::Response::error_for_status).map_err(failed)?.bytes_stream();
    let mut lines = Lines::new(MAX_LINE_BYTES);
    while let Some(chunk) = tokio::time::timeout(silence, chunks.next()).await.map_err(|_| StreamEnd::Silence)? {
        for line in lines.take_in(&chunk.map_err(failed)?)? {
            let event = DemandEvent::from_line(std::str::from_utf8(&line)?)?;
            *heard = true;
            demands.apply_event(name, event, demands.now());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use gateway_link::RevisionKey;
    use gateway_link::demand::{ByServing, Gateway, Load, RevisionDemand, Run};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::objects::ChangeLog;

    /// A replica whose streams say what is sent to it, one stream after the other; a stream ends
    /// with `None`.
    async fn replica() -> (Peers, mpsc::UnboundedSender<Option<String>>) {
        let (sender, receiver) = mpsc::unbounded_channel::<Option<String>>();
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let serve = move || {
            let receiver = receiver.clone();
            let lines = futures::stream::unfold(receiver, async |receiver| {
                let line = receiver.lock().await.recv().await??;
                Some((Ok::<_, std::convert::Infallible>(line), receiver))
            });
            std::future::ready(Body::from_stream(lines))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, Router::new().route(DEMAND_PATH, get(serve))).await });
        (Peers::from([("li-1".to_owned(), DemandPeer { node: "node1".into(), address })]), sender)
    }

    fn demand(in_flight: u64) -> Vec<RevisionDemand> {
        let load = Load { in_flight, arrived: in_flight, ..Load::default() };
        let loads = BTreeMap::from([("node3".to_owned(), ByServing::from([("node3".to_owned(), load)]))]);
        vec![RevisionDemand { key: RevisionKey::new("default", "hello-00001"), loads }]
    }

    fn snapshot(in_flight: u64) -> String {
        let gateways = [Gateway { stream: 1, node: "node3".to_owned(), age_seconds: 0.0 }];
        let run = Run { instance: "li-1 at noon".to_owned(), running_seconds: 1.0 };
        DemandEvent::snapshot(&run, 1, &gateways, demand(in_flight)).iter().map(DemandEvent::to_line).collect()
    }

    #[tokio::test]
    async fn a_held_request_is_announced_at_once_and_streams_are_followed_again() {
        let (peers, lines) = replica().await;
        let demands = Arc::new(Demands::new(Instant::now()));
        let source =
            LoadReports { http: reqwest::Client::new(), replicas: move || peers.clone(), pods: ChangeLog::default().pods() };
        let task = tokio::spawn(source.run(demands.clone()));
        lines.send(Some(snapshot(0))).unwrap();
        // A line that is none ends the stream, and the next one begins with a snapshot.
        lines.send(Some("{}\n".to_owned())).unwrap();
        lines.send(Some(snapshot(0))).unwrap();
        lines.send(None).unwrap();
        lines.send(Some(snapshot(0))).unwrap();
        for event in DemandEvent::update(2, vec![], vec![], demand(2), vec![], vec![]) {
            lines.send(Some(event.to_line())).unwrap();
        }
        let key = RevisionKey::new("default", "hello-00001");
        let woken = tokio::time::timeout(Duration::from_secs(60), demands.woken()).await.unwrap();
        assert_eq!(woken.0, [key.clone()].into());
        assert_eq!(demands.board().in_flight(&key), BTreeMap::from([("node3".into(), 2.0)]));
        task.abort();
    }
}
