//! Cumulative distributions.

use maud::Markup;

use crate::plot::{Series, Shape, plot};
use crate::scale::Axis;

/// More steps than the plot has places across make it no better.
const MOST_STEPS: usize = 400;

/// The share of values, in percent of `total`, that are not above each value. Where `total` is more
/// than there are values, the rest never came, and the curve ends below 100 %.
///
/// ```
/// use pictures::{Axis, distribution};
///
/// let answered = [1.0, 2.0, 4.0];
/// let page = distribution(&[("ours", &answered[..], 4)], &Axis::logarithmic("ms")).into_string();
/// assert!(page.contains("ours"));
/// ```
#[must_use]
pub fn distribution(columns: &[(&str, &[f64], usize)], values: &Axis) -> Markup {
    let series: Vec<Series> = columns.iter().map(|(name, values, total)| Series::new(name, steps(values, *total))).collect();
    plot(&series, values, &Axis::linear("% of requests").showing(0.0, 100.0), Shape::Steps)
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
fn steps(values: &[f64], total: usize) -> Vec<(f64, f64)> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(first) = sorted.first().copied() else { return Vec::new() };
    let total = total.max(sorted.len()) as f64;
    let every = sorted.len().div_ceil(MOST_STEPS);
    let last = sorted.len() - 1;
    let kept = sorted.iter().enumerate().filter(|(number, _)| *number == last || number % every == every - 1);
    let share = kept.map(|(number, value)| (*value, (number + 1) as f64 / total * 100.0));
    std::iter::once((first, 0.0)).chain(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_never_came_keeps_the_curve_down() {
        assert_eq!(steps(&[3.0, 1.0], 4), [(1.0, 0.0), (1.0, 25.0), (3.0, 50.0)]);
        assert_eq!(steps(&[], 4), []);
    }

    proptest! {
        #[test]
        fn curves_rise_to_what_came(values in proptest::collection::vec(0.0..1e6_f64, 1..2_000)) {
            let steps = steps(&values, values.len());
            prop_assert!(steps.len() <= MOST_STEPS + 2);
            prop_assert!(steps.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
            prop_assert_eq!(steps.last().map(|last| last.1), Some(100.0));
        }
    }
}
