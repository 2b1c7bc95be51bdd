//! Durations as Go programs write them: `12s`, `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// Reads a duration. `None` for what Go refuses too, and for negative ones, which no setting here allows.
///
/// ```
/// use std::time::Duration;
/// use extra_controller::settings::parse_go_duration;
///
/// assert_eq!(parse_go_duration("1m30s"), Some(Duration::from_secs(90)));
/// assert_eq!(parse_go_duration("1.5h"), Some(Duration::from_secs(5400)));
/// assert_eq!(parse_go_duration("0"), Some(Duration::ZERO));
/// assert_eq!(parse_go_duration("12"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_len] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_len..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("250ms", Some(0.25))]
    #[case("1h0m0s", Some(3600.0))]
    #[case("100us", Some(0.0001))]
    #[case("", None)]
    #[case("s", None)]
    #[case("-1s", None)]
    #[case("1x", None)]
    #[case("1..5s", None)]
    #[case("999999999999999999999999h", None)]
    fn reads_what_go_reads(#[case] text: &str, #[case] seconds: Option<f64>) {
        assert_eq!(parse(text).map(|duration| duration.as_secs_f64()), seconds);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
