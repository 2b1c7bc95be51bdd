//! Decides how many pods a Knative revision gets, on which nodes, and which way each node's
//! requests go. Pure: plain data in, plain data out; no client, no clock.
//!
//! ```text
//! Picture (what is)  --decide(.., &mut Memory)-->  Decisions (what is to be)
//! ```
//!
//! A decision may remove a *ready* pod only because measured demand needs fewer pods, or because
//! its replacement is ready elsewhere. It never does so because something is unknown.

mod decide;
pub mod demand;
pub mod earned;
pub mod forecast;
pub mod handback;
pub mod kpa;
pub mod latency;
pub mod ledger;
pub mod lifecycle;
mod memory;
mod picture;
mod place;
mod refusals;
pub mod rollout;
pub mod room;
mod routes;
pub mod settings;
pub mod status;
pub mod trace;
pub mod warm;

pub use decide::{Count, DecideError, Decision, decide, decide_some, follow};
pub use memory::Memory;
pub use picture::{ActivatorProbe, Facts, Inputs, Network, Now, ObservedDemand, Picture, ServerlessFacts};
pub use place::{GoalState, RevisionPlacement, ShareMissed, runner_up};
pub use routes::Routes;
