//! How late the emulator lets packets go, kept per second, so that a reader can judge the stretches
//! of time that matter and leave out the bursts of pod starts that it knows about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Below this many nanoseconds every bucket is [`FINE_NANOS`] wide; above it a power of two is cut
/// into [`STEPS`] buckets.
const FINE_LIMIT_NANOS: u64 = 64_000;
const FINE_NANOS: u64 = 1_000;
const FINE_BUCKETS: u32 = 64;
const STEPS: u32 = 32;

/// A histogram of lateness: exact to a microsecond below 64 us, to about 2 % above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Bucket number to packets in it; empty buckets are absent.
    buckets: BTreeMap<u32, u64>,
}

impl Lateness {
    /// Counts one packet that was let go this long after it was due.
    pub fn record(&mut self, nanos: u64) {
        *self.buckets.entry(bucket_of(nanos)).or_default() += 1;
    }

    /// How many packets were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// The lateness that a share `quantile` of packets did not exceed (the upper edge of its
    /// bucket); none when nothing was counted.
    #[must_use]
    pub fn quantile_seconds(&self, quantile: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        // The smallest number of packets that is at least the share asked for.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                #[allow(clippy::cast_precision_loss)]
                return Some(upper_edge_nanos(*bucket) as f64 / 1e9);
            }
        }
        None
    }
}

/// One second of the emulator's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// When the slice began.
    pub at_unix_seconds: f64,
    /// How late packets were let go.
    pub lateness: Lateness,
    /// Packets let go.
    pub delivered: u64,
    /// Packets that the scenario's loss took.
    pub lost: u64,
    /// Packets dropped because too many of their pair were under way: a fault of the emulator, not
    /// of the scenario.
    pub overflowed: u64,
    /// Packets for no node, or not IPv4.
    pub unroutable: u64,
    /// Packets the receiving node's interface refused.
    pub refused: u64,
}

impl Slice {
    /// An empty slice.
    #[must_use]
    pub fn starting_at(at_unix_seconds: f64) -> Self {
        Self { at_unix_seconds, lateness: Lateness::default(), delivered: 0, lost: 0, overflowed: 0, unroutable: 0, refused: 0 }
    }
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its begin.
    pub from_unix_seconds: f64,
    /// Its end.
    pub to_unix_seconds: f64,
}

/// The lateness over all slices of which no part lies in one of the `excluded` stretches.
#[must_use]
pub fn lateness_outside(slices: &[Slice], excluded: &[Interval]) -> Lateness {
    let mut total = Lateness::default();
    for slice in slices {
        let ends = slice.at_unix_seconds + 1.0;
        if !excluded.iter().any(|gap| slice.at_unix_seconds < gap.to_unix_seconds && ends > gap.from_unix_seconds) {
            total.merge(&slice.lateness);
        }
    }
    total
}

fn bucket_of(nanos: u64) -> u32 {
    if nanos < FINE_LIMIT_NANOS {
        return u32::try_from(nanos / FINE_NANOS).unwrap_or(FINE_BUCKETS);
    }
    let octave = (nanos / FINE_LIMIT_NANOS).ilog2();
    let octave_start = FINE_LIMIT_NANOS << octave;
    let within = (nanos - octave_start) / (octave_start / u64::from(STEPS));
    FINE_BUCKETS + octave * STEPS + u32::try_from(within).unwrap_or(STEPS - 1)
}

fn upper_edge_nanos(bucket: u32) -> u64 {
    if bucket < FINE_BUCKETS {
        return (u64::from(bucket) + 1) * FINE_NANOS;
    }
    let (octave, within) = ((bucket - FINE_BUCKETS) / STEPS, (bucket - FINE_BUCKETS) % STEPS);
    let octave_start = FINE_LIMIT_NANOS.checked_shl(octave).unwrap_or(u64::MAX / 2);
    octave_start.saturating_add(octave_start / u64::from(STEPS) * (u64::from(within) + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Lateness::default().quantile_seconds(0.99), None);
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut lateness = Lateness::default();
        for micros in 0..100 {
            lateness.record(micros * 1_000);
        }
        assert_eq!(lateness.quantile_seconds(0.5), Some(0.000_050));
        let p99 = lateness.quantile_seconds(0.99).unwrap();
        assert!((p99 - 0.000_099).abs() < 0.000_003, "{p99}");
    }

    #[test]
    fn excluded_stretches_do_not_count() {
        let mut quiet = Slice::starting_at(10.0);
        quiet.lateness.record(5_000);
        let mut burst = Slice::starting_at(20.0);
        burst.lateness.record(50_000_000);
        let gap = Interval { from_unix_seconds: 20.5, to_unix_seconds: 30.0 };
        assert_eq!(lateness_outside(&[quiet.clone(), burst.clone()], &[gap]).count(), 1);
        assert_eq!(lateness_outside(&[quiet, burst], &[]).count(), 2);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_it_says(nanos in 0_u64..600_000_000_000) {
            let edge = upper_edge_nanos(bucket_of(nanos));
            prop_assert!(edge > nanos);
            #[allow(clippy::cast_precision_loss)]
            let width = (edge - nanos) as f64;
            #[allow(clippy::cast_precision_loss)]
            let allowed = 1_000.0_f64.max(nanos as f64 / 32.0 + 1.0);
            prop_assert!(width <= allowed, "{nanos} -> {edge}");
        }

        #[test]
        fn buckets_are_in_order(a in 0_u64..600_000_000_000, b in 0_u64..600_000_000_000) {
            prop_assert!((a <= b) == (bucket_of(a) <= bucket_of(b)) || bucket_of(a) == bucket_of(b));
        }
    }
}
