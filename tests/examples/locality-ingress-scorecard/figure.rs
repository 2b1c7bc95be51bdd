//! Samples as figures.

use std::time::Duration;

/// The smallest of `samples` that the share `quantile` of them does not exceed, in milliseconds.
pub(crate) fn quantile_ms(samples: &[Duration], quantile: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    // Counts of samples are far below what a float holds exactly.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (as_f64(sorted.len()) * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}
