//! Demand as the gateways report it, assembled second by second.
//!
//! [`Board`] takes the events of all replicas of locality-ingress (`gateway_link::demand`) and
//! gives, once a tick, the [`ObservedDemand`](crate::picture::ObservedDemand) of every revision
//! that carries traffic, and the one that all others share. It has no clock: time since some fixed
//! instant is passed in. Where the gateways are not ours (Kourier), [`GatewayPages`] makes the same
//! events of their statistics pages.

mod board;
mod estimate;
mod gateway_pages;
mod page;
mod replicas;
mod revision;
mod sources;

pub use board::{Board, Tick};
pub use estimate::{SecondReading, estimate};
pub use gateway_pages::GatewayPages;
pub use page::{ClusterReading, Reading, parse_page};
