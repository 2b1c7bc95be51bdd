//! How fast weights decay in a weighted-exponential average.

/// The share of the newest second in a window of `buckets` seconds; each older one has `1 - share`
/// of its successor's weight.
///
/// Stock's rule: weights of a full window sum to 0.9999, and the newest second has a fifth at
/// least.
pub(super) fn coefficient(buckets: u64) -> f64 {
    usize::try_from(buckets.saturating_sub(1)).ok().and_then(|at| SHORT_WINDOWS.get(at)).copied().unwrap_or(LEAST)
}

const LEAST: f64 = 0.2;

/// `1 - 0.0001^(1/n)` for n = 1, 2, ..., as Go's `math.Pow` computes it on amd64. Other libraries
/// differ in the last bits of some of them.
const SHORT_WINDOWS: [f64; 41] = [
    0.9999,
    0.99,
    0.9535841116638721,
    0.9,
    0.8415106807538886,
    0.7845565309968116,
    0.7317304204720274,
    0.683772233983162,
    0.6406186336195372,
    0.6018928294465027,
    0.5671238718916941,
    0.535841116638722,
    0.507611736829326,
    0.4820525320768788,
    0.45883047345353634,
    0.4376586748096509,
    0.41829086706256413,
    0.40051574968105896,
    0.3841517889339736,
    0.36904265551980675,
    0.3550533228962376,
    0.342066775342432,
    0.3299812496490411,
    0.31870793094203875,
    0.3081690290810636,
    0.29829617132961717,
    0.28902905676875645,
    0.28031432699884795,
    0.27210461560168486,
    0.2643577455403586,
    0.25703604924050527,
    0.2501057906675441,
    0.24353667244537114,
    0.23730141409765548,
    0.231375389960226,
    0.2257363173188729,
    0.22036398695947668,
    0.21524002964853872,
    0.21034771315002732,
    0.2056717652757185,
    0.20119821919842973,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_a_full_window_sum_to_nearly_one() {
        for buckets in 1..=3600_u32 {
            let coefficient = coefficient(u64::from(buckets));
            let formula = (1.0 - 0.0001_f64.powf(1.0 / f64::from(buckets))).max(LEAST);
            assert!((coefficient - formula).abs() < 1e-15, "{buckets}: {coefficient} {formula}");
            let sum = 1.0 - (1.0 - coefficient).powi(i32::try_from(buckets).unwrap());
            assert!(sum > 0.99989, "{buckets}: {sum}");
        }
    }
}
