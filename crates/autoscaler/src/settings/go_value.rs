//! Values as Go programs read them from text: what Knative accepts is accepted here, and nothing
//! else.

use std::time::Duration;

/// Go's spellings of a boolean (`strconv.ParseBool`).
///
/// ```
/// use autoscaler::settings::parse_go_bool;
///
/// assert_eq!(parse_go_bool("False"), Some(false));
/// assert_eq!(parse_go_bool("1"), Some(true));
/// assert_eq!(parse_go_bool("yes"), None);
/// ```
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number in decimal digits (`strconv.ParseInt` with base 10 and 32 bits).
pub(super) fn parse_int(text: &str) -> Option<i32> {
    text.parse().ok()
}

/// A finite number (`strconv.ParseFloat`): decimal or hexadecimal, digits may be parted by `_`.
///
/// Go reads infinities and NaN, too. No setting means anything with them, so they are refused here.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let hexadecimal = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    let digits = without_underscores(hexadecimal.unwrap_or(rest), hexadecimal.is_some())?;
    let number = match hexadecimal {
        Some(_) => hexadecimal_float(&digits)?,
        // The sign is gone: another one is one too many.
        None if digits.starts_with(['+', '-']) => return None,
        None => digits.parse::<f64>().ok()?,
    };
    number.is_finite().then_some(sign * number)
}

/// `text` less its underscores, each of which must stand between digits, or behind the prefix of a
/// hexadecimal one.
fn without_underscores(text: &str, hexadecimal: bool) -> Option<String> {
    let is_digit = |byte: &u8| if hexadecimal { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let bytes = text.as_bytes();
    let stands_well = |at: usize| {
        let before = if at == 0 { hexadecimal } else { is_digit(&bytes[at - 1]) };
        before && bytes.get(at + 1).is_some_and(is_digit)
    };
    let all_well = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || stands_well(at));
    all_well.then(|| text.replace('_', ""))
}

/// `1.8p1` is (1 + 8/16) * 2^1.
fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let value = whole
        .chars()
        .chain(fraction.chars())
        .try_fold(0.0, |value, digit| Some(value * 16.0 + f64::from(digit.to_digit(16)?)))?;
    let places = i32::try_from(fraction.len()).ok()?;
    Some(value * 2.0_f64.powi(exponent.saturating_sub(places.saturating_mul(4))))
}

/// A duration (`time.ParseDuration`). `None` for what Go refuses too, and for negative ones, which
/// no setting here allows.
///
/// ```
/// use std::time::Duration;
/// use autoscaler::settings::parse_go_duration;
///
/// assert_eq!(parse_go_duration("1m30s"), Some(Duration::from_secs(90)));
/// assert_eq!(parse_go_duration("1.5h"), Some(Duration::from_secs(5400)));
/// assert_eq!(parse_go_duration("0"), Some(Duration::ZERO));
/// assert_eq!(parse_go_duration("12"), None);
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len()));
        nanoseconds = nanoseconds.checked_add(nanoseconds_of(number, unit_nanoseconds(unit)?)?)?;
        rest = behind;
    }
    // Go counts in 63 bits.
    let fits = i64::try_from(nanoseconds).is_ok() && (!negative || nanoseconds == 0);
    fits.then_some(Duration::from_nanos(nanoseconds))
}

