//! The status of Ingresses. An Ingress is Ready when every live gateway has confirmed the version
//! and has answered a probe with the version's hash.
//!
//! `conditions` builds statuses and is pure; `probe` sends one probe to one gateway;
//! `rollout_check` repeats probes until one Ingress is Ready; `supervisor` runs one check per
//! Ingress while this replica leads.

pub(crate) mod conditions;
pub(crate) mod probe;
pub(crate) mod progress;
pub(crate) mod rollout_check;
pub(crate) mod supervisor;

pub use progress::{ProgressReport, RolloutProgress};
