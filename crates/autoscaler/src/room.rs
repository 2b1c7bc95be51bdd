//! Room for a revision's pods on every node: what a node offers, less what the pods there ask for,
//! counted as the scheduler counts.
//!
//! Objects are read into plain numbers where they change: [`Template::read`], [`NodeRoom::read`],
//! [`requests_of_pod`]; [`Ledger`](crate::ledger::Ledger) keeps the sums. A decision only compares
//! ([`NodeRoom::most`]).

mod admitted;
mod affinity;
mod among_pods;
mod node;
mod quantity;
mod requests;
mod resources;
mod template;

pub use admitted::admitted;
pub use affinity::{NodeDemands, Requirement, Term};
pub use among_pods::{AmongPods, Spread};
pub use node::{Admission, NodeRoom, admission};
pub use quantity::{parse_millis, parse_units};
pub use requests::{HostPort, host_ports, requests, requests_of_pod};
pub use resources::{Extended, Resources};
pub use template::Template;
