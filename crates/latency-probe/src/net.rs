//! Sockets: the probing loop with its channels and connections, and the responder. Packets are sent
//! and received in batches, with kernel timestamps.

mod batch;
mod channel;
mod framing;
mod limiter;
mod open;
pub(crate) mod prober;
pub(crate) mod responder;
pub(crate) mod stream;
pub(crate) mod train;

pub(crate) use batch::{Datagram, Inbox, Outbox};
pub(crate) use open::{
    IcmpSocket, connection_info, dropped_packets, icmp, register, set_receive_stamps, set_transmit_stamps, udp_prober,
    udp_responder, wait_readable,
};
pub use prober::Prober;
pub use responder::{AnswerPolicy, ListenError, Responder, ResponderCounters};
pub use stream::status;
