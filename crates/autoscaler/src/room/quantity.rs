//! Kubernetes quantities: `100m`, `1.5Gi`, `2e3`, read exactly.

/// The most that an amount is read as: 2^53 - 1. JSON readers keep it exact, and the pods of a node
/// would need thousands of such amounts to overflow a sum.
pub(super) const MOST: u64 = (1 << 53) - 1;

/// So many whole units, a fraction rounded up as Kubernetes does, at most 2^53 - 1. `None` for what
/// is malformed; a negative amount is 0.
///
/// ```
/// use autoscaler::room::parse_units;
///
/// assert_eq!(parse_units("1Ki"), Some(1024));
/// assert_eq!(parse_units("644245094400m"), Some(644_245_095));
/// assert_eq!(parse_units("2e3"), Some(2000));
/// assert_eq!(parse_units("3 apples"), None);
/// ```
#[must_use]
pub fn parse_units(text: &str) -> Option<u64> {
    scaled(text, 0)
}

/// So many thousandths, a smaller fraction rounded up as Kubernetes does, at most 2^53 - 1.
///
/// ```
/// use autoscaler::room::parse_millis;
///
/// assert_eq!(parse_millis("250m"), Some(250));
/// assert_eq!(parse_millis("1.5"), Some(1500));
/// assert_eq!(parse_millis("1n"), Some(1));
/// ```
#[must_use]
pub fn parse_millis(text: &str) -> Option<u64> {
    scaled(text, 3)
}

/// The quantity times `10^shift`.
fn scaled(text: &str, shift: i32) -> Option<u64> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (binary, decimal) = factor(suffix)?;
    if is_negative {
        return Some(0);
    }
    // The digits as a whole number, and the power of ten to multiply it by.
    let exponent = decimal.saturating_add(shift).saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
    Some(round_up(whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0'), binary, exponent))
}

/// The powers of two and of ten that a suffix stands for.
fn factor(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// `digits * 2^binary * 10^exponent`, rounded up, at most [`MOST`]. The text may be of any length:
/// digits that cannot matter only decide whether to round up.
fn round_up(digits: impl Iterator<Item = u8>, binary: u32, exponent: i32) -> u64 {
    /// 24 digits times 2^60 would not fit into 128 bits; 20 do, and `MOST` has 16.
    const KEPT_DIGITS: u32 = 20;
    let (mut number, mut kept, mut has_rest, mut dropped) = (0_u128, 0_u32, false, 0_i32);
    for digit in digits {
        if number == 0 && digit == 0 {
            continue;
        }
        if kept < KEPT_DIGITS {
            number = number * 10 + u128::from(digit);
            kept += 1;
        } else {
            has_rest |= digit > 0;
            dropped = dropped.saturating_add(1);
        }
    }
    let most = u128::from(MOST);
    let exponent = exponent.saturating_add(dropped);
    number <<= binary.min(60);
    if number == 0 {
        return 0;
    }
    let rounded = if exponent >= 0 {
        let power = 10_u128.checked_pow(exponent.unsigned_abs());
        power.and_then(|power| number.checked_mul(power)).unwrap_or(most).saturating_add(u128::from(has_rest))
    } else {
        match 10_u128.checked_pow(exponent.unsigned_abs()) {
            Some(power) => number / power + u128::from(number % power > 0 || has_rest),
            None => 1,
        }
    };
    u64::try_from(rounded.min(most)).unwrap_or(MOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2", Some(2))]
    #[case("4Gi", Some(4_294_967_296))]
    #[case("1.5Gi", Some(1_610_612_736))]
    #[case("0.1Ki", Some(103))]
    #[case("1500m", Some(2))]
    #[case("1e3", Some(1000))]
    #[case("1E3", Some(1000))]
    #[case("1e+3", Some(1000))]
    #[case("12e-1", Some(2))]
    #[case("1E", Some(MOST))]
    #[case("12Ei", Some(MOST))]
    #[case("1e99999", Some(MOST))]
    #[case("0e99999", Some(0))]
    #[case("1e-99999", Some(1))]
    #[case("5.", Some(5))]
    #[case(".5", Some(1))]
    #[case("+5", Some(5))]
    #[case("-5", Some(0))]
    #[case("644245094400m", Some(644_245_095))]
    #[case("00000000000000000000000000000000000000000000000000007", Some(7))]
    #[case("7.00000000000000000000000000000000000000000000000000001", Some(8))]
    #[case("0.00000000000000000000000000000000000000000000000000001", Some(1))]
    #[case("100000u", Some(1))]
    #[case("", None)]
    #[case("m", None)]
    #[case(".", None)]
    #[case("1.2.3", None)]
    #[case("nan", None)]
    #[case("infE", None)]
    #[case("1e", None)]
    #[case("1ki", None)]
    #[case("1 Gi", None)]
    #[case("1GiB", None)]
    #[case("--1", None)]
    #[case("1e99999999999", None)]
    fn reads_what_kubernetes_writes(#[case] text: &str, #[case] units: Option<u64>) {
        assert_eq!(parse_units(text), units);
    }

    #[test]
    fn thousandths_are_exact_and_smaller_fractions_round_up() {
        for (text, millis) in [("0.1", 100), ("100m", 100), ("1", 1000), ("2k", 2_000_000), ("1n", 1), ("1100u", 2), ("0.3", 300)]
        {
            assert_eq!(parse_millis(text), Some(millis), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_number_is_that_number(number in 0..1_u64 << 40, exponent in 0..4_u32) {
            let scaled = number * 10_u64.pow(exponent);
            let expected = Some(scaled.min(MOST));
            prop_assert_eq!(parse_units(&format!("{number}e{exponent}")), expected);
            prop_assert_eq!(parse_millis(&format!("{scaled}m")), expected);
            prop_assert_eq!(parse_units(&format!("{scaled}.000")), expected);
            prop_assert_eq!(parse_units(&number.to_string()), Some(number));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eEKMGinum]{0,80}") {
            let _ = (parse_units(&text), parse_millis(&text));
        }
    }
}
