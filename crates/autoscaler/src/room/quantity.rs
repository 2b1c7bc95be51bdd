//! Kubernetes quantities: `100m`, `1.5Gi`, `2e3`.

/// The number a quantity stands for. `None` for what is malformed or not finite.
///
/// ```
/// use extra_controller::capacity::parse_quantity;
///
/// assert_eq!(parse_quantity("250m"), Some(0.25));
/// assert_eq!(parse_quantity("1Ki"), Some(1024.0));
/// assert_eq!(parse_quantity("2e3"), Some(2000.0));
/// assert_eq!(parse_quantity("3 apples"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) =
        SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor))).unwrap_or((text, 1.0));
    // Rust also reads "inf" and "nan", which are no quantities.
    let number: f64 = number.parse().ok()?;
    let value = number * factor;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2", Some(2.0))]
    #[case("4Gi", Some(4_294_967_296.0))]
    #[case("1500m", Some(1.5))]
    #[case("12E", Some(12e18))]
    #[case("1e3", Some(1000.0))]
    #[case("", None)]
    #[case("m", None)]
    #[case("nan", None)]
    #[case("infE", None)]
    fn reads_what_kubernetes_writes(#[case] text: &str, #[case] value: Option<f64>) {
        assert_eq!(parse(text), value);
    }
}
