//! Counters of a session.

use latency_matrix::Protocol;

use crate::session::histogram::{BucketBounds, Histogram};
use crate::session::round_trip::Discard;

/// Totals since the session's start. Arrays are indexed by [`Protocol`].
#[derive(Clone, Debug)]
pub struct Counters {
    /// Probes sent.
    pub sent: [u64; Protocol::COUNT],
    /// Probes answered before their timeout.
    pub answered: [u64; Protocol::COUNT],
    /// Probes lost.
    pub lost: [u64; Protocol::COUNT],
    /// Answered probes without an RTT: the wall clock was set meanwhile.
    pub discarded_clock_stepped: u64,
    /// Answered probes without an RTT: the responder's times contradict ours.
    pub discarded_impossible: u64,
    /// Answered probes without an RTT: the time of arrival is unknown.
    pub discarded_unstamped: u64,
    /// Probes in flight when the machine or the program had been stopped.
    pub discarded_asleep: u64,
    /// Packets that the kernel dropped because the socket was full.
    pub overrun: u64,
    /// Probes refused by the peer's node: no program listens on the port.
    pub refused: u64,
    /// Probes that could not be delivered: there is no route to the peer's node.
    pub no_route: u64,
    /// Probes not sent because of this node's own limits.
    pub not_sent: u64,
    /// Replies after the probe's timeout.
    pub late: u64,
    /// Further replies to an answered probe.
    pub duplicate: u64,
    /// Replies that were overtaken by the reply to a later probe of the same peer.
    pub reordered: u64,
    /// Replies to another session: an earlier one of this prober, or another prober's.
    pub foreign: u64,
    /// Packets that are no valid reply: malformed, wrongly signed, or from another address.
    pub rejected: u64,
    /// RTTs to all peers.
    pub times: Histogram,
    /// How late probes were sent.
    pub lateness: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            sent: [0; Protocol::COUNT],
            answered: [0; Protocol::COUNT],
            lost: [0; Protocol::COUNT],
            discarded_clock_stepped: 0,
            discarded_impossible: 0,
            discarded_unstamped: 0,
            discarded_asleep: 0,
            overrun: 0,
            refused: 0,
            no_route: 0,
            not_sent: 0,
            late: 0,
            duplicate: 0,
            reordered: 0,
            foreign: 0,
            rejected: 0,
            times: Histogram::new(BucketBounds::wide()),
            lateness: Histogram::new(BucketBounds::lateness()),
        }
    }
}

impl Counters {
    /// Events that are neither an RTT nor a loss, by kind. The README explains the kinds.
    #[must_use]
    pub const fn anomalies(&self) -> [(&'static str, u64); 13] {
        [
            ("clock_stepped", self.discarded_clock_stepped),
            ("impossible", self.discarded_impossible),
            ("unstamped", self.discarded_unstamped),
            ("asleep", self.discarded_asleep),
            ("overrun", self.overrun),
            ("refused", self.refused),
            ("no_route", self.no_route),
            ("not_sent", self.not_sent),
            ("late", self.late),
            ("duplicate", self.duplicate),
            ("reordered", self.reordered),
            ("foreign", self.foreign),
            ("rejected", self.rejected),
        ]
    }

    /// Counts an answered probe and its RTT in seconds, or why there is none.
    pub fn answered(&mut self, protocol: Protocol, seconds: Result<f64, Discard>) {
        self.answered[protocol as usize] += 1;
        match seconds {
            Ok(seconds) => self.times.observe(seconds),
            Err(Discard::ClockStepped) => self.discarded_clock_stepped += 1,
            Err(Discard::Impossible) => self.discarded_impossible += 1,
            Err(Discard::Unstamped) => self.discarded_unstamped += 1,
        }
    }
}
