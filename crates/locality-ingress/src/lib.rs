//! The Knative ingress class `kantai.ingress.networking.knative.dev` on stock Envoy, one gateway
//! per node.
//!
//! Every gateway has its own view of the endpoints, so that a request is answered near where it
//! entered. Two pure steps lie between Kubernetes and Envoy, each with its own plain data:
//!
//! ```text
//! objects (KIngress, Service, EndpointSlice, Node, Secret)      [kubernetes]
//!    -> route table, the same for all gateways                  [routes]
//!    -> xDS resources                                           [xds]
//!       with endpoints per source node, weighted by routes    [endpoints]
//! ```
//!
//! [`state`] holds the objects and publishes the effects of each change; [`status`] probes the
//! gateways and writes the status of Ingresses; [`demand`] sums up the gateways' load reports,
//! which also move shares away from nodes whose pods are full.

mod daemon;
pub mod demand;
pub mod endpoints;
mod explain;
pub mod kubernetes;
mod metrics;
mod options;
pub mod routes;
pub mod state;
pub mod status;
mod tls;
pub mod xds;

pub use daemon::{DaemonError, Listeners, run};
pub use explain::EXPLAIN_PATH;
pub use metrics::Metrics;
pub use options::{Options, TlsOptions};
pub use tls::files::{ServerTls, TlsError, TlsFiles};
