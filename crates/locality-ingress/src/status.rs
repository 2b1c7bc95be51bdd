//! What Serving is told about an Ingress, and how we know that it is true: every live gateway has
//! confirmed the version, and has proved it by answering a probe with the version's hash.
//!
//! [`conditions`] is pure; [`probe`] asks one gateway one thing; [`pursuit`] drives one Ingress to its
//! Ready; [`supervisor`] runs the pursuits while this replica leads.

pub(crate) mod conditions;
pub(crate) mod probe;
pub(crate) mod pursuit;
pub(crate) mod standing;
pub(crate) mod supervisor;

pub use standing::{News, Progress};
