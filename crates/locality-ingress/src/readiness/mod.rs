//! What Serving is told about an Ingress, and how we know that it is true: every live gateway has
//! confirmed the version, and has proved it by answering a probe with the version's hash.
//!
//! [`status`] is pure; [`probe`] asks one gateway one thing; [`pursuit`] drives one Ingress to its
//! Ready; [`supervisor`] runs the pursuits while this replica leads.

pub mod probe;
pub mod pursuit;
pub mod status;
pub mod supervisor;
