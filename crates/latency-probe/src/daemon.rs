//! `latency-probe run`: discovery, probing loop, responder and HTTP endpoints, and their common
//! stop.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use ops_http::{OpsError, Readiness};
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::discovery::chooser::keep_choosing;
use crate::discovery::selection::PeerSelection;
use crate::discovery::{DiscoveryError, PeerSource, watch_file, watch_service};
use crate::net::prober::Prober;
use crate::net::responder::{AnswerPolicy, ListenError, Responder, ResponderCounters};
use crate::options::RunOptions;
use crate::peers::PeerSet;
use crate::process::use_batch_scheduling;
use crate::protocol::fleet_key::{FleetKeys, KeyFileError, watch_keys};
use crate::report::exposition::Exposition;
use crate::report::prefers_binary;
use crate::report::row::binary;
use crate::session::{Session, SharedSession};

/// A failure that ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No socket to probe from.
    #[error("failed to open a socket to probe from")]
    Probe(#[source] std::io::Error),
    /// No socket to answer on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No source of peers.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The HTTP endpoints failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The system grants no thread.
    #[error("failed to start a thread for probes")]
    Thread(#[source] std::io::Error),
}

const PEERS: &str = "peers";
/// Polling period of a peers file whose folder cannot be watched. A removed peer should be gone
/// within an interval, which is usually a second.
const FILE_PERIOD: Duration = Duration::from_millis(500);
const KEY_PERIOD: Duration = Duration::from_secs(2);

/// Runs until `stop`.
///
/// # Errors
/// [`DaemonError`] if a part cannot start or fails.
pub async fn run(options: &RunOptions, stop: CancellationToken) -> Result<(), DaemonError> {
    let readiness = Readiness::waiting_for([PEERS]);
    let session = SharedSession::new(Session::new(options.node_name.clone(), options.settings(), rand::random()));
    let counters = Arc::new(ResponderCounters::default());
    let (known_out, known_in) = watch::channel(Arc::new(PeerSet::new()));
    let (chosen_out, chosen_in) = watch::channel(Arc::new(PeerSelection::default()));
    tokio::spawn(keep_choosing(options.choice(), known_in, chosen_out));

    let keys = options.key_file.as_deref().map(FleetKeys::read).transpose()?;
    let (keys_out, keys_in) = watch::channel(keys.map(Arc::new));
    if let Some(path) = options.key_file.clone() {
        tokio::spawn(async move { watch_keys(&path, KEY_PERIOD, keys_out).await });
    }

    // The end of any part ends the others.
    let _stop_all = stop.clone().drop_guard();
    let prober = Prober::open(session.clone(), chosen_in, options.all_up_to, &keys_in).map_err(DaemonError::Probe)?;
    let probing = on_own_thread("prober", stop.clone(), {
        let stop = stop.clone();
        move || {
            prober.run(&stop);
            Ok(())
        }
    })?;
    let answering = on_own_thread("responder", stop.clone(), {
        let (counters, stop, addresses) = (counters.clone(), stop.clone(), options.echo_listen.clone());
        let policy = AnswerPolicy { keys: keys_in, per_source_second: options.echo_rate };
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Thread)?;
            runtime.block_on(async {
                let responder = Responder::open(&addresses, policy, counters)?;
                tracing::info!(addresses = ?responder.addresses(), "answering probes");
                // As a task of its own: the runtime wakes tasks directly, but the future it blocks
                // on only by way of the kernel.
                match tokio::spawn(responder.run(stop)).await {
                    Err(broken) if broken.is_panic() => std::panic::resume_unwind(broken.into_panic()),
                    _ => Ok(()),
                }
            })
        }
    })?;

    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition::new(session.clone(), counters, &options.pair_stats)));
    let router = ops_http::router(Arc::new(registry), readiness.clone()).merge(row_router(session));
    let listener = bind(options.http_listen).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %options.node_name, http = %options.http_listen, "latency-probe is up");

    let found = move || readiness.reached(PEERS);
    tokio::select! {
        served = ops_http::serve(listener, router, stop.clone()) => served?,
        discovered = discover(options, known_out, found) => discovered?,
        ended = probing => ended.unwrap_or(Ok(()))?,
        ended = answering => ended.unwrap_or(Ok(()))?,
    }
    Ok(())
}

async fn discover(options: &RunOptions, peers: watch::Sender<Arc<PeerSet>>, found: impl Fn()) -> Result<(), DaemonError> {
    match options.source() {
        PeerSource::File(path) => {
            watch_file(&path, options.probe.ports(), FILE_PERIOD.min(options.probe.interval), peers, found).await;
        }
        PeerSource::Service { namespace, service } => {
            let client = kube::Client::try_default().await.map_err(|error| DiscoveryError::Client(Box::new(error)))?;
            watch_service(client, &namespace, &service, options.probe.ports(), peers, found).await;
        }
    }
    Ok(())
}

/// A router with `/v1/row`: the node's row of the matrix as JSON, or in the [binary form](binary)
/// if the client prefers its media type.
fn row_router(session: SharedSession) -> Router {
    let answer = async move |headers: HeaderMap| {
        let row = session.row();
        let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok()).collect();
        let accepted = accepted.join(",");
        let answer = if prefers_binary(&accepted) {
            ([(CONTENT_TYPE, binary::MEDIA_TYPE)], binary::encode(&row)).into_response()
        } else {
            Json(row).into_response()
        };
        ([(VARY, ACCEPT.as_str())], answer)
    };
    Router::new().route("/v1/row", get(answer))
}

/// Without IPv6 on this machine, `[::]` falls back to `0.0.0.0`.
async fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener, OpsError> {
    match ops_http::bind(address).await {
        Err(OpsError::Listen { source, .. })
            if source.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip() == Ipv6Addr::UNSPECIFIED =>
        {
            ops_http::bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).await
        }
        bound => bound,
    }
}

/// Runs a part on a thread of its own, so that neither scrapes nor watches delay a probe. Its
/// result comes through the channel; its end stops the daemon.
fn on_own_thread(
    name: &str,
    stop: CancellationToken,
    part: impl FnOnce() -> Result<(), DaemonError> + Send + 'static,
) -> Result<oneshot::Receiver<Result<(), DaemonError>>, DaemonError> {
    let (ended_out, ended_in) = oneshot::channel();
    let run = move || {
        let _stop_all = stop.drop_guard();
        if let Err(error) = use_batch_scheduling() {
            tracing::info!(%error, "failed to set SCHED_BATCH: probes may preempt the node's workload");
        }
        // The receiver is gone once the daemon stops.
        let _ = ended_out.send(part());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(DaemonError::Thread)?;
    Ok(ended_in)
}
