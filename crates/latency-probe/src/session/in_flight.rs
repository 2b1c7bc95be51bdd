//! The probes in flight. Sequence numbers rise in the order of sending and every probe has the same
//! timeout, so they form a queue: a reply finds its probe by subtraction, and the oldest is the
//! next to time out. Memory is bounded by rate times timeout.

use std::collections::VecDeque;
use std::time::Duration;

use latency_matrix::Protocol;

use crate::clock::{ClockReading, Mono, Wall};
use crate::protocol::wire::Sequence;
use crate::session::schedule::PeerKey;

/// A probe in flight, or one that ended while older ones are in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The peer.
    pub peer: PeerKey,
    pub protocol: Protocol,
    /// The peer's flow that it belongs to.
    pub flow: u8,
    /// Just before the send.
    pub sent: ClockReading,
    /// The kernel's timestamp of the departure, once known.
    pub sent_stamp: Option<Wall>,
    pub fate: ProbeFate,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeFate {
    /// In flight.
    Out,
    /// Answered.
    Answered,
    /// Neither latency nor loss, whatever happens to it.
    WrittenOff,
}

/// The probes in flight.
#[derive(Debug, Default)]
pub(crate) struct ProbesInFlight {
    first: u64,
    probes: VecDeque<Probe>,
    out: usize,
}

impl ProbesInFlight {
    /// Adds a probe.
    pub(crate) fn push(&mut self, probe: Probe) -> Sequence {
        let sequence = Sequence(self.first + self.probes.len() as u64);
        self.out += usize::from(probe.fate == ProbeFate::Out);
        self.probes.push_back(probe);
        sequence
    }

    /// The probe with that number, unless it timed out or was never sent. Change its fate by
    /// [`ProbesInFlight::end`] only.
    pub(crate) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Probe> {
        let index = sequence.0.checked_sub(self.first)?;
        self.probes.get_mut(usize::try_from(index).ok()?)
    }

    /// Ends a probe in flight. Returns it as it was; none if it was not in flight.
    pub(crate) fn end(&mut self, sequence: Sequence, fate: ProbeFate) -> Option<Probe> {
        let probe = self.get_mut(sequence).filter(|probe| probe.fate == ProbeFate::Out)?;
        let was = *probe;
        probe.fate = fate;
        self.out -= 1;
        Some(was)
    }

    /// Writes off the probes in flight that match. Returns their number.
    pub(crate) fn write_off(&mut self, tell_nothing: impl Fn(&Probe) -> bool) -> u64 {
        let mut written_off = 0;
        for probe in self.probes.iter_mut().filter(|probe| probe.fate == ProbeFate::Out && tell_nothing(probe)) {
            probe.fate = ProbeFate::WrittenOff;
            written_off += 1;
        }
        self.out -= written_off;
        written_off as u64
    }

    /// Whether the probe with that number has been removed.
    #[must_use]
    pub(crate) const fn is_past(&self, sequence: Sequence) -> bool {
        sequence.0 < self.first
    }

    /// Removes the oldest probe if it was sent `timeout` ago. Probes that ended stay as long, so
    /// that further replies to them are recognised.
    pub(crate) fn pop_over(&mut self, now: Mono, timeout: Duration) -> Option<Probe> {
        self.probes.front().filter(|oldest| now.since(oldest.sent.mono) >= timeout)?;
        self.first += 1;
        let oldest = self.probes.pop_front()?;
        self.out -= usize::from(oldest.fate == ProbeFate::Out);
        Some(oldest)
    }

    /// Number of probes in flight.
    #[must_use]
    pub(crate) const fn out(&self) -> usize {
        self.out
    }

    /// When the oldest probe will have been sent `timeout` ago.
    #[must_use]
    pub(crate) fn next_timeout(&self, timeout: Duration) -> Option<Mono> {
        self.probes.front().map(|oldest| oldest.sent.mono.plus(timeout))
    }

    /// Number of probes that are kept.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.probes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(at: u64) -> Probe {
        Probe {
            peer: PeerKey { slot: 0, generation: 0 },
            protocol: Protocol::Udp,
            flow: 0,
            sent: ClockReading { mono: Mono::from_nanos(at), wall: Wall::from_nanos(at) },
            sent_stamp: None,
            fate: ProbeFate::Out,
        }
    }

    const TIMEOUT: Duration = Duration::from_nanos(10);

    #[test]
    fn the_oldest_is_given_up_first() {
        let mut out = ProbesInFlight::default();
        let numbers: Vec<_> = (0..3).map(|at| out.push(probe(at))).collect();
        assert_eq!((out.end(numbers[1], ProbeFate::Answered).unwrap().fate, out.out()), (ProbeFate::Out, 2));
        assert!(out.end(numbers[1], ProbeFate::WrittenOff).is_none(), "it ended already");
        assert!(out.pop_over(Mono::from_nanos(9), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(10), TIMEOUT).unwrap().fate, ProbeFate::Out);
        assert!(out.pop_over(Mono::from_nanos(10), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(11), TIMEOUT).unwrap().fate, ProbeFate::Answered);
        assert!(out.is_past(numbers[1]) && !out.is_past(numbers[2]));
        assert!(
            out.get_mut(numbers[0]).is_none() && out.get_mut(Sequence(3)).is_none() && out.get_mut(Sequence(u64::MAX)).is_none()
        );
        assert_eq!((out.next_timeout(TIMEOUT), out.len(), out.out()), (Some(Mono::from_nanos(12)), 1, 1));
        assert_eq!((out.write_off(|probe| probe.protocol == Protocol::Icmp), out.out()), (0, 1));
        assert_eq!((out.write_off(|_| true), out.out()), (1, 0));
        assert_eq!(out.pop_over(Mono::from_nanos(12), TIMEOUT).unwrap().fate, ProbeFate::WrittenOff);
    }
}
