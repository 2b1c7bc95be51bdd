//! Sockets: how they are opened, and packets by the batch with the kernel's stamps.

mod batch;
mod control;
mod open;

pub(crate) use batch::{Datagram, Inbox, Outbox};
pub(crate) use control::LocalAddress;
pub(crate) use open::{IcmpSocket, icmp, register, set_transmit_stamps, udp_prober, udp_responder};
