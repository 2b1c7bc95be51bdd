//! Requests in flight over one second, from two readings that are each blind to something. Pure.

use crate::autoscaler::SourceDemand;

/// What one gateway showed of one revision over one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondReading {
    /// The gauge's average over the second.
    pub gauge: f64,
    /// Requests answered in the second, per second; `None` before there are two readings.
    pub completed_per_second: Option<f64>,
    /// Seconds that a request takes, by the gateway's histogram; `None` until it shows one.
    pub mean_seconds: Option<f64>,
}

/// Requests that take less than this are better counted by Little's law than by looking now and then.
const SHORT_SECONDS: f64 = 0.5;
/// A gauge this many standard deviations above what Little's law says means that its mean time is out of date.
const DEVIATIONS: f64 = 3.0;

/// The demand of one second.
///
/// Where requests are short, Little's law (rate times time) is exact and the gauge noisy: a request of 5 ms, ten times a second, is 0.05
/// in flight, and a gauge read four times a second shows 0, 0, 0, 0.25 of it. Unless the gauge is so far above that it cannot be noise
/// (a Poisson count of mean `m` deviates by the root of `m`): then requests have just become slower, and the gauge is right.
///
/// ```
/// use extra_controller::demand::{SecondReading, estimate};
///
/// let short = SecondReading { gauge: 0.0, completed_per_second: Some(10.0), mean_seconds: Some(0.005) };
/// assert_eq!(estimate(short).concurrency, 0.05);
/// let held = SecondReading { gauge: 8.0, completed_per_second: Some(0.0), mean_seconds: Some(0.005) };
/// assert_eq!(estimate(held).concurrency, 8.0);
/// ```
#[must_use]
pub fn estimate(second: SecondReading) -> SourceDemand {
    let requests_per_second = second.completed_per_second.unwrap_or(0.0);
    let concurrency = match (second.completed_per_second, second.mean_seconds) {
        (Some(rate), Some(mean)) if mean < SHORT_SECONDS => {
            let little = rate * mean;
            if second.gauge > little + DEVIATIONS * (little + 1.0).sqrt() { second.gauge } else { little }
        }
        _ => second.gauge,
    };
    // Held requests that the noise bound would hide are still somebody waiting.
    let waiting = if requests_per_second == 0.0 { second.gauge } else { 0.0 };
    SourceDemand { concurrency: concurrency.max(waiting), requests_per_second }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_rate_yet(2.0, None, Some(0.01), 2.0)]
    #[case::no_time_yet(0.25, Some(10.0), None, 0.25)]
    #[case::long_requests_by_the_gauge(5.0, Some(2.0), Some(2.0), 5.0)]
    #[case::noise_is_smoothed(0.75, Some(50.0), Some(0.005), 0.25)]
    #[case::slower_all_at_once(20.0, Some(50.0), Some(0.005), 20.0)]
    #[case::one_held_and_none_answered(1.0, Some(0.0), Some(0.005), 1.0)]
    #[case::silence(0.0, Some(0.0), Some(0.005), 0.0)]
    fn worked_examples(
        #[case] gauge: f64,
        #[case] completed_per_second: Option<f64>,
        #[case] mean_seconds: Option<f64>,
        #[case] expected: f64,
    ) {
        assert_eq!(estimate(SecondReading { gauge, completed_per_second, mean_seconds }).concurrency, expected);
    }

    proptest! {
        /// No reading makes a held request vanish beyond the noise of the gauge, and nothing comes from nothing.
        #[test]
        fn never_below_the_gauge_by_more_than_noise(gauge in 0.0..1e4, rate in 0.0..1e5, mean in 0.0..10.0) {
            let demand = estimate(SecondReading { gauge, completed_per_second: Some(rate), mean_seconds: Some(mean) });
            let little = rate * mean;
            prop_assert!(demand.concurrency >= gauge.min(little));
            prop_assert!(demand.concurrency <= gauge.max(little));
            prop_assert!(gauge - demand.concurrency <= DEVIATIONS * (little + 1.0).sqrt() + 1e-9);
        }
    }
}
