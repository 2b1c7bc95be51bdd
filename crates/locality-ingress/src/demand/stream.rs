//! `GET /v1/demand`: demand as JSON lines, in the format of `gateway_link::demand`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::{Stream, stream};
use gateway_link::demand::{DEMAND_PATH, DemandEvent, HEARTBEAT_SECONDS};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::board::Position;
use super::shared::SharedLoadBoard;

/// Changes within this time after a line are sent in one line. The first change after a quiet time
/// is sent at once.
const TOGETHER: Duration = Duration::from_millis(5);

/// The router of the stream. Open streams end with `stop`.
pub(crate) fn router(demand: SharedLoadBoard, stop: CancellationToken) -> Router {
    Router::new().route(DEMAND_PATH, get(serve)).with_state((demand, stop))
}

async fn serve(State((demand, stop)): State<(SharedLoadBoard, CancellationToken)>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines(demand, stop)))
}

/// One reader.
struct DemandReader {
    demand: SharedLoadBoard,
    versions: watch::Receiver<u64>,
    stop: CancellationToken,
    position: Option<Position>,
    waiting: VecDeque<DemandEvent>,
    last: Instant,
}

fn lines(demand: SharedLoadBoard, stop: CancellationToken) -> impl Stream<Item = Result<String, Infallible>> {
    let versions = demand.watch();
    let reader = DemandReader { demand, versions, stop, position: None, waiting: VecDeque::new(), last: Instant::now() };
    stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(event.to_line()), reader))
    })
}

impl DemandReader {
    /// `None` at the end: the process stops, or the reader is too slow.
    async fn next(&mut self) -> Option<DemandEvent> {
        if self.waiting.is_empty() {
            let (events, position) = match self.position {
                None => {
                    self.versions.mark_unchanged();
                    self.demand.board().snapshot(Instant::now())
                }
                Some(position) => {
                    self.news().await?;
                    self.demand.board().since(position, Instant::now())?
                }
            };
            self.position = Some(position);
            self.waiting.extend(events);
        }
        self.last = Instant::now();
        self.waiting.pop_front()
    }

    /// Waits for a change or for the time of a heartbeat.
    async fn news(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.versions.changed() => changed.ok()?,
            () = tokio::time::sleep(Duration::from_secs_f64(HEARTBEAT_SECONDS)) => {}
            () = self.stop.cancelled() => return None,
        }
        tokio::time::sleep(TOGETHER.saturating_sub(self.last.elapsed())).await;
        self.versions.mark_unchanged();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::demand::board::tests::report;

    #[tokio::test]
    async fn a_reader_gets_a_snapshot_then_changes_and_heartbeats_until_the_stop() {
        let (demand, stop) = (SharedLoadBoard::default(), CancellationToken::new());
        let mut lines = Box::pin(lines(demand.clone(), stop.clone()));
        let mut next = async || Some(DemandEvent::from_line(&lines.next().await?.unwrap()).unwrap());
        assert!(matches!(next().await, Some(DemandEvent::Snapshot { parts_left: 0, demand, .. }) if demand.is_empty()));
        assert!(matches!(next().await, Some(DemandEvent::Heartbeat { gateways, .. }) if gateways.is_empty()));
        demand.board().open_stream(4, "node3", Instant::now()).unwrap();
        demand.board().apply_report(4, &report(&[("ns/a/80", "node1", 2, 2, 0)]), |_| true, Instant::now());
        demand.announce_change();
        let Some(DemandEvent::Update { gateways, demand: told, .. }) = next().await else { panic!("no update") };
        assert_eq!((gateways[0].stream, gateways[0].node.as_str()), (4, "node3"));
        assert_eq!((told[0].key.revision.as_str(), told[0].loads["node3"]["node1"].in_flight), ("a", 2));
        assert!(matches!(next().await, Some(DemandEvent::Heartbeat { gateways, .. }) if gateways.len() == 1));
        demand.board().close_stream(4, Instant::now());
        demand.announce_change();
        let Some(DemandEvent::Update { gone, demand: told, .. }) = next().await else { panic!("no update") };
        assert_eq!((gone, told[0].loads["node3"]["node1"].in_flight), (vec![4], 0));
        stop.cancel();
        assert_eq!(next().await, None, "a stop ends the stream");
    }
}
