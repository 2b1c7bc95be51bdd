//! What is known about the latency of one ordered pair of nodes.

use serde::{Deserialize, Serialize};

use crate::node::Rtt;

/// Statistics of the round trips of one ordered pair over the prober's window. Plain data from
/// outside: it is judged when it is put into a [`crate::LatencyMatrix`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairStats {
    /// Shortest round trip, seconds.
    pub min: f64,
    /// Median, seconds.
    pub p50: f64,
    /// 90th percentile, seconds.
    pub p90: f64,
    /// 99th percentile, seconds.
    pub p99: f64,
    /// Exponentially weighted mean, seconds.
    pub ewma: f64,
    /// Mean deviation between successive round trips, seconds.
    pub jitter: f64,
    /// Lost probes over sent probes, 0 to 1.
    pub loss_ratio: f64,
    /// Seconds since the newest sample.
    pub age_seconds: f64,
    /// Samples in the window.
    pub samples: u64,
}

impl PairStats {
    /// Statistics of a link that always takes `rtt_seconds`: for tables of latencies, tests and
    /// examples.
    #[must_use]
    pub fn constant(rtt_seconds: f64) -> Self {
        Self {
            min: rtt_seconds,
            p50: rtt_seconds,
            p90: rtt_seconds,
            p99: rtt_seconds,
            ewma: rtt_seconds,
            jitter: 0.0,
            loss_ratio: 0.0,
            age_seconds: 0.0,
            samples: 1,
        }
    }

    /// Whether these can be the statistics of a real link: every time a valid [`Rtt`], quantiles in
    /// order, loss in 0..=1, an age that is not negative, at least one sample. One bad field
    /// condemns all: what produced it may have produced the others.
    ///
    /// The weighted mean may be below the shortest round trip: it remembers times from before the
    /// window that the quantiles describe, so after a route has become longer it is still on its
    /// way up.
    #[must_use]
    pub fn is_credible(&self) -> bool {
        [self.min, self.p50, self.p90, self.p99, self.ewma, self.jitter].iter().all(|seconds| Rtt::from_seconds(*seconds).is_ok())
            && self.min <= self.p50
            && self.p50 <= self.p90
            && self.p90 <= self.p99
            && (0.0..=1.0).contains(&self.loss_ratio)
            && self.age_seconds.is_finite()
            && self.age_seconds >= 0.0
            && self.samples > 0
    }

    /// One of the kept quantiles, seconds.
    #[must_use]
    pub fn quantile(&self, quantile: Quantile) -> f64 {
        match quantile {
            Quantile::Min => self.min,
            Quantile::P50 => self.p50,
            Quantile::P90 => self.p90,
            Quantile::P99 => self.p99,
        }
    }
}

/// The quantiles that [`PairStats`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantile {
    /// The shortest.
    Min,
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 99th percentile.
    P99,
}

/// What is known of one ordered pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairState {
    /// Measured lately.
    Known(PairStats),
    /// Measured, but longer ago than is trusted.
    Stale(PairStats),
    /// Never measured, forgotten, or measured as nonsense.
    #[default]
    Unknown,
    /// Probed and not answering: nothing may be sent this way.
    Unreachable,
}

impl PairState {
    /// Known, stale or unknown, by the age that the statistics carry.
    #[must_use]
    pub fn judged(stats: PairStats, freshness: Freshness) -> Self {
        if !stats.is_credible() || stats.age_seconds > freshness.forget_after_seconds {
            Self::Unknown
        } else if stats.age_seconds > freshness.stale_after_seconds {
            Self::Stale(stats)
        } else {
            Self::Known(stats)
        }
    }

    /// The statistics, where there are any.
    #[must_use]
    pub fn stats(&self) -> Option<&PairStats> {
        match self {
            Self::Known(stats) | Self::Stale(stats) => Some(stats),
            Self::Unknown | Self::Unreachable => None,
        }
    }

    pub(crate) fn sanitised(self) -> Self {
        match self.stats() {
            Some(stats) if !stats.is_credible() => Self::Unknown,
            _ => self,
        }
    }
}

/// The state of a pair by name, without its statistics: as the prober reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// The last reply is recent.
    Known,
    /// There are replies, but the last one is old.
    Stale,
    /// The last probes were all lost, and a second opinion agrees.
    Unreachable,
    /// Neither known nor stale nor found unreachable, or a state of a later release.
    #[serde(other)]
    Unknown,
}

impl StateKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Known, Self::Unknown, Self::Stale, Self::Unreachable];

    /// The state of this name; unknown for any other text.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or(Self::Unknown)
    }

    /// The name in labels and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How old a measurement may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// Older than this many seconds is [`PairState::Stale`].
    pub stale_after_seconds: f64,
    /// Older than this many seconds is [`PairState::Unknown`].
    pub forget_after_seconds: f64,
}

impl Default for Freshness {
    /// Stale after 30 s, forgotten after an hour: decisions outlive an hour without metrics.
    fn default() -> Self {
        Self { stale_after_seconds: 30.0, forget_after_seconds: 3600.0 }
    }
}
