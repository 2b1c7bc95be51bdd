//! Demand: how many requests are on their way, per revision, source node and serving node.
//!
//! Gateways say it themselves, several times a second, over Envoy's load reporting service on the
//! connection that their configuration comes by ([`reports`]): exact counts, without anybody
//! reading a page of statistics. The [`board`] adds them up; [`stream`] serves it at
//! `GET /v1/demand` (in the form that `gateway_link::demand` gives it) and [`collector`] as metrics.
//! Each replica knows the gateways that are connected to it, so a reader follows all replicas.

mod asking;
mod board;
pub(crate) mod collector;
mod held;
mod history;
mod report;
mod reports;
pub(crate) mod stream;
mod stream_state;
mod unbrotli;
mod wire;

pub use reports::{Demand, Reports};
