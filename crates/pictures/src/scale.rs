//! From values to places on an axis.

/// What an axis shows, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    title: String,
    logarithmic: bool,
    from: Option<f64>,
    to: Option<f64>,
}

impl Axis {
    /// Equal distances are equal differences.
    #[must_use]
    pub fn linear(title: &str) -> Self {
        Self { title: title.to_owned(), logarithmic: false, from: None, to: None }
    }

    /// Equal distances are equal factors. Values that are not positive are drawn at the lower end.
    #[must_use]
    pub fn logarithmic(title: &str) -> Self {
        Self { logarithmic: true, ..Self::linear(title) }
    }

    /// Shows these values at least, whatever there is.
    #[must_use]
    pub fn showing(self, from: f64, to: f64) -> Self {
        Self { from: Some(from), to: Some(to), ..self }
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The scale that holds all these values.
    pub(crate) fn over(&self, values: impl Iterator<Item = f64>) -> Scale {
        let usable = |value: &f64| value.is_finite() && (!self.logarithmic || *value > 0.0);
        let all = values.chain(self.from).chain(self.to).filter(usable);
        let bounds = all.fold(None, |bounds: Option<(f64, f64)>, value| {
            Some(bounds.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (low, high) = bounds.unwrap_or((1.0, 10.0));
        if self.logarithmic {
            let (low, high) = around(low, high);
            return Scale { low: low.log10(), high: high.log10(), logarithmic: true };
        }
        let high = if high > low { high } else { low + 1.0 };
        Scale { low, high, logarithmic: false }
    }
}

/// Where a value is, from 0 at the lower end to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = match self.logarithmic {
            true if value > 0.0 => value.log10(),
            true => self.low,
            false => value,
        };
        let place = (value - self.low) / (self.high - self.low);
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }

    /// Round values on the axis.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let fits = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10());
            return round_numbers().filter(fits).collect();
        }
        let span = self.high - self.low;
        let step = round_numbers().find(|step| span / step <= 10.0).unwrap_or(span);
        let first = (self.low / step).ceil();
        (0..=12).map(|number| (first + f64::from(number)) * step).take_while(|value| *value <= self.high + step * 1e-6).collect()
    }
}

/// The round numbers next below and above.
fn around(low: f64, high: f64) -> (f64, f64) {
    let below = round_numbers().take_while(|number| *number <= low).last().unwrap_or(low);
    let above = round_numbers().find(|number| *number >= high).unwrap_or(high);
    if above > below { (below, above) } else { (below, below * 10.0) }
}

/// 1, 2 and 5 of every decade.
fn round_numbers() -> impl Iterator<Item = f64> {
    (-6..10).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

/// A number as people write it.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 0.1 => 3,
        small if small < 1.0 => 2,
        _ if (value - value.round()).abs() < 1e-9 => 0,
        _ => 1,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn logarithmic_axes_begin_and_end_at_round_numbers() {
        let scale = Axis::logarithmic("ms").over([7.0, 830.0].into_iter());
        assert_eq!(
            scale.ticks().into_iter().map(short).collect::<Vec<_>>(),
            ["5", "10", "20", "50", "100", "200", "500", "1000"]
        );
    }

    #[test]
    fn linear_ticks_are_round() {
        let scale = Axis::linear("s").over([0.0, 61.0].into_iter());
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    }

    #[test]
    fn nothing_at_all_has_a_scale() {
        assert!(!Axis::linear("s").over(std::iter::empty()).ticks().is_empty());
        assert!(!Axis::logarithmic("s").over([0.0, f64::NAN].into_iter()).ticks().is_empty());
    }

    proptest! {
        #[test]
        fn places_are_on_the_axis_and_in_order(a in -1e9..1e9_f64, b in -1e9..1e9_f64, logarithmic: bool) {
            let axis = if logarithmic { Axis::logarithmic("") } else { Axis::linear("") };
            let scale = axis.over([a, b].into_iter());
            for value in [a, b] {
                prop_assert!((0.0..=1.0).contains(&scale.place(value)));
            }
            prop_assert_eq!(a <= b || scale.place(a) >= scale.place(b), true);
        }
    }
}
