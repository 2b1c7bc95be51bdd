//! The monotonic and the wall clock. Durations are measured on the monotonic clock, which is never
//! set. Kernel timestamps are wall-clock times, and the wall clock can be set. A
//! [`ClockReading`] of both at one moment converts between the two.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A time of this machine's monotonic clock, in nanoseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The time `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The duration since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A time of the wall clock, in nanoseconds since 1970. Kernel packet timestamps are of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// The time `nanos` nanoseconds after 1970.
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
pub struct ClockReading {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock.
    pub wall: Wall,
}

/// Two readings of the monotonic clock at most this far apart count as the same moment as the
/// reading of the wall clock between them.
const SAME_MOMENT_NANOS: u64 = 500;
const READING_TRIES: usize = 6;

impl ClockReading {
    /// Reads both clocks. Preemption between the two readings would make them disagree, so the
    /// closest of a few attempts is used.
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

    /// A reading of the wall clock between two of the monotonic clock, and how far apart these
    /// were.
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
    // Both clocks exist on every Linux. The only other error is a bad pointer, which the wrapper
    // rules out.
    clock_gettime(clock).map_or(0, |time| nanos_of(time.tv_sec(), time.tv_nsec()))
}

/// Nanoseconds of a kernel `timespec`; zero if it is negative.
pub(crate) fn nanos_of(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanoseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward_together() {
        let first = ClockReading::now();
        std::thread::sleep(Duration::from_millis(5));
        let second = ClockReading::now();
        assert!(second.mono.since(first.mono) >= Duration::from_millis(5));
        assert!(second.wall > first.wall);
        assert_eq!(first.mono.since(second.mono), Duration::ZERO);
    }
}
