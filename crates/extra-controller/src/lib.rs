//! Decides how many pods a Knative revision gets, on which nodes, and which way each node's requests go.
//!
//! ```text
//! gateways' counters --> demand ----+
//! Prometheus / probers -> latency --+-> decide (pure) -> apply: Seika, ServerlessService, PodAutoscaler status, routes
//! API server's objects -> knative --+
//! ```
//!
//! It is the reconciler of the PodAutoscaler class [`knative::CLASS`]: stock Knative makes a PodAutoscaler per revision and leaves those of
//! a foreign class alone; this program answers with what a revision needs to be ready, and with pods on the nodes where requests enter.
//! Everything that decides is pure and knows no I/O: [`autoscaler`], [`capacity`], [`decide`], [`lifecycle`], [`rollout`], [`status`].

pub mod api;
pub mod apply;
pub mod autoscaler;
pub mod capacity;
pub mod controller;
pub mod decide;
pub mod demand;
pub mod gather;
pub mod handback;
pub mod knative;
pub mod latency;
pub mod lifecycle;
pub mod metrics;
pub mod notify;
pub mod objects;
pub mod pins;
pub mod rollout;
pub mod routes;
pub mod run;
pub mod service_monitor;
pub mod settings;
pub mod status;
