//! Which form of a row a client accepts. Pure.

use crate::report::row::binary;

const JSON: &str = "application/json";

/// The quality value of a media type in `Accept` (RFC 9110), 0 to 1; none if it is not named.
fn quality(accepted: &str, media_type: &str) -> Option<f32> {
    let named = |range: &&str| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type));
    let range = accepted.split(',').find(named)?;
    let weight = range.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
    });
    Some(weight.unwrap_or(1.0))
}

/// Whether a client with this `Accept` header gets the row in its binary form: where it names that
/// form, and prefers JSON no more.
#[must_use]
pub fn prefers_binary(accepted: &str) -> bool {
    let wanted = quality(accepted, binary::MEDIA_TYPE);
    wanted.is_some_and(|wanted| wanted > 0.0 && Some(wanted) >= quality(accepted, JSON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_row_is_what_the_client_wants() {
        let binary = |accepted: &str| quality(accepted, binary::MEDIA_TYPE);
        assert_eq!(binary("application/vnd.kantai.latency-row"), Some(1.0));
        assert_eq!(binary("application/json, Application/Vnd.Kantai.Latency-Row ; q=0.5"), Some(0.5));
        assert_eq!(binary("application/vnd.kantai.latency-row;v=1;Q=0"), Some(0.0));
        assert_eq!(binary("application/vnd.kantai.latency-row;q=much"), Some(0.0));
        assert_eq!(binary("*/*, application/vnd.kantai.latency-row2"), None);
        assert_eq!(binary(""), None);
        assert!(prefers_binary("application/json, application/vnd.kantai.latency-row"));
        assert!(!prefers_binary("application/json, application/vnd.kantai.latency-row;q=0.9"));
        assert!(!prefers_binary("application/vnd.kantai.latency-row;q=NaN"));
    }
}
