//! Computes an RTT from two clock readings, the kernel's timestamps and the responder's own time.
//! Pure.
//!
//! The elapsed time is measured on the monotonic clock, from just before the send to the reading of
//! the reply. Kernel timestamps then remove what was not the network: the delay between our reading
//! and the departure, the time the reply lay in the socket, and the time the responder held the
//! request. Each of these is short and measured within one machine, so neither an offset between
//! machines nor a clock that is set meanwhile changes the result.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::{ClockReading, Wall};

/// A round-trip time between 0 (exclusive) and 4.29 s, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RttSample(NonZeroU32);

impl RttSample {
    /// The longest RTT. Timeouts must be shorter.
    pub const MAX: Duration = Duration::from_nanos(u32::MAX as u64 - 1);

    /// An RTT; none if zero or longer than [`RttSample::MAX`].
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Option<Self> {
        u32::try_from(nanos).ok().filter(|&nanos| nanos < u32::MAX).and_then(NonZeroU32::new).map(Self)
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u32 {
        self.0.get()
    }

    /// In seconds.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        f64::from(self.as_nanos()) / 1e9
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_millis(self) -> f64 {
        f64::from(self.as_nanos()) / 1e6
    }
}

/// The times of one answered probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    /// The clocks just before the request was handed to the kernel.
    pub sent: ClockReading,
    /// The kernel's timestamp of the request's departure, if there is one.
    pub sent_stamp: Option<Wall>,
    /// The kernel's timestamp of the reply's arrival, if there is one.
    pub received_stamp: Option<Wall>,
    /// The clocks when the reply was read.
    pub read: ClockReading,
    /// Whether the reply was read as soon as it arrived. Without a kernel timestamp only then is
    /// `read` the time of arrival.
    pub prompt: bool,
    /// How long the responder held the request, as it says.
    pub held: Duration,
}

/// Why an answered probe has no RTT. Such a probe is neither latency nor loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// The wall clock was set, or the machine was suspended, while the probe was in flight.
    ClockStepped,
    /// The responder's time exceeds the elapsed time, or is negative.
    Impossible,
    /// The time of arrival is unknown: no kernel timestamp, and the reply was read later.
    Unstamped,
}

impl Discard {
    /// The name in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClockStepped => "clock_stepped",
            Self::Impossible => "impossible",
            Self::Unstamped => "unstamped",
        }
    }
}

/// Time daemons slew the wall clock by at most 500 ppm. Twice that, plus the gap between two
/// readings, is the most by which the clocks differ unless one was set.
const SLEW_PARTS_PER_MILLION: u64 = 1_000;
const READING_SLACK_NANOS: u64 = 20_000;

