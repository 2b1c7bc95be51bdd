//! `GET /v1/explain?host=<host>&node=<node>`: where requests for a host are routed that enter at a
//! node, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::endpoints::locality::EndpointAssignment;
use crate::routes::route_table::{ANY_HOST, Action, RouteList};
use crate::xds::gateway_view::GatewayView;
use crate::xds::store::ConfigStore;

/// The path of the endpoint.
pub const EXPLAIN_PATH: &str = "/v1/explain";

#[derive(Debug, Deserialize)]
struct ExplainQuery {
    host: String,
    node: String,
}

/// The routing of one host.
#[derive(Debug, Serialize)]
pub(crate) struct HostExplanation {
    /// The Ingress that has the host.
    pub ingress: String,
    /// Whether clients outside the cluster can reach it.
    pub external: bool,
    /// Its routes; the first match wins.
    pub routes: RouteList,
    /// The clusters of the routes.
    pub clusters: BTreeMap<String, ClusterExplanation>,
}

/// How one cluster is used from the node.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterExplanation {
    /// The weights of the routes for this node, if there are any; with activators in the request
    /// path, their shares.
    pub plan: Option<BTreeMap<String, u32>>,
    /// The endpoints, by priority and serving node; `None` if a DNS name is resolved instead.
    pub assignment: Option<EndpointAssignment>,
    /// How many requests the gateway may have in flight there before activators hold more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_in_flight: Option<u32>,
}

/// Explains `host` as seen from `node`.
#[must_use]
pub(crate) fn explain(store: &ConfigStore, host: &str, node: &str) -> Option<HostExplanation> {
    let table = store.table();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let found = table.internal.get(host).or_else(|| table.internal.get(ANY_HOST))?;
    let view = GatewayView::of_node(node);
    let splits = found.routes.iter().filter_map(|route| match &route.action {
        Action::Forward { splits, .. } => Some(splits),
        _ => None,
    });
    let clusters = splits
        .flatten()
        .map(|split| {
            let name = split.cluster.to_string();
            let explanation = ClusterExplanation {
                plan: store.row(&view, &name),
                assignment: store.assignment(&view, &name),
                most_in_flight: store.limit(&view, &name),
            };
            (name, explanation)
        })
        .collect();
    Some(HostExplanation {
        ingress: found.ingress.to_string(),
        external: table.external.contains_key(host),
        routes: found.routes.clone(),
        clusters,
    })
}

/// The router of the endpoint.
pub(crate) fn router(store: Arc<ConfigStore>) -> Router {
    Router::new().route(EXPLAIN_PATH, get(answer)).with_state(store)
}

async fn answer(State(store): State<Arc<ConfigStore>>, Query(question): Query<ExplainQuery>) -> impl IntoResponse {
    match explain(&store, &question.host, &question.node) {
        Some(explanation) => Json(explanation).into_response(),
        None => (StatusCode::NOT_FOUND, "no Ingress has this host\n").into_response(),
    }
}
