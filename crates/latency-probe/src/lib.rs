//! The node-to-node latency prober: one on each node, each probing the others by UDP or ICMP echo, TCP connect or HTTP GET, and telling what it
//! found.
//!
//! What decides is pure and takes time as an argument: [`wire`] and [`icmp`] (packets), [`round_trip`] (one time out of stamps), [`pair`]
//! (what is kept of a pair), [`schedule`] and [`in_flight`] (who is next, what is out), [`session`] (all of it together). What touches
//! the world is thin: the sockets behind [`prober`] and [`responder`], [`discovery`] of peers, [`exposition`] of results.

mod channel;
mod net;

pub mod background;
pub mod chooser;
pub mod clock;
pub mod control_message;
pub mod daemon;
pub mod discovery;
pub mod exposition;
pub mod fetch_row;
pub mod fleet_key;
pub mod footprint;
pub mod histogram;
pub mod icmp;
pub mod in_flight;
pub mod limiter;
pub mod matrix;
pub mod once;
pub mod options;
pub mod pace;
pub mod pair;
pub mod peers;
pub mod prober;
pub mod responder;
pub mod round_trip;
pub mod row;
pub mod schedule;
pub mod selection;
pub mod session;
pub mod stream;
pub mod wire;