/// The time that the two packets spent on the network.
///
/// # Errors
/// A [`Discard`] if the times contradict each other.
pub(crate) fn round_trip(trip: &Trip) -> Result<RttSample, Discard> {
    let elapsed = trip.read.mono.as_nanos().checked_sub(trip.sent.mono.as_nanos()).ok_or(Discard::ClockStepped)?;
    let wall_elapsed = trip.read.wall.as_nanos().checked_sub(trip.sent.wall.as_nanos()).ok_or(Discard::ClockStepped)?;
    let tolerance = READING_SLACK_NANOS + elapsed / 1_000_000 * SLEW_PARTS_PER_MILLION;
    if elapsed.abs_diff(wall_elapsed) > tolerance {
        return Err(Discard::ClockStepped);
    }
    // A timestamp may precede its reading by a little, because the clocks are not read at the same
    // instant.
    let lag = |earlier: Wall, later: Wall| match later.as_nanos().checked_sub(earlier.as_nanos()) {
        Some(lag) => Ok(lag),
        None if earlier.as_nanos() - later.as_nanos() <= READING_SLACK_NANOS => Ok(0),
        None => Err(Discard::ClockStepped),
    };
    let before = trip.sent_stamp.map_or(Ok(0), |stamp| lag(trip.sent.wall, stamp))?;
    let after = match trip.received_stamp {
        Some(stamp) => lag(stamp, trip.read.wall)?,
        None if trip.prompt => 0,
        None => return Err(Discard::Unstamped),
    };
    let held = u64::try_from(trip.held.as_nanos()).unwrap_or(u64::MAX);
    let wire = elapsed.checked_sub(before).and_then(|rest| rest.checked_sub(after)).and_then(|rest| rest.checked_sub(held));
    wire.and_then(RttSample::from_nanos).ok_or(Discard::Impossible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Mono;

    fn reading(mono: u64, wall: u64) -> ClockReading {
        ClockReading { mono: Mono::from_nanos(mono), wall: Wall::from_nanos(wall) }
    }

    const EPOCH: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn only_the_time_on_the_wire_remains() {
        let at = |micros: u64| reading(micros * 1_000, EPOCH + micros * 1_000);
        let trip = Trip {
            sent: at(0),
            // 4 us until the request left, the reply lay in the socket for 796 us, and the
            // responder held the request for 100 us.
            sent_stamp: Some(at(4).wall),
            received_stamp: Some(at(1_104).wall),
            read: at(1_900),
            prompt: false,
            held: Duration::from_micros(100),
        };
        assert_eq!(round_trip(&trip).unwrap().as_nanos(), 1_000_000);
    }

    #[test]
    fn without_stamps_it_is_the_elapsed_time_less_what_the_responder_held() {
        let trip = Trip {
            sent: reading(10, EPOCH),
            sent_stamp: None,
            received_stamp: None,
            read: reading(5_000_010, EPOCH + 5_000_000),
            prompt: true,
            held: Duration::from_millis(1),
        };
        assert_eq!(round_trip(&trip).unwrap().as_nanos(), 4_000_000);
    }

    #[test]
    fn a_wall_clock_that_was_set_meanwhile_gives_no_time() {
        for step in [-3_600_000_000_000_i64, -1_000_000, 1_000_000, 3_600_000_000_000] {
            let trip = Trip {
                sent: reading(0, EPOCH),
                sent_stamp: None,
                received_stamp: None,
                read: reading(5_000_000, (EPOCH + 5_000_000).checked_add_signed(step).unwrap()),
                prompt: true,
                held: Duration::ZERO,
            };
            assert_eq!(round_trip(&trip), Err(Discard::ClockStepped), "{step}");
        }
    }

    #[test]
    fn a_responder_that_claims_more_than_the_whole_gives_no_time() {
        let trip = Trip {
            sent: reading(0, EPOCH),
            sent_stamp: None,
            received_stamp: None,
            read: reading(5_000_000, EPOCH + 5_000_000),
            prompt: true,
            held: Duration::from_millis(5),
        };
        assert_eq!(round_trip(&trip), Err(Discard::Impossible));
    }

    /// Replies are read when it suits the prober, up to a tenth of a second late.
    #[test]
    fn a_reply_of_which_nobody_knows_when_it_came_gives_no_time() {
        let trip = Trip {
            sent: reading(0, EPOCH),
            sent_stamp: None,
            received_stamp: None,
            read: reading(90_000_000, EPOCH + 90_000_000),
            prompt: false,
            held: Duration::ZERO,
        };
        assert_eq!(round_trip(&trip), Err(Discard::Unstamped));
        assert_eq!(round_trip(&Trip { prompt: true, ..trip }).unwrap().as_nanos(), 90_000_000);
    }

    proptest! {
        /// Whatever lags and clock offsets there are, what remains is the wire.
        #[test]
        fn lags_never_show(wire in 1_u64..4_000_000_000, before in 0_u64..50_000_000, after in 0_u64..50_000_000,
                           held in 0_u64..50_000_000, wall in EPOCH..2 * EPOCH, mono in 0_u64..EPOCH) {
            let total = before + wire + held + after;
            let trip = Trip {
                sent: reading(mono, wall),
                sent_stamp: Some(Wall::from_nanos(wall + before)),
                received_stamp: Some(Wall::from_nanos(wall + total - after)),
                read: reading(mono + total, wall + total),
                prompt: false,
                held: Duration::from_nanos(held),
            };
            prop_assert_eq!(round_trip(&trip).map(|rtt| u64::from(rtt.as_nanos())), Ok(wire));
        }

        /// Nothing that hosts or clocks can say makes it panic, and no time comes out longer than
        /// the probe was out.
        #[test]
        fn nothing_makes_it_panic(a in any::<[u64; 7]>(), stamps in any::<(bool, bool)>()) {
            let trip = Trip {
                sent: reading(a[0], a[1]),
                sent_stamp: stamps.0.then_some(Wall::from_nanos(a[2])),
                received_stamp: stamps.1.then_some(Wall::from_nanos(a[3])),
                read: reading(a[4], a[5]),
                prompt: stamps.0,
                held: Duration::from_nanos(a[6]),
            };
            if let Ok(rtt) = round_trip(&trip) {
                prop_assert!(u64::from(rtt.as_nanos()) <= a[4] - a[0]);
            }
        }
    }
}
