//! Two clocks. Durations are measured on the monotonic one, which nobody sets; the kernel stamps packets with the wall clock, which people
//! and time daemons do set. A [`Reading`] of both at one moment is what lets a stamp be carried over from the one to the other.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment on this machine's monotonic clock, in nanoseconds since a point of no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The moment `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A moment on the wall clock, in nanoseconds since 1970. The kernel's packet stamps are of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// The moment `nanos` nanoseconds after 1970.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn as_unix_seconds(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock.
    pub wall: Wall,
}

/// How far apart two looks at the monotonic clock may be for the look at the wall clock between them to count as the same moment.
const SAME_MOMENT_NANOS: u64 = 500;
const READING_TRIES: usize = 6;

impl Reading {
    /// Reads both clocks now. Being put aside by the scheduler in between would make them disagree, so of a few tries the tightest counts.
    #[must_use]
    pub fn now() -> Self {
        let (mut reading, mut gap) = Self::attempt();
        for _ in 1..READING_TRIES {
            if gap <= SAME_MOMENT_NANOS {
                break;
            }
            let (another, its_gap) = Self::attempt();
            if its_gap < gap {
                (reading, gap) = (another, its_gap);
            }
        }
        reading
    }

    /// The wall clock between two looks at the monotonic one, and how far apart these were.
    fn attempt() -> (Self, u64) {
        let before = nanos(ClockId::CLOCK_MONOTONIC);
        let wall = Wall(nanos(ClockId::CLOCK_REALTIME));
        let gap = nanos(ClockId::CLOCK_MONOTONIC).saturating_sub(before);
        (Self { mono: Mono(before + gap / 2), wall }, gap)
    }
}

impl Mono {
    /// The monotonic clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(nanos(ClockId::CLOCK_MONOTONIC))
    }
}

impl Wall {
    /// The wall clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(nanos(ClockId::CLOCK_REALTIME))
    }
}

fn nanos(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux, and the only other error is a bad pointer, which the wrapper rules out.
    clock_gettime(clock).map_or(0, |time| nanos_of(time.tv_sec(), time.tv_nsec()))
}

/// Nanoseconds of a kernel timespec; a negative one, which no clock of ours shows, is zero.
pub(crate) fn nanos_of(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanoseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward_together() {
        let first = Reading::now();
        std::thread::sleep(Duration::from_millis(5));
        let second = Reading::now();
        assert!(second.mono.since(first.mono) >= Duration::from_millis(5));
        assert!(second.wall > first.wall);
        assert_eq!(first.mono.since(second.mono), Duration::ZERO);
    }
}
