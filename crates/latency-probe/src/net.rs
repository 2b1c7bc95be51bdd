//! Sockets: how they are opened, and packets by the batch with the kernel's stamps.

mod batch;
mod open;

pub(crate) use batch::{Datagram, Inbox, Outbox};
pub(crate) use open::{
    IcmpSocket, connection_info, dropped_packets, icmp, register, set_receive_stamps, set_transmit_stamps, udp_prober,
    udp_responder, wait_readable,
};
