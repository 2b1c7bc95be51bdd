//! Shares as whole numbers with a fixed sum.

/// What every row of weights sums to.
pub(crate) const WHOLE: u32 = 100;
/// Numbers that are looked at together.
const LANES: usize = 16;

/// Rounds shares (not negative, finite, of any positive sum) to whole numbers that sum to 100, by
/// largest remainder (Hamilton's method); equal remainders by `order`, smaller first. Returns the
/// positions and numbers that are not 0, in any order.
///
/// Most shares of a long list round to 0 and are too small to get one of the left-over units: one
/// pass sets them aside by one comparison each.
///
/// ```
/// use placement::routing::apportion;
/// assert_eq!(apportion(&[2.0, 1.0], |position| position as u64), [(0, 67), (1, 33)]);
/// ```
#[must_use]
pub fn apportion(shares: &[f64], order: impl Fn(usize) -> u64) -> Vec<(usize, u32)> {
    apportion_of(shares, sum(shares), order)
}

/// The same where the sum of the shares is known.
pub(crate) fn apportion_of(shares: &[f64], sum: f64, order: impl Fn(usize) -> u64) -> Vec<(usize, u32)> {
    let scale = f64::from(WHOLE) / sum;
    let mut whole: Vec<(usize, u32)> = Vec::new();
    // The largest remainders so far; at most WHOLE of them can get a unit.
    let most = WHOLE as usize;
    let mut candidates: Vec<(f64, usize)> = Vec::with_capacity(shares.len().min(4 * most));
    let mut least = 0.0;
    let largest_first = |one: &(f64, usize), other: &(f64, usize)| {
        other.0.total_cmp(&one.0).then_with(|| order(one.1).cmp(&order(other.1))).then(one.1.cmp(&other.1))
    };
    for (chunk, shares) in shares.chunks(LANES).enumerate() {
        // Where the largest is set aside, so are the others.
        let greatest = shares.iter().fold(0.0, |greatest, share| if *share > greatest { *share } else { greatest });
        if greatest * scale < least || greatest <= 0.0 {
            continue;
        }
        for (place, share) in shares.iter().enumerate() {
            let exact = share * scale;
            if exact < least || exact <= 0.0 {
                continue;
            }
            let position = chunk * LANES + place;
            let units = exact as u32;
            let remainder = exact - f64::from(units);
            if units > 0 {
                whole.push((position, units));
            }
            if remainder >= least {
                candidates.push((remainder, position));
                if candidates.len() == 4 * most {
                    let (_, last, _) = candidates.select_nth_unstable_by(most - 1, largest_first);
                    least = last.0;
                    candidates.truncate(most);
                }
            }
        }
    }
    let given: u32 = whole.iter().map(|(_, units)| units).sum();
    let left = (WHOLE.saturating_sub(given) as usize).min(candidates.len());
    if left > 0 && left < candidates.len() {
        candidates.select_nth_unstable_by(left - 1, largest_first);
    }
    for (_, position) in &candidates[..left] {
        match whole.iter_mut().find(|(held, _)| held == position) {
            Some((_, units)) => *units += 1,
            None => whole.push((*position, 1)),
        }
    }
    whole
}

/// The sum, in lanes that do not wait for each other.
pub(crate) fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f64>() + chunks.remainder().iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(shares: &[f64]) -> Vec<u32> {
        let mut row = vec![0; shares.len()];
        for (position, units) in apportion(shares, |position| position as u64) {
            row[position] = units;
        }
        row
    }

    #[test]
    fn the_largest_remainders_get_what_is_left() {
        assert_eq!(full(&[1.0, 1.0, 1.0]), [34, 33, 33]);
        assert_eq!(full(&[0.0, 5.0]), [0, 100]);
        assert_eq!(full(&[0.5, 2.0, 0.25]), [18, 73, 9]);
        assert_eq!(full(&vec![1.0; 5000]).iter().sum::<u32>(), 100);
    }

    proptest! {
        #[test]
        fn like_sorting_all_remainders(shares in prop::collection::vec(prop_oneof![0.0..1.0_f64, Just(0.25)], 1..2500)) {
            prop_assume!(shares.iter().sum::<f64>() > 0.0);
            let scale = 100.0 / sum(&shares);
            let mut expected: Vec<u32> = shares.iter().map(|share| (share * scale) as u32).collect();
            let mut order: Vec<usize> = (0..shares.len()).collect();
            let remainder = |at: &usize| shares[*at] * scale - (shares[*at] * scale).floor();
            order.sort_by(|one, other| remainder(other).total_cmp(&remainder(one)).then(one.cmp(other)));
            let left = 100 - expected.iter().sum::<u32>();
            for at in order.iter().take(left as usize) {
                expected[*at] += 1;
            }
            prop_assert_eq!(full(&shares), expected);
        }
    }
}
