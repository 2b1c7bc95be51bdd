//! The Knative ingress class `kantai.ingress.networking.knative.dev` on stock Envoy, one gateway
//! per node.
//!
//! Every gateway has its own view of where pods are, so that a request is answered where the plan
//! says: near where it entered. Two pure steps lie between Kubernetes and Envoy, each with its own
//! plain data:
//!
//! ```text
//! objects (KIngress, Service, EndpointSlice, Node, Secret)      [objects]
//!    -> route table, the same for all gateways                  [translate] -> [route_table]
//!    -> xDS resources                                           [xds]
//!       with endpoints per source node, weighted by the plan    [locality]
//! ```
//!
//! Around them: watches ([`kube_io`]), the reader of the plan ([`plan_stream`]), the ADS server
//! ([`xds::server`]) and what proves to Serving that all gateways follow ([`readiness`]). The
//! gateways tell what they have in flight ([`demand`]), which also moves shares away from nodes
//! whose pods are full ([`spill`]). Where activators stand in for a revision's pods, each gets what
//! it can use ([`activators`]).

pub use k8s_api::kingress;

pub mod activators;
pub mod change;
pub mod cluster_domain;
pub mod daemon;
pub mod demand;
pub mod explain;
pub mod kernel;
pub mod kube_io;
pub mod load;
pub mod locality;
pub mod metrics;
pub mod network_hash;
pub mod objects;
mod own_hosts;
pub mod plan;
pub mod plan_stream;
pub mod readiness;
pub mod route_table;
mod self_made;
pub mod spill;
pub mod translate;
pub mod validate;
pub mod world;
pub mod world_loop;
pub mod xds;
