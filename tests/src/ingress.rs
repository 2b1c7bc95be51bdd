//! What tests and measurements of locality-ingress share: a network namespace with an API server,
//! gateways, pods, and whatever else the daemon meets.

pub mod backend;
pub mod bench;
pub mod certificates;
pub mod daemon;
pub mod gateway;
pub mod plan;
pub mod relay;
