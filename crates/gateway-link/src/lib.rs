//! The contract between extra-controller and locality-ingress: routes down, demand up. Plain data
//! with one JSON form, pinned by golden files.
//!
//! - [`routes`]: which serving node gets which share of a source node's requests;
//! - [`demand`]: how many requests came, per revision, source node and serving node;
//! - [`lines`]: how both are cut out of a stream of bytes.

pub mod demand;
pub mod lines;
pub mod routes;

pub use routes::{Event, MAX_LINE_BYTES, ROUTES_PATH, ROW_TOTAL, RevisionKey, RevisionRoutes, RouteStreamError};
