//! How long something takes.

use std::time::Instant;

/// The shortest of `runs` runs, seconds: what the code needs when nothing else gets in its way. The
/// second value is the median.
pub(crate) fn fastest(runs: usize, mut run: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}
