//! Revisions as Knative puts them on an API server, for measurements of the extra-controller: a
//! real API server with real controllers, and stand-ins for what is not run there (kubelets and
//! scheduler, Knative's ServerlessService controller, activators, probers and gateways).

// A panic is how a test says that something is wrong.
#![allow(clippy::unwrap_used)]

pub mod audit;
pub mod gateways;
pub mod kubelets;
pub mod network;
pub mod probers;
pub mod removals;
pub mod serverless;
pub mod stage;
