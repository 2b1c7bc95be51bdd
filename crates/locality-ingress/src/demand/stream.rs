//! `GET /v1/demand`: demand as JSON lines. The first line holds all that is known, each further line the revisions that changed since.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::stream;
use serde::{Deserialize, Serialize};

use super::board::Board;
use super::reports::Demand;
use crate::load::ByServing;
use crate::objects::ObjectName;

/// Where it is served.
pub const DEMAND_PATH: &str = "/v1/demand";

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The revisions that this line is about.
    pub demand: Vec<RevisionDemand>,
}

/// The demand for one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionDemand {
    /// The revision's namespace, and its name, which is that of its public Service, too.
    #[serde(flatten)]
    pub revision: ObjectName,
    /// Source node -> serving node -> load. While a revision is at zero, the serving nodes are those of the activators that hold its requests.
    pub loads: BTreeMap<String, ByServing>,
}

/// The route of the stream.
pub fn router(demand: Demand) -> Router {
    Router::new().route(DEMAND_PATH, get(serve)).with_state(demand)
}

async fn serve(State(demand): State<Demand>) -> impl IntoResponse {
    let versions = demand.watch();
    let lines = stream::unfold((demand, versions, None), |(demand, mut versions, seen): (Demand, _, Option<u64>)| async move {
        let since = match seen {
            None => 0,
            Some(seen) => {
                versions.wait_for(|version| *version > seen).await.ok()?;
                seen
            }
        };
        let (line, version) = line(&demand.board(), since);
        Some((Ok::<_, Infallible>(line), (demand, versions, Some(version))))
    });
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines))
}

/// What changed after `version`, as a line, and the version that it is of.
fn line(board: &Board, version: u64) -> (String, u64) {
    let changed = board.changed_since(version).into_iter();
    let line = Line { demand: changed.map(|revision| RevisionDemand { loads: board.of(&revision), revision }).collect() };
    // Plain data with text as keys is always JSON.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    (text, board.version())
}
