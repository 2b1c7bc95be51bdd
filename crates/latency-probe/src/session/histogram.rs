//! A histogram with fixed upper bounds, in the form of Prometheus.

use std::sync::Arc;

/// Rising upper bounds of buckets. A last bucket holds everything above.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketBounds(Arc<[f64]>);

/// A list of bounds that cannot be parsed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("failed to read bucket bounds {0:?}: they must be positive seconds, each above the one before")]
pub struct BoundsError(String);

impl BucketBounds {
    /// For RTTs: from within a rack to the other side of the world, two or three bounds per decade.
    #[must_use]
    pub fn wide() -> Self {
        Self([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0].into())
    }

    /// For lateness: probes are batched by up to a slot on purpose; more means that the machine was
    /// busy.
    #[must_use]
    pub fn lateness() -> Self {
        Self([0.105].into())
    }

    /// The bounds in seconds.
    #[must_use]
    pub fn seconds(&self) -> &[f64] {
        &self.0
    }
}

impl std::str::FromStr for BucketBounds {
    type Err = BoundsError;

    /// Parses seconds separated by commas; an empty text is a single bucket.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || BoundsError(text.to_owned());
        if text.trim().is_empty() {
            return Ok(Self(Arc::new([])));
        }
        let seconds: Vec<f64> = text.split(',').map(|part| part.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        let rising = seconds.windows(2).all(|pair| pair[0] < pair[1]);
        if rising && seconds.iter().all(|&bound| bound.is_finite() && bound > 0.0) {
            Ok(Self(seconds.into()))
        } else {
            Err(wrong())
        }
    }
}

/// Counts of durations by bucket, and their sum.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: BucketBounds,
    counts: Box<[u64]>,
    seconds_total: f64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new(bounds: BucketBounds) -> Self {
        Self { counts: vec![0; bounds.0.len() + 1].into(), bounds, seconds_total: 0.0 }
    }

    /// Counts a duration.
    pub fn observe(&mut self, seconds: f64) {
        let bucket = self.bounds.0.partition_point(|&bound| bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.seconds_total += seconds;
    }

    /// Sum in seconds, number of durations, and number per bucket by its upper bound.
    #[must_use]
    pub fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let upper = self.bounds.0.iter().copied().chain([f64::INFINITY]);
        (self.seconds_total, self.counts.iter().sum(), upper.zip(self.counts.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let bounds: BucketBounds = "0.001, 0.01".parse().unwrap();
        let mut histogram = Histogram::new(bounds);
        for seconds in [0.000_5, 0.001, 0.001_001, 0.02] {
            histogram.observe(seconds);
        }
        let (sum, count, buckets) = histogram.read();
        assert_eq!(buckets, [(0.001, 2), (0.01, 1), (f64::INFINITY, 1)]);
        assert_eq!(count, 4);
        assert!((sum - 0.022_501).abs() < 1e-9);
    }

    #[test]
    fn bounds_are_checked() {
        assert_eq!("".parse::<BucketBounds>().unwrap().seconds(), [0.0; 0]);
        for wrong in ["0.1,0.1", "2,1", "-1", "0", "NaN", "inf", "a", "1,,2"] {
            assert!(wrong.parse::<BucketBounds>().is_err(), "{wrong}");
        }
        assert!(BucketBounds::wide().seconds().is_sorted());
    }
}
