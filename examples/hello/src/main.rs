//! The demo function: answers `Konnichiwa from <pod> in <node>`, after a service time that the
//! caller chooses.
//!
//! `GET /` answers at once, or after the default service time. `GET /?busy_ms=20` computes for 20
//! ms first (occupies a core); `GET /?wait_ms=20` waits for 20 ms first (occupies none). Any other
//! path answers the same, so that it can stand behind any route.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use clap::Parser;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// No request may hold a connection for longer than this.
const LONGEST: Duration = Duration::from_secs(600);

/// Answers with the pod and the node it runs in.
#[derive(Clone, Parser)]
#[command(version)]
struct Options {
    /// Port to listen on. Knative sets it.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Name of this pod. Kubernetes makes it the host name.
    #[arg(long, env = "HOSTNAME", default_value = "unknown-pod")]
    pod: String,
    /// Name of the node this pod runs on, from the downward API (`spec.nodeName`).
    #[arg(long, env = "NODE_NAME", default_value = "unknown-node")]
    node: String,
    /// Milliseconds to compute for, where a request does not say.
    #[arg(long, env = "BUSY_MS", default_value_t = 0)]
    busy_ms: u64,
    /// Milliseconds to wait for, where a request does not say.
    #[arg(long, env = "WAIT_MS", default_value_t = 0)]
    wait_ms: u64,
    /// How many requests to work on at a time, as a pool of workers does; others wait for their
    /// turn. 0: as many as there are.
    #[arg(long, env = "WORKS_ON", default_value_t = 0)]
    works_on: u32,
}

/// The options, and the turns of those that wait.
#[derive(Clone)]
struct Server {
    options: Options,
    turns: Arc<Semaphore>,
}

impl Server {
    fn new(options: Options) -> Self {
        let at_a_time = usize::try_from(options.works_on).unwrap_or(0);
        let permits = if at_a_time == 0 { Semaphore::MAX_PERMITS } else { at_a_time };
        Self { options, turns: Arc::new(Semaphore::new(permits)) }
    }
}

#[derive(Deserialize)]
struct ServiceTime {
    busy_ms: Option<u64>,
    wait_ms: Option<u64>,
}

async fn answer(State(Server { options, turns }): State<Server>, Query(asked): Query<ServiceTime>) -> (StatusCode, String) {
    let busy = Duration::from_millis(asked.busy_ms.unwrap_or(options.busy_ms));
    let wait = Duration::from_millis(asked.wait_ms.unwrap_or(options.wait_ms));
    if busy.saturating_add(wait) > LONGEST {
        return (StatusCode::BAD_REQUEST, format!("busy_ms and wait_ms together may be {} at most\n", LONGEST.as_millis()));
    }
    // Nobody closes it.
    let _turn = turns.acquire().await;
    if !busy.is_zero() {
        // On a thread of its own, so that the server goes on accepting as a pool of workers would.
        if tokio::task::spawn_blocking(move || compute_for(busy)).await.is_err() {
            return (StatusCode::INTERNAL_SERVER_ERROR, "failed to compute\n".to_owned());
        }
    }
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    (StatusCode::OK, format!("Konnichiwa from {} in {}\n", options.pod, options.node))
}

fn compute_for(busy: Duration) {
    let start = Instant::now();
    let mut state = 1_u64;
    while start.elapsed() < busy {
        for _ in 0..1000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let options = Options::parse();
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    tracing::info!(%address, pod = options.pod, node = options.node, "listening");
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let router = Router::new().fallback(answer).with_state(Server::new(options));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
        .context("failed to serve")
}
