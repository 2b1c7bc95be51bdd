//! The Knative ingress class `kantai.ingress.networking.knative.dev` on stock Envoy, one gateway
//! per node.
//!
//! Every gateway has its own view of where pods are, so that a request is answered where the plan
//! says: near where it entered. Two pure steps lie between Kubernetes and Envoy, each with its own
//! plain data:
//!
//! ```text
//! objects (KIngress, Service, EndpointSlice, Node, Secret)      [kubernetes]
//!    -> route table, the same for all gateways                  [routes]
//!    -> xDS resources                                           [xds]
//!       with endpoints per source node, weighted by the plan    [endpoints]
//! ```
//!
//! [`state`] holds what is known and makes what follows from a change; [`status`] proves to Serving
//! that all gateways follow. The gateways tell what they have in flight ([`demand`]), which also
//! moves shares away from nodes whose pods are full.

mod daemon;
pub mod demand;
pub mod endpoints;
mod explain;
pub mod kubernetes;
mod metrics;
pub mod routes;
pub mod state;
pub mod status;
mod tls;
pub mod xds;

pub use daemon::{DaemonError, Listeners, Settings, XdsTls, noticing_silence, run};
pub use explain::EXPLAIN_PATH;
pub use metrics::Metrics;
pub use tls::files::{ServerTls, TlsError, TlsFiles};
