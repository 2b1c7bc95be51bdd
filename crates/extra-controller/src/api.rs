//! What is served on the API port: the weights of one revision, and the stream of all routes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::{Stream, StreamExt as _, stream};
use gateway_link::{Event, ROUTES_PATH, RevisionKey};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::explain::Explanations;
use crate::routes::RouteBook;
use crate::trace::{RecordedLine, TraceBook};

/// A quiet stream says that it lives this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The API over `book`. Streams end when `stop` is cancelled. A dry run streams no routes, since
/// requests would be routed by them.
pub(crate) fn router(
    book: Arc<RouteBook>,
    explanations: Explanations,
    trace: TraceBook,
    is_dry_run: bool,
    stop: CancellationToken,
) -> Router {
    Router::new()
        .route("/api/weight/okasan/{okasan}/kodomo/{kodomo}", get(weights))
        .route(ROUTES_PATH, get(routes))
        .route("/v1/explain/{namespace}/{revision}", get(explain))
        .route("/v1/trace", get(trace_lines))
        .with_state(Api { book, explanations, trace, is_dry_run, stop })
}

#[derive(Clone)]
struct Api {
    book: Arc<RouteBook>,
    explanations: Explanations,
    trace: TraceBook,
    is_dry_run: bool,
    stop: CancellationToken,
}

/// Why a revision's pods are where they are: in words, and as data.
async fn explain(State(api): State<Api>, Path((namespace, revision)): Path<(String, String)>) -> Response {
    if !api.book.is_complete() {
        return not_leading();
    }
    match api.explanations.get(&RevisionKey::new(namespace, revision)) {
        Some(explained) => {
            let explanations = api.explanations.clone();
            let answer = tokio::task::spawn_blocking(move || {
                let placement = explanations.runner_up(&explained);
                let mut words = explained.words();
                words.extend(placement.iter().flat_map(|placement| explained.runner_up_words(placement)));
                let (decision, inputs) = (&explained.decision, &explained.inputs);
                serde_json::json!({"words": words, "decision": decision, "placement": placement, "inputs": inputs})
            });
            match answer.await {
                Ok(answer) => Json(answer).into_response(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
        None => (StatusCode::NOT_FOUND, Json("NotFound")).into_response(),
    }
}

async fn weights(State(api): State<Api>, Path((okasan, kodomo)): Path<(String, String)>) -> Response {
    if !api.book.is_complete() {
        return not_leading();
    }
    match api.book.weights(&okasan, &kodomo) {
        Some(weights) => Json(weights).into_response(),
        None => (StatusCode::NOT_FOUND, Json("NotFound")).into_response(),
    }
}

async fn routes(State(api): State<Api>) -> Response {
    let followed = if api.is_dry_run { None } else { api.book.follow() };
    let Some((snapshot, changes)) = followed else { return not_leading() };
    let lines = stream::iter(snapshot)
        .map(|part| part.to_line())
        .chain(follow(api.book, changes, api.stop.clone()))
        .map(|line| Ok::<_, std::convert::Infallible>(Bytes::from(line)));
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}

/// Every decision with what it was made from, as lines that `autoscaler::trace::replay` decides
/// again.
async fn trace_lines(State(api): State<Api>) -> Response {
    let Some(lines) = api.trace.follow() else {
        return (StatusCode::TOO_MANY_REQUESTS, Json("TooManyListeners")).into_response();
    };
    let lines =
        recorded(lines, api.stop).map(|line| Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(line.text.as_bytes())));
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}

/// Lines from the first beginning on; ends with the program, and when the listener is too slow.
fn recorded(lines: broadcast::Receiver<RecordedLine>, stop: CancellationToken) -> impl Stream<Item = RecordedLine> {
    let all = stream::unfold((lines, stop), async |(mut lines, stop)| {
        let line = tokio::select! {
            () = stop.cancelled() => return None,
            line = lines.recv() => line.ok()?,
        };
        Some((line, (lines, stop)))
    });
    all.skip_while(|line| std::future::ready(!line.is_beginning))
}

/// Another instance leads, or this one has not decided on everything yet. Asking again is right.
fn not_leading() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json("NotLeading")).into_response()
}

