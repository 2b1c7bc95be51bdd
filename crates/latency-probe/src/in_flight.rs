//! The probes that are out. Sequence numbers are given in the order of sending and every probe waits equally long, so the ones out form a
//! queue: a reply finds its probe by subtraction, and the oldest is always the next to be given up. Memory is rate times timeout.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{Mono, Reading, Wall};
use crate::peers::Protocol;
use crate::schedule::PeerKey;
use crate::wire::Sequence;

/// A probe that is out, or that came back while older ones are still out.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// To whom.
    pub peer: PeerKey,
    /// By which protocol.
    pub protocol: Protocol,
    /// When.
    pub sent: Reading,
    /// When the kernel passed it to the device, once that is known.
    pub sent_stamp: Option<Wall>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may still come back.
    Out,
    /// It came back.
    Answered,
    /// Whether it comes back or not tells nothing any more.
    WrittenOff,
}

/// The probes that are out.
#[derive(Debug, Default)]
pub struct InFlight {
    first: u64,
    probes: VecDeque<Probe>,
}

impl InFlight {
    /// One more is out.
    pub fn push(&mut self, probe: Probe) -> Sequence {
        let sequence = Sequence(self.first + self.probes.len() as u64);
        self.probes.push_back(probe);
        sequence
    }

    /// The probe with that number, unless it was given up or never sent.
    pub fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Probe> {
        let index = sequence.0.checked_sub(self.first)?;
        self.probes.get_mut(usize::try_from(index).ok()?)
    }

    /// Whether a probe with that number was given up.
    #[must_use]
    pub const fn is_past(&self, sequence: Sequence) -> bool {
        sequence.0 < self.first
    }

    /// Removes the oldest probe if it went out `timeout` ago. One that ended stays as long, so that a second reply to it is known as such.
    pub fn pop_over(&mut self, now: Mono, timeout: Duration) -> Option<Probe> {
        self.probes.front().filter(|oldest| now.since(oldest.sent.mono) >= timeout)?;
        self.first += 1;
        self.probes.pop_front()
    }

    /// Those still out, oldest first.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Probe> {
        self.probes.iter_mut().filter(|probe| probe.fate == Fate::Out)
    }

    /// When the oldest probe will have gone out `timeout` ago.
    #[must_use]
    pub fn next_timeout(&self, timeout: Duration) -> Option<Mono> {
        self.probes.front().map(|oldest| oldest.sent.mono.plus(timeout))
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.probes.len()
    }

    /// Whether none is out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(at: u64) -> Probe {
        Probe {
            peer: PeerKey { slot: 0, generation: 0 },
            protocol: Protocol::Udp,
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
        out.get_mut(numbers[1]).unwrap().fate = Fate::Answered;
        assert!(out.pop_over(Mono::from_nanos(9), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(10), TIMEOUT).unwrap().fate, Fate::Out);
        assert!(out.pop_over(Mono::from_nanos(10), TIMEOUT).is_none());
        assert_eq!(out.pop_over(Mono::from_nanos(11), TIMEOUT).unwrap().fate, Fate::Answered);
        assert!(out.is_past(numbers[1]) && !out.is_past(numbers[2]));
        assert!(
            out.get_mut(numbers[0]).is_none() && out.get_mut(Sequence(3)).is_none() && out.get_mut(Sequence(u64::MAX)).is_none()
        );
        assert_eq!((out.next_timeout(TIMEOUT), out.len()), (Some(Mono::from_nanos(12)), 1));
    }
}
