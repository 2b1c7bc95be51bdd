//! When each peer is probed. Every peer has its own phase and jittered steps, so that probes spread
//! over the interval instead of leaving in bursts, and probers do not synchronise. Pure: time and
//! randomness are arguments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::clock::Mono;

/// A peer's slot in the session's table. `generation` distinguishes a new peer in a reused slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerKey {
    /// The slot.
    pub slot: u32,
    /// The peer in that slot.
    pub generation: u32,
}

/// A peer's turn to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeTurn {
    pub peer: PeerKey,
    /// When it was due.
    pub due: Mono,
}

/// Fraction of the interval by which a step may be longer or shorter.
const JITTER: f64 = 0.1;

/// The queue of turns.
#[derive(Debug)]
pub(crate) struct Schedule {
    turns: BinaryHeap<Reverse<(Mono, PeerKey)>>,
    interval: Duration,
}

impl Schedule {
    /// An empty queue.
    #[must_use]
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { turns: BinaryHeap::new(), interval }
    }

    /// Sets the interval, effective from each peer's next turn.
    pub(crate) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Adds a peer. Its first turn is at a random time within an interval from `now`.
    pub(crate) fn join(&mut self, peer: PeerKey, now: Mono, rng: &mut SmallRng) {
        self.turns.push(Reverse((now.plus(self.interval.mul_f64(rng.random_range(0.0..1.0))), peer)));
    }

    /// When the next turn is due.
    #[must_use]
    pub(crate) fn next(&self) -> Option<Mono> {
        self.turns.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the next turn if it is due. The peer has no further turn until [`Schedule::again`].
    pub(crate) fn take(&mut self, now: Mono) -> Option<ProbeTurn> {
        self.turns.peek().filter(|Reverse((due, _))| *due <= now)?;
        self.turns.pop().map(|Reverse((due, peer))| ProbeTurn { peer, due })
    }

    /// Schedules the next turn, about an interval after `turn` was due. If that has passed too
    /// (after a suspension, or under overload), missed turns are skipped: the next one is at a
    /// random time within an interval.
    pub(crate) fn again(&mut self, turn: ProbeTurn, now: Mono, rng: &mut SmallRng) {
        let step = self.interval.mul_f64(1.0 + rng.random_range(-JITTER..JITTER));
        let due = turn.due.plus(step);
        if due > now {
            self.turns.push(Reverse((due, turn.peer)));
        } else {
            self.join(turn.peer, now, rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn peer(slot: u32) -> PeerKey {
        PeerKey { slot, generation: 0 }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_peer_is_probed_once_an_interval_and_never_all_at_once() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut schedule = Schedule::new(SECOND);
        for slot in 0..1_000 {
            schedule.join(peer(slot), Mono::from_nanos(0), &mut rng);
        }
        let mut turns = vec![0_u32; 1_000];
        let mut busiest = 0;
        for milli in 0..100_000 {
            let now = Mono::from_nanos(milli * 1_000_000);
            let mut at_once = 0;
            while let Some(turn) = schedule.take(now) {
                turns[turn.peer.slot as usize] += 1;
                at_once += 1;
                schedule.again(turn, now, &mut rng);
            }
            busiest = busiest.max(at_once);
        }
        assert!(turns.iter().all(|count| (97..=103).contains(count)), "{turns:?}");
        assert!(busiest < 12, "{busiest} of 1,000 within one millisecond");
    }

    #[test]
    fn what_was_slept_through_is_not_made_up_for() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut schedule = Schedule::new(SECOND);
        schedule.join(peer(0), Mono::from_nanos(0), &mut rng);
        let woken = Mono::from_nanos(3_600_000_000_000);
        let turn = schedule.take(woken).unwrap();
        schedule.again(turn, woken, &mut rng);
        assert_eq!(schedule.take(woken), None);
        assert!(schedule.next().unwrap() <= woken.plus(SECOND));
    }
}
