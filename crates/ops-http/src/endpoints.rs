//! The three endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{OpsError, Readiness};

/// The media type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A router with `/healthz` (200 while the process answers at all), `/readyz` (200, or 503 with the
/// missing conditions, one per line) and `/metrics` (the registry as OpenMetrics). Merge it into a
/// daemon's own router, or serve it alone.
pub fn router(registry: Arc<Registry>, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match readiness.missing() {
                missing if missing.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
                missing => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", "))),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &registry) {
                    Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }),
        )
}

/// Listens on `address`.
///
/// # Errors
/// [`OpsError::Listen`] with the address, when it cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, OpsError> {
    TcpListener::bind(address).await.map_err(|source| OpsError::Listen { address, source })
}

/// Serves until `stop` is cancelled, then lets requests in flight finish.
///
/// # Errors
/// [`OpsError::Serve`] when the listener breaks.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> Result<(), OpsError> {
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(|source| OpsError::Serve { source })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt as _;

    use super::*;

    async fn get_path(router: Router, path: &str) -> (StatusCode, String) {
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_only_when_nothing_is_missing() {
        let readiness = Readiness::waiting_for(["caches", "first plan"]);
        let router = router(Arc::new(Registry::default()), readiness.clone());
        assert_eq!(get_path(router.clone(), "/healthz").await.0, StatusCode::OK);
        readiness.reached("caches");
        let waiting = get_path(router.clone(), "/readyz").await;
        assert_eq!(waiting, (StatusCode::SERVICE_UNAVAILABLE, "waiting for first plan\n".to_owned()));
        readiness.reached("first plan");
        assert_eq!(get_path(router.clone(), "/readyz").await.0, StatusCode::OK);
        readiness.lost("caches");
        assert_eq!(get_path(router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let mut registry = Registry::default();
        let plans: Counter = Counter::default();
        registry.register("plans", "Plans made", plans.clone());
        plans.inc();
        let (status, text) = get_path(router(Arc::new(registry), Readiness::waiting_for([])), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("plans_total 1") && text.ends_with("# EOF\n"), "{text}");
    }
}