/// `number` times `unit`, cut to whole nanoseconds.
fn nanoseconds_of(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // Nineteen digits fit, and are finer than a nanosecond in any unit.
    let fraction = &fraction[..fraction.len().min(19)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    let part = u128::from(fraction) * u128::from(unit) / scale;
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

fn unit_nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// What Go 1.26 answered for each.
    #[rstest]
    #[case("250ms", Some(250_000_000))]
    #[case("1h0m0s", Some(3_600_000_000_000))]
    #[case("100us", Some(100_000))]
    #[case("100\u{b5}s", Some(100_000))]
    #[case("1.s", Some(1_000_000_000))]
    #[case(".5s", Some(500_000_000))]
    #[case("1m1m", Some(120_000_000_000))]
    #[case("+5s", Some(5_000_000_000))]
    #[case("-0s", Some(0))]
    #[case("+0", Some(0))]
    #[case("00s", Some(0))]
    #[case("0.1ns", Some(0))]
    #[case("1.1s", Some(1_100_000_000))]
    #[case("3.000000001s", Some(3_000_000_001))]
    #[case("0.9999999999s", Some(999_999_999))]
    #[case("0.123456789123456789s", Some(123_456_789))]
    #[case("1.0000000000000000000000000000000000001s", Some(1_000_000_000))]
    #[case("2562047h47m16.854775807s", Some(i64::MAX as u64))]
    #[case("2562048h", None)]
    #[case("9223372036854775808ns", None)]
    #[case("", None)]
    #[case("+", None)]
    #[case("s", None)]
    #[case(".s", None)]
    #[case("-1s", None)]
    #[case("1x", None)]
    #[case("1d", None)]
    #[case("1e3s", None)]
    #[case("1..5s", None)]
    #[case("12", None)]
    #[case(" 1s", None)]
    #[case("1s ", None)]
    #[case("999999999999999999999999h", None)]
    fn reads_durations_as_go(#[case] text: &str, #[case] nanoseconds: Option<u64>) {
        assert_eq!(parse_duration(text), nanoseconds.map(Duration::from_nanos));
    }

    #[rstest]
    #[case("1_000", Some(1000.0))]
    #[case("1_0.5", Some(10.5))]
    #[case("0x1p-2", Some(0.25))]
    #[case("0x_1p2", Some(4.0))]
    #[case("0x1.8p1", Some(3.0))]
    #[case("1e3", Some(1000.0))]
    #[case("1E3", Some(1000.0))]
    #[case(".5", Some(0.5))]
    #[case("5.", Some(5.0))]
    #[case("+1", Some(1.0))]
    #[case("-1", Some(-1.0))]
    #[case("1e-400", Some(0.0))]
    #[case("--1", None)]
    #[case("-", None)]
    #[case("_1", None)]
    #[case("1__0", None)]
    #[case("1_", None)]
    #[case("0x10", None)]
    #[case("0xp1", None)]
    #[case("1e400", None)]
    #[case("1e", None)]
    #[case("", None)]
    #[case(" 5", None)]
    #[case("5 ", None)]
    #[case("Inf", None)]
    #[case("nan", None)]
    fn reads_numbers_as_go(#[case] text: &str, #[case] number: Option<f64>) {
        assert_eq!(parse_float(text), number);
    }

    #[rstest]
    #[case("+5", Some(5))]
    #[case("05", Some(5))]
    #[case("-3", Some(-3))]
    #[case("1_0", None)]
    #[case("0x5", None)]
    #[case("5.0", None)]
    #[case("2147483648", None)]
    #[case("", None)]
    fn reads_whole_numbers_as_go(#[case] text: &str, #[case] number: Option<i32>) {
        assert_eq!(parse_int(text), number);
    }

    #[test]
    fn reads_every_spelling_of_a_boolean() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(text), Some(false), "{text}");
        }
        for text in ["", "tRUE", "fALSE", "yes", "no", "on", "off", "2", " true", "true\n"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_float(&text), parse_bool(&text), parse_int(&text));
        }

        #[test]
        fn every_number_is_read_as_written(number in prop::num::f64::NORMAL) {
            prop_assert_eq!(parse_float(&format!("{number:e}")), Some(number));
        }

        #[test]
        fn every_duration_is_read_as_written(nanoseconds in 0..i64::MAX as u64) {
            let text = format!("{}s{}ns", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
            prop_assert_eq!(parse_duration(&text), Some(Duration::from_nanos(nanoseconds)));
        }
    }
}
