//! What is reported of a pair at one moment. Pure.

use std::time::Duration;

use latency_matrix::StateKind;

use super::round_trip::RttSample;

/// RTTs over the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RttSummary {
    /// The shortest RTT.
    pub min: RttSample,
    /// The median (nearest rank, as the other percentiles).
    pub p50: RttSample,
    /// The 90th percentile.
    pub p90: RttSample,
    /// The 99th percentile.
    pub p99: RttSample,
    /// Exponentially weighted moving average, weight 1/8 for the newest.
    pub ewma_seconds: f64,
    /// Interarrival jitter as RFC 3550 defines it, on round-trip times.
    pub jitter_seconds: f64,
}

/// Loss over the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSummary {
    /// Probes lost.
    pub lost: u64,
    /// Probes that ended, lost or answered.
    pub ended: u64,
    /// Lost probes over ended probes.
    pub ratio: f64,
    /// Lower bound of the 95 % confidence interval (Wilson).
    pub low: f64,
    /// Upper bound of the interval.
    pub high: f64,
}

/// The statistics of a pair at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The state.
    pub state: StateKind,
    /// RTTs, if the pair is known or stale.
    pub rtt: Option<RttSummary>,
    /// Loss, if any probe ended within the window.
    pub loss: Option<LossSummary>,
    /// Time since the last reply, if there was one.
    pub age: Option<Duration>,
    /// Number of RTTs that the statistics are computed from.
    pub samples: u64,
    /// Replies overtaken by the reply to a later probe (RFC 4737), since the peer was added.
    pub reordered: u32,
    /// Further replies to answered probes, since the peer was added.
    pub duplicates: u32,
}

/// Nearest-rank percentile: the smallest value that at least `percent` % of all values do not
/// exceed. None of an empty slice.
///
/// ```
/// use latency_probe::session::percentile;
/// assert_eq!(percentile(&[1, 2, 3, 4], 50), Some(2));
/// assert_eq!(percentile(&[1, 2, 3, 4], 99), Some(4));
/// assert_eq!(percentile::<u8>(&[], 50), None);
/// ```
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Loss ratio with Wilson's interval, which stays within 0 to 1 and does not collapse if nothing or
/// everything was lost.
///
/// ```
/// let loss = latency_probe::session::loss(1, 60).unwrap();
/// assert!((loss.ratio - 0.0167).abs() < 1e-3);
/// assert!(loss.low > 0.0 && (loss.high - 0.0886).abs() < 1e-3);
/// ```
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a window holds far fewer outcomes than a float holds integers")]
pub fn loss(lost: u64, ended: u64) -> Option<LossSummary> {
    /// 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_963_985;
    if ended == 0 {
        return None;
    }
    let (n, ratio) = (ended as f64, lost as f64 / ended as f64);
    let scale = 1.0 / (1.0 + Z * Z / n);
    let centre = ratio + Z * Z / (2.0 * n);
    let spread = Z * (ratio * (1.0 - ratio) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(LossSummary {
        lost,
        ended,
        ratio,
        low: (scale * (centre - spread)).max(0.0),
        high: (scale * (centre + spread)).min(1.0),
    })
}
