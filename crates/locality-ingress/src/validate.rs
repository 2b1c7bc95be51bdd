//! What Envoy would refuse, found before it is asked. All routes of a listener travel as one resource, so one bad host or header would
//! hold up everybody's updates.

/// Why an Ingress is not served at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither of the two visibilities.
    #[error("failed to route: unknown visibility {visibility:?}")]
    UnknownVisibility {
        /// What it says.
        visibility: String,
    },
    /// A rule without `http`.
    #[error("failed to route: a rule has no paths")]
    NoPaths,
    /// Not a host name.
    #[error("failed to route host {host:?}: not a host name")]
    BadHost {
        /// What it says.
        host: String,
    },
    /// Not a path.
    #[error("failed to route path {path:?}: not a path")]
    BadPath {
        /// What it says.
        path: String,
    },
    /// Not a header, or one that must not be set.
    #[error("failed to route by or set header {header:?}: not allowed")]
    BadHeader {
        /// What it says.
        header: String,
    },
    /// Not a share.
    #[error("failed to split: {percent} is not a percentage")]
    BadPercent {
        /// What it says.
        percent: i64,
    },
    /// A backend elsewhere.
    #[error("failed to route to namespace {namespace:?}: a backend must be in the namespace of its Ingress")]
    ForeignBackend {
        /// What it says.
        namespace: String,
    },
}

/// The longest host name of the DNS.
const MAX_HOST_BYTES: usize = 253;
/// Longer than any path that a client would send; Envoy's own limit for all headers together is 60 KiB.
const MAX_VALUE_BYTES: usize = 8 * 1024;

pub(crate) fn check_host(host: &str) -> Result<(), Problem> {
    let ok = !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    ok.then_some(()).ok_or_else(|| Problem::BadHost { host: host.to_owned() })
}

/// A host that a backend is to see may have a port.
pub(crate) fn check_rewrite(host: &str) -> Result<(), Problem> {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => check_host(name),
        _ => check_host(host),
    }
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), Problem> {
    let ok = prefix.starts_with('/') && prefix.len() <= MAX_VALUE_BYTES && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    ok.then_some(()).ok_or_else(|| Problem::BadPath { path: prefix.to_owned() })
}

pub(crate) fn check_header(name: &str, value: &str) -> Result<(), Problem> {
    // Envoy refuses to set the host this way; `rewriteHost` is there for that.
    let ok = is_token(name) && !name.eq_ignore_ascii_case("host") && is_value(value);
    ok.then_some(()).ok_or_else(|| Problem::BadHeader { header: name.to_owned() })
}

pub(crate) fn check_match_header(name: &str, value: &str) -> Result<(), Problem> {
    (is_token(name) && is_value(value)).then_some(()).ok_or_else(|| Problem::BadHeader { header: name.to_owned() })
}

fn is_token(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_value(value: &str) -> bool {
    value.len() <= MAX_VALUE_BYTES && value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_knative_writes_passes() {
        check_host("hello.default.svc.cluster.local").unwrap();
        check_rewrite("hello.default.svc.cluster.local:8080").unwrap();
        check_prefix("/.well-known/acme-challenge/a_b-c").unwrap();
        check_header("Knative-Serving-Revision", "hello-00001").unwrap();
        check_match_header("Knative-Serving-Tag", "").unwrap();
    }

    #[test]
    fn what_envoy_refuses_does_not() {
        for host in ["", "a b", "*", "*.example.com", "a:80", "a/b", "ä", &"a".repeat(254)] {
            assert!(check_host(host).is_err(), "{host}");
        }
        assert!(check_rewrite("a:b").is_err());
        assert!(check_prefix("foo").is_err() && check_prefix("/a\n").is_err());
        for header in ["", ":path", "Host", "a b", "a:"] {
            assert!(check_header(header, "x").is_err(), "{header}");
        }
        assert!(check_header("a", "b\r\nc: d").is_err());
    }
}
