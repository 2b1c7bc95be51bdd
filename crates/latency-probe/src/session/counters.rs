//! What a prober counts about itself.

use crate::peers::Protocol;
use crate::session::histogram::{Bounds, Histogram};
use crate::session::round_trip::Discard;

/// Totals of one life of a prober. Arrays are by [`Protocol`].
#[derive(Clone, Debug)]
pub struct Counters {
    /// Probes sent.
    pub sent: [u64; Protocol::COUNT],
    /// Probes that came back in time.
    pub answered: [u64; Protocol::COUNT],
    /// Probes that did not.
    pub lost: [u64; Protocol::COUNT],
    /// Probes that came back and gave no time, because the clock was set meanwhile.
    pub discarded_clock_stepped: u64,
    /// Probes that came back and gave no time, because the responder's part does not fit.
    pub discarded_impossible: u64,
    /// Probes that came back and gave no time, because nobody knows when.
    pub discarded_unstamped: u64,
    /// Probes that were still out when this machine, or this program, had been stopped for a while.
    pub discarded_asleep: u64,
    /// Replies that the kernel dropped because they were not read in time. The probes that were out then tell nothing.
    pub overrun: u64,
    /// Probes that the peer's node refused, because nobody listens on the port there.
    pub refused: u64,
    /// Probes that the network sent back, or that could not be sent, because there is no route.
    pub no_route: u64,
    /// Probes that could not be sent for a reason of our own.
    pub not_sent: u64,
    /// Replies after their probe was given up.
    pub late: u64,
    /// Second replies to a probe.
    pub duplicate: u64,
    /// Replies that came after the reply to a later probe of the same peer.
    pub reordered: u64,
    /// Replies to probes of another life or another prober.
    pub foreign: u64,
    /// Packets that fit no probe: malformed, wrongly tagged, from elsewhere.
    pub rejected: u64,
    /// Times to all peers.
    pub times: Histogram,
    /// How late turns were taken.
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
            times: Histogram::new(Bounds::wide()),
            lateness: Histogram::new(Bounds::lateness()),
        }
    }
}

impl Counters {
    /// What was neither a time nor a loss, by kind.
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

    /// A probe came back, and took so many seconds or gave no time.
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
