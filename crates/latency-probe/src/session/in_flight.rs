//! The probes that are out. Sequence numbers are given in the order of sending and every probe waits equally long, so the ones out form a
//! queue: a reply finds its probe by subtraction, and the oldest is always the next to be given up. Memory is rate times timeout.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{Mono, Reading, Wall};
use crate::peers::Protocol;
use crate::protocol::wire::Sequence;
use crate::session::schedule::PeerKey;

/// A probe that is out, or that came back while older ones are still out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// To whom.
    pub peer: PeerKey,
    /// By which protocol.
    pub protocol: Protocol,
    /// In which of the peer's flows.
    pub flow: u8,
    /// When.
    pub sent: Reading,
    /// When the kernel passed it to the device, once that is known.
    pub sent_stamp: Option<Wall>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may still come back.
    Out,
    /// It came back.
    Answered,
    /// Whether it comes back or not tells nothing any more.
    WrittenOff,
}

/// The probes that are out.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    first: u64,
    probes: VecDeque<Probe>,
    out: usize,
}

impl InFlight {
    /// One more is out.
    pub(crate) fn push(&mut self, probe: Probe) -> Sequence {
        let sequence = Sequence(self.first + self.probes.len() as u64);
        self.out += usize::from(probe.fate == Fate::Out);
        self.probes.push_back(probe);
        sequence
    }

    /// The probe with that number, unless it was given up or never sent. Its fate is for [`InFlight::end`] to change.
    pub(crate) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Probe> {
        let index = sequence.0.checked_sub(self.first)?;
        self.probes.get_mut(usize::try_from(index).ok()?)
    }

    /// The probe is out no longer. Gives it as it was, or none where it was not out.
    pub(crate) fn end(&mut self, sequence: Sequence, fate: Fate) -> Option<Probe> {
        let probe = self.get_mut(sequence).filter(|probe| probe.fate == Fate::Out)?;
        let was = *probe;
        probe.fate = fate;
        self.out -= 1;
        Some(was)
    }

    /// Those of the probes in flight that `tell_nothing` are neither latency nor loss any more. Gives their number.
    pub(crate) fn write_off(&mut self, tell_nothing: impl Fn(&Probe) -> bool) -> u64 {
        let mut written_off = 0;
        for probe in self.probes.iter_mut().filter(|probe| probe.fate == Fate::Out && tell_nothing(probe)) {
            probe.fate = Fate::WrittenOff;
            written_off += 1;
        }
        self.out -= written_off;
        written_off as u64
    }

    /// Whether a probe with that number was given up.
    #[must_use]
    pub(crate) const fn is_past(&self, sequence: Sequence) -> bool {
        sequence.0 < self.first
    }

    /// Removes the oldest probe if it went out `timeout` ago. One that ended stays as long, so that a second reply to it is known as such.
    pub(crate) fn pop_over(&mut self, now: Mono, timeout: Duration) -> Option<Probe> {
        self.probes.front().filter(|oldest| now.since(oldest.sent.mono) >= timeout)?;
        self.first += 1;
        let oldest = self.probes.pop_front()?;
        self.out -= usize::from(oldest.fate == Fate::Out);
        Some(oldest)
    }

    /// How many may still come back.
    #[must_use]
    pub(crate) const fn out(&self) -> usize {
        self.out
    }

    /// When the oldest probe will have gone out `timeout` ago.
    #[must_use]
    pub(crate) fn next_timeout(&self, timeout: Duration) -> Option<Mono> {
        self.probes.front().map(|oldest| oldest.sent.mono.plus(timeout))
    }

    /// How many are kept.
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
            sent: Reading { mono: Mono::from_nanos(at), wall: Wall::from_nanos(at) },
            sent_stamp: None,
            fate: Fate::Out,
        }
    }

    const TIMEOUT: Duration = Duration::from_nanos(10);

    #[test]
    fn the_oldest_is_given_up_first() {
        let mut out = InFlight::default();
        let numbers: Vec<_> = (0..3).map(|at| out.push(probe(at))).collect();
        assert_eq!((out.end(numbers[1], Fate::Answered).unwrap().fate, out.out()), (Fate::Out, 2));
        assert!(out.end(numbers[1], Fate::WrittenOff).is_none(), "it ended already");
        assert!(out.pop_over(Mono::from_nanos(9), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(10), TIMEOUT).unwrap().fate, Fate::Out);
        assert!(out.pop_over(Mono::from_nanos(10), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(11), TIMEOUT).unwrap().fate, Fate::Answered);
        assert!(out.is_past(numbers[1]) && !out.is_past(numbers[2]));
        assert!(
            out.get_mut(numbers[0]).is_none() && out.get_mut(Sequence(3)).is_none() && out.get_mut(Sequence(u64::MAX)).is_none()
        );
        assert_eq!((out.next_timeout(TIMEOUT), out.len(), out.out()), (Some(Mono::from_nanos(12)), 1, 1));
        assert_eq!((out.write_off(|probe| probe.protocol == Protocol::Icmp), out.out()), (0, 1));
        assert_eq!((out.write_off(|_| true), out.out()), (1, 0));
        assert_eq!(out.pop_over(Mono::from_nanos(12), TIMEOUT).unwrap().fate, Fate::WrittenOff);
    }
}
