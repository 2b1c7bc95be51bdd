//! Demand: requests in flight and counted, per revision, source node and serving node.
//!
//! Gateways report it over Envoy's load reporting service, several times a second, on the
//! connection that carries their configuration. `reports` serves that stream, `board` adds the
//! reports up, `stream` serves the sums at `GET /v1/demand` (format: `gateway_link::demand`), and
//! `collector` exports them as metrics. Each replica has the reports of the gateways connected to
//! it, so a reader follows all replicas, as the replicas follow each other (`peers`).

mod board;
pub(crate) mod collector;
mod held;
mod history;
mod peer_loads;
pub(crate) mod peers;
mod report;
mod report_selection;
mod reports;
mod shared;
pub(crate) mod stream;
mod stream_state;
mod unbrotli;
mod wire;

pub use reports::Reports;
pub use shared::SharedLoadBoard;
