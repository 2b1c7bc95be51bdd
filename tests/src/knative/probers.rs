//! Stands in for the probers: each node's row of the matrix, which may be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::stage::address;

/// The port that they listen on.
pub const PORT: u16 = 9798;

/// How a prober answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// With its row.
    Well = 0,
    /// With an error.
    Error = 1,
    /// Not at all.
    Silent = 2,
}

/// The probers of all nodes.
#[derive(Clone, Default)]
pub struct Probers {
    manner: Arc<AtomicU8>,
    answered: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Row {
    node: usize,
    nodes: Arc<Vec<String>>,
    probers: Probers,
}

impl Probers {
    /// One for each of `nodes`, which are as far apart as their numbers say, and half a millisecond
    /// at least. What is measured differs by some percent from one time to the next.
    ///
    /// # Errors
    /// Where an address cannot be had.
    pub async fn start(nodes: &[String]) -> anyhow::Result<Self> {
        let (probers, nodes) = (Self::default(), Arc::new(nodes.to_vec()));
        for (node, number) in (0..nodes.len()).zip(1..) {
            let listener = TcpListener::bind((address(number, 1), PORT)).await?;
            let row = Row { node, nodes: nodes.clone(), probers: probers.clone() };
            let router = Router::new().route("/v1/row", get(answer)).with_state(row);
            tokio::spawn(async { axum::serve(listener, router).await });
        }
        Ok(probers)
    }

    /// How all of them answer from now on.
    pub fn set(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::Relaxed);
    }
}

async fn answer(State(row): State<Row>) -> Response {
    match row.probers.manner.load(Ordering::Relaxed) {
        1 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        2 => std::future::pending().await,
        _ => {}
    }
    let count = row.probers.answered.fetch_add(1, Ordering::Relaxed);
    let peer = |(to, name): (usize, &String)| {
        // Some percent of noise that is the same in every run.
        let noise = 1.0 + 0.02 * f64::from(u8::try_from((count + 7 * to as u64) % 3).unwrap_or(0));
        let rtt = (0.0005 + 0.003 * row.node.abs_diff(to) as f64) * noise;
        json!({"to": name, "state": "known", "jitter_seconds": 0.0, "loss_ratio": 0.0, "age_seconds": 0.1, "samples": 10,
            "rtt_seconds": {"min": rtt, "p50": rtt, "p90": rtt, "p99": rtt, "ewma": rtt}})
    };
    let peers: Vec<Value> = row.nodes.iter().enumerate().filter(|(to, _)| *to != row.node).map(peer).collect();
    axum::Json(json!({"from": row.nodes[row.node], "measured_at_unix_seconds": 1.5e9, "peers": peers})).into_response()
}
