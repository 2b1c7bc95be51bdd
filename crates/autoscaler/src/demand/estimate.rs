//! Requests in flight over one second, from two readings that are each blind to something. Pure.

use crate::kpa::SourceDemand;

/// What one gateway showed of one revision over one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondReading {
    /// Requests in flight, averaged over looks at the gauge.
    pub gauge: f64,
    /// Requests that arrived in the second, per second; `None` where that is not known.
    pub arrived_per_second: Option<f64>,
    /// Requests that ended in the second, per second; `None` where that is not known.
    pub ended_per_second: Option<f64>,
    /// Seconds that a request takes; `None` where that is not known yet.
    pub mean_seconds: Option<f64>,
}

/// Requests that take less than this are better counted by Little's law than by looking now and
/// then.
const SHORT_SECONDS: f64 = 0.5;
/// A gauge this many standard deviations above what Little's law says means that its mean is out of
/// date.
const DEVIATIONS: f64 = 3.0;
/// The shortest response time, seconds. A revision whose response times are shorter than the round
/// trip still has demand.
const LEAST_SECONDS: f64 = 0.000_1;

/// The demand of one second.
///
/// Where requests are short, Little's law (rate times time) is exact and the gauge noisy: a request
/// of 5 ms, ten times a second, is 0.05 in flight, and a gauge read four times a second shows 0, 0,
/// 0, 0.25 of it. Unless the gauge is so far above that it cannot be noise (a Poisson count of mean
/// `m` deviates by the root of `m`): then requests have just become slower, and the gauge is right.
///
/// ```
/// use autoscaler::demand::{SecondReading, estimate};
///
/// let short = SecondReading {
///     gauge: 0.0,
///     arrived_per_second: Some(10.0),
///     ended_per_second: Some(10.0),
///     mean_seconds: Some(0.005),
/// };
/// assert_eq!(estimate(short).concurrency, 0.05);
/// let held = SecondReading { gauge: 8.0, ended_per_second: Some(0.0), ..short };
/// assert_eq!(estimate(held).concurrency, 8.0);
/// ```
#[must_use]
pub fn estimate(second: SecondReading) -> SourceDemand {
    let gauge = second.gauge.max(0.0);
    let concurrency = match (second.ended_per_second, second.mean_seconds) {
        (Some(rate), Some(mean)) if mean < SHORT_SECONDS => {
            let little = rate * mean.max(0.0);
            if gauge > little + DEVIATIONS * (little + 1.0).sqrt() { gauge } else { little }
        }
        _ => gauge,
    };
    let ended = second.ended_per_second.unwrap_or(0.0);
    // A held request counts even where the noise bound would hide it.
    let waiting = if ended == 0.0 { gauge } else { 0.0 };
    let requests_per_second = second.arrived_per_second.unwrap_or(0.0);
    let least = ended.max(requests_per_second) * LEAST_SECONDS;
    SourceDemand { concurrency: concurrency.max(waiting).max(least), requests_per_second }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn second(gauge: f64, ended: Option<f64>, mean_seconds: Option<f64>) -> SecondReading {
        SecondReading { gauge, arrived_per_second: None, ended_per_second: ended, mean_seconds }
    }

    #[rstest]
    #[case::no_rate_yet(2.0, None, Some(0.01), 2.0)]
    #[case::no_time_yet(0.25, Some(10.0), None, 0.25)]
    #[case::long_requests_by_the_gauge(5.0, Some(2.0), Some(2.0), 5.0)]
    #[case::noise_is_smoothed(0.75, Some(50.0), Some(0.005), 0.25)]
    #[case::slower_all_at_once(20.0, Some(50.0), Some(0.005), 20.0)]
    #[case::one_held_and_none_answered(1.0, Some(0.0), Some(0.005), 1.0)]
    #[case::silence(0.0, Some(0.0), Some(0.005), 0.0)]
    #[case::all_of_it_is_the_network(-3.0, Some(10.0), Some(-0.3), 0.001)]
    fn worked_examples(#[case] gauge: f64, #[case] ended: Option<f64>, #[case] mean_seconds: Option<f64>, #[case] expected: f64) {
        assert_eq!(estimate(second(gauge, ended, mean_seconds)).concurrency, expected);
    }

    proptest! {
        /// No reading makes a held request vanish beyond the noise of the gauge, and nothing comes
        /// from nothing.
        #[test]
        fn never_below_the_gauge_by_more_than_noise(gauge in 0.0..1e4, rate in 0.0..1e5, mean in 0.001..10.0) {
            let demand = estimate(second(gauge, Some(rate), Some(mean)));
            let little = rate * mean;
            prop_assert!(demand.concurrency >= gauge.min(little));
            prop_assert!(demand.concurrency <= gauge.max(little));
            prop_assert!(gauge - demand.concurrency <= DEVIATIONS * (little + 1.0).sqrt() + 1e-9);
        }
    }
}
