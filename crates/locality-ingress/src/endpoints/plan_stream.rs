//! Reads the extra-controller's stream of routes.

use std::time::Duration;

use futures::StreamExt as _;
use gateway_link::lines::{LineTooLong, Lines};
use gateway_link::{Event, MAX_LINE_BYTES};
use ops_http::duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::plan::PlanChange;
use crate::metrics::Metrics;
use crate::state::change::{ChangeSource, ObjectChange};

/// How to read the stream of routes.
#[derive(Clone, Debug, clap::Args)]
pub struct FollowSettings {
    /// URL of the extra-controller's stream of routes.
    #[arg(
        long = "routes-url",
        value_name = "URL",
        env = "KANTAI_ROUTES_URL",
        default_value = "http://extra-controller.kantai-system.svc:18080/v1/routes"
    )]
    pub url: String,
    /// Reconnect when the stream of routes delivers nothing for this time, heartbeats included.
    #[arg(long = "routes-silence", value_name = "DURATION", env = "KANTAI_ROUTES_SILENCE", default_value = "15s", value_parser = duration)]
    pub silence_limit: Duration,
    /// Drop the routes when the stream has delivered nothing for this time. Gateways then prefer
    /// their own node.
    #[arg(long = "routes-expiry", value_name = "DURATION", env = "KANTAI_ROUTES_EXPIRY", default_value = "5m", value_parser = duration)]
    pub expiry: Duration,
}

/// Why the stream ended.
#[derive(Debug, thiserror::Error)]
enum PlanStreamEnd {
    #[error("failed to read routes from {url}")]
    Http { url: String, source: reqwest::Error },
    #[error("failed to read routes: no line for {0:?}")]
    Silence(Duration),
    #[error("failed to read routes: the writer ended the stream")]
    Ended,
    #[error(transparent)]
    Line(#[from] gateway_link::RouteStreamError),
    #[error("failed to read routes")]
    TooLong(#[from] LineTooLong),
    #[error("failed to read routes: a line is not UTF-8")]
    NotText,
    #[error("failed to pass on routes: the receiver is gone")]
    NobodyListens,
}

const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Short, so that another leader is found soon after it took over.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Reads the stream, and reconnects when it ends, until the stop. The first snapshot, or the first
/// failure to get one, makes the routes [listed](ObjectChange::Listed): a cluster without an
/// extra-controller is served too.
pub(crate) async fn follow(
    settings: FollowSettings,
    changes: mpsc::Sender<ObjectChange>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut listed = false;
    let mut heard = tokio::time::Instant::now();
    let mut expired = false;
    let mut retry = FIRST_RETRY;
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).tcp_nodelay(true).build().unwrap_or_default();
    loop {
        let before = heard;
        let end = tokio::select! {
            end = read(&client, &settings, &changes, &metrics, &mut listed, &mut heard) => end,
            () = stop.cancelled() => return,
        };
        metrics.plan_connected.set(0);
        if heard > before {
            retry = FIRST_RETRY;
            expired = false;
        }
        tracing::warn!(error = &end as &dyn std::error::Error, "lost the stream of routes, keeping the last ones");
        if !listed {
            listed = changes.send(ObjectChange::Listed(ChangeSource::Plan)).await.is_ok();
        }
        if !expired && heard.elapsed() > settings.expiry {
            expired = changes.send(ObjectChange::Plan(PlanChange::Expired)).await.is_ok();
            tracing::warn!(after = ?settings.expiry, "routes expired, every gateway prefers its own node");
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
            () = stop.cancelled() => return,
        }
    }
}

async fn read(
    client: &reqwest::Client,
    settings: &FollowSettings,
    changes: &mpsc::Sender<ObjectChange>,
    metrics: &Metrics,
    listed: &mut bool,
    heard: &mut tokio::time::Instant,
) -> PlanStreamEnd {
    let failed = |source| PlanStreamEnd::Http { url: settings.url.clone(), source };
    let silence = |_| PlanStreamEnd::Silence(settings.silence_limit);
    let opened = async {
        let request = client.get(&settings.url).send();
        let response = tokio::time::timeout(settings.silence_limit, request).await.map_err(silence)?.map_err(failed)?;
        response.error_for_status().map_err(failed)
    };
    let mut chunks = match opened.await {
        Ok(response) => response.bytes_stream(),
        Err(end) => return end,
    };
    if changes.send(ObjectChange::Plan(PlanChange::Began)).await.is_err() {
        return PlanStreamEnd::NobodyListens;
    }
    let mut lines = Lines::new(MAX_LINE_BYTES);
    loop {
        let chunk = match tokio::time::timeout(settings.silence_limit, chunks.next()).await.map_err(silence) {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(source))) => return failed(source),
            Ok(None) => return PlanStreamEnd::Ended,
            Err(end) => return end,
        };
        *heard = tokio::time::Instant::now();
        metrics.record_plan_heard();
        let complete = match lines.take_in(&chunk) {
            Ok(complete) => complete,
            Err(error) => return error.into(),
        };
        for line in complete {
            let event = match std::str::from_utf8(&line).map(Event::from_line) {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return error.into(),
                Err(_) => return PlanStreamEnd::NotText,
            };
            let is_whole = matches!(event, Event::Snapshot { parts_left: 0, .. });
            if changes.send(ObjectChange::Plan(PlanChange::Event(event))).await.is_err() {
                return PlanStreamEnd::NobodyListens;
            }
            if is_whole && !*listed {
                *listed = changes.send(ObjectChange::Listed(ChangeSource::Plan)).await.is_ok();
            }
        }
    }
}
