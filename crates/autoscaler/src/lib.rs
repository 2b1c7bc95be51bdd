//! Decides how many pods a Knative revision gets, on which nodes, and which way each node's requests
//! go. Pure: plain data in, plain data out; no client, no clock.

pub mod earned;
pub mod handback;
pub mod kpa;
pub mod lifecycle;
pub mod picture;
pub mod rollout;
pub mod room;
pub mod settings;
pub mod status;
