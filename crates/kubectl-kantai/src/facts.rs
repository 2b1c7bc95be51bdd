//! What is read of a cluster, for `status` and `check`.

mod gateways;
mod parts;
mod revisions;
mod switch;

pub(crate) use gateways::{GatewayPods, Lag, gateway_pods, lags};
#[cfg(test)]
pub(crate) use parts::PartKind;
pub(crate) use parts::{Part, parts};
pub(crate) use revisions::{Served, served};
pub(crate) use switch::{Switch, switch};
