//! When the prober wakes. Kernel timestamps make it harmless to send a little late and to read
//! replies later, so the prober does both in batches: waking costs more than a probe. Pure.

use std::time::Duration;

use crate::clock::Mono;

/// Longest time that probes are held back to be sent together.
pub(crate) const LONGEST_SLOT: Duration = Duration::from_millis(100);
/// Number of probes per batch: few enough for one system call and not to be a burst, many enough to
/// share the cost of waking, most of which is cold caches.
const PROBES_PER_SLOT: u32 = 48;
/// Probes are at most this fraction of the interval late, which is no more than their jitter.
const SLOTS_PER_INTERVAL: u32 = 10;
/// The resolution of timers; a shorter slot is zero.
const SHORTEST_SLOT: Duration = Duration::from_millis(1);
/// Longest time between two reads of the sockets while probes are in flight.
const LONGEST_LOOK: Duration = Duration::from_millis(100);
/// Longest sleep without any probes.
const IDLE: Duration = Duration::from_secs(60);

/// How long probes are gathered before they are sent together; zero if there are more probes than
/// slots would hold.
#[must_use]
pub(crate) fn slot(peers: usize, interval: Duration) -> Duration {
    let peers = u32::try_from(peers).unwrap_or(u32::MAX).max(1);
    let enough = interval.saturating_mul(PROBES_PER_SLOT) / peers;
    let slot = enough.min(interval / SLOTS_PER_INTERVAL).min(LONGEST_SLOT);
    if slot < SHORTEST_SLOT { Duration::ZERO } else { slot }
}

/// The wake-up times of a prober.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WakeUps {
    slot: Duration,
    last: Mono,
    look_after: Duration,
}

impl WakeUps {
    /// A pace that starts at `now`.
    #[must_use]
    pub(crate) const fn new(now: Mono) -> Self {
        Self { slot: Duration::ZERO, last: now, look_after: LONGEST_LOOK }
    }

    /// Adapts to the number of peers and the interval.
    pub(crate) fn set(&mut self, peers: usize, interval: Duration) {
        self.slot = slot(peers, interval);
    }

    /// Records a waking. Sockets are read soon after a send, then less and less often.
    pub(crate) fn record_waking(&mut self, now: Mono, sent: bool) {
        self.last = now;
        self.look_after = if sent { self.slot.max(SHORTEST_SLOT) } else { (self.look_after * 2).min(LONGEST_LOOK) };
    }

    /// When to wake next: for the next turn or timeout, but not before the slot is over; or to read
    /// replies.
    #[must_use]
    pub(crate) fn next(&self, event: Option<Mono>, awaits_replies: bool) -> Mono {
        let event = event.map(|event| event.max(self.last.plus(self.slot)));
        let look = awaits_replies.then(|| self.last.plus(self.look_after));
        [event, look].into_iter().flatten().min().unwrap_or_else(|| self.last.plus(IDLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_slot_is_about_a_system_call_s_worth_of_probes() {
        assert_eq!(slot(5_000, Duration::from_secs(10)), Duration::from_millis(96));
        assert_eq!(slot(3, Duration::from_millis(100)), Duration::from_millis(10));
        assert_eq!(slot(1_000, Duration::from_millis(10)), Duration::ZERO);
    }

    #[test]
    fn turns_are_gathered_and_replies_looked_for() {
        let mut pace = WakeUps::new(millis(0));
        pace.set(64, Duration::from_secs(1));
        assert_eq!(pace.next(None, false), millis(60_000));
        assert_eq!(pace.next(Some(millis(3)), false), millis(100), "not before the slot is over");
        assert_eq!(pace.next(Some(millis(163)), false), millis(163));
        pace.record_waking(millis(163), true);
        let mut looks = Vec::new();
        for _ in 0..5 {
            let look = pace.next(Some(millis(1_000)), true);
            looks.push(look.as_nanos() / 1_000_000);
            pace.record_waking(look, false);
        }
        assert_eq!(looks, [263, 363, 463, 563, 663]);
    }

    #[test]
    fn a_reply_that_does_not_come_is_looked_for_less_and_less_often() {
        let mut pace = WakeUps::new(millis(0));
        pace.set(1, Duration::from_millis(100));
        pace.record_waking(millis(0), true);
        let mut looks = Vec::new();
        for _ in 0..6 {
            let look = pace.next(None, true);
            looks.push(look.as_nanos() / 1_000_000);
            pace.record_waking(look, false);
        }
        assert_eq!(looks, [10, 30, 70, 150, 250, 350]);
    }

    #[test]
    fn a_prober_that_has_more_to_do_than_time_never_waits() {
        let mut pace = WakeUps::new(millis(5));
        pace.set(4_000, Duration::from_millis(5));
        pace.record_waking(millis(7), true);
        assert_eq!(pace.next(Some(millis(6)), true), millis(7));
    }
}