/// Changes as lines, heartbeats in between; ends with the program or with leading, and when the
/// follower is too slow: it then asks again and gets a snapshot.
fn follow(book: Arc<RouteBook>, changes: broadcast::Receiver<Event>, stop: CancellationToken) -> impl Stream<Item = String> {
    stream::unfold((book, changes, stop), async |(book, mut changes, stop)| {
        let line = tokio::select! {
            () = stop.cancelled() => return None,
            change = changes.recv() => match change {
                Ok(change) => change.to_line(),
                Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            },
            () = tokio::time::sleep(HEARTBEAT) => {
                if !book.is_complete() {
                    return None;
                }
                Event::Heartbeat { version: book.version() }.to_line()
            }
        };
        Some((line, (book, changes, stop)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use autoscaler::Routes;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use latency_matrix::NodeName;
    use tower::ServiceExt as _;

    use super::*;
    use crate::routes::RouteEntry;

    fn api() -> (Arc<RouteBook>, Router, CancellationToken) {
        let (book, stop) = (Arc::new(RouteBook::default()), CancellationToken::new());
        book.retain(["node1", "node2"].map(NodeName::from).to_vec(), &BTreeSet::new());
        book.set(&RevisionKey::new("default", "hello-00001"), RouteEntry { service: "hello".to_owned(), routes: None }).unwrap();
        (book.clone(), router(book, Explanations::default(), TraceBook::default(), false, stop.clone()), stop)
    }

    async fn get_path(router: &Router, path: &str) -> Response {
        router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn weights_are_a_matrix_and_the_unknown_is_not_found() {
        let (book, router, _) = api();
        assert_eq!(get_path(&router, "/api/weight/okasan/hello/kodomo/hello").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        book.complete();
        assert_eq!(text(get_path(&router, "/api/weight/okasan/hello/kodomo/hello").await).await, "[[100,0],[0,100]]");
        let unknown = get_path(&router, "/api/weight/okasan/hello/kodomo/other").await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        assert_eq!(text(unknown).await, "\"NotFound\"");
    }

    #[tokio::test]
    async fn what_is_recorded_for_a_listener_is_decided_again_and_for_nobody_nothing_is() {
        let (trace, stop) = (TraceBook::default(), CancellationToken::new());
        let router = router(Arc::default(), Explanations::default(), trace.clone(), false, stop.clone());
        let (mut tracer, mut memory) = (crate::trace::Tracer::new(trace), autoscaler::Memory::default());
        let picture = crate::testing::picture(crate::testing::inputs(&[]));
        let mut decide = || {
            let started = tracer.before(autoscaler::trace::TracedCall::Tick, &picture, &memory);
            let is_recorded = started.is_some();
            let decisions = autoscaler::decide(&picture, &mut memory);
            tracer.after(started, &decisions);
            is_recorded
        };
        assert!(!decide());
        let mut body = get_path(&router, "/v1/trace").await.into_body();
        assert!(decide() && decide());
        let mut lines = Vec::new();
        for _ in 0..2 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            lines.push(String::from_utf8(frame.to_vec()).unwrap().trim_end().to_owned());
        }
        assert_eq!(autoscaler::trace::replay(lines.iter().map(String::as_str)).unwrap(), lines);
        // Another listener gets a beginning of its own.
        let mut other = get_path(&router, "/v1/trace").await.into_body();
        assert!(decide());
        let frame = other.frame().await.unwrap().unwrap().into_data().unwrap();
        let beginning = String::from_utf8(frame.to_vec()).unwrap();
        assert!(beginning.contains("\"memory\":"), "{beginning}");
        drop((body, other));
        assert!(!decide());
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_is_a_snapshot_changes_and_heartbeats() {
        let (book, router, stop) = api();
        book.complete();
        let mut body = get_path(&router, ROUTES_PATH).await.into_body();
        let mut next = async || {
            let frame = body.frame().await?.ok()?.into_data().ok()?;
            Some(Event::from_line(std::str::from_utf8(&frame).ok()?.trim_end()).unwrap())
        };
        assert_eq!(next().await, Some(Event::Snapshot { version: 0, parts_left: 0, routes: vec![] }));
        let routes = Some(Arc::new(Routes::identity(&["node1", "node2"].map(NodeName::from))));
        book.set(&RevisionKey::new("default", "hello-00001"), RouteEntry { service: "hello".to_owned(), routes }).unwrap();
        assert!(matches!(next().await, Some(Event::Update { version: 1, .. })));
        assert_eq!(next().await, Some(Event::Heartbeat { version: 1 }));
        stop.cancel();
        assert_eq!(next().await, None);
    }
}
