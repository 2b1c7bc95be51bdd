//! Finds what Envoy would refuse before it is sent. All routes of a listener are one resource, so
//! one bad host or header would block the updates of all Ingresses.

use std::net::IpAddr;

/// Why an Ingress is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngressProblem {
    /// Neither of the two visibilities.
    #[error("failed to route: unknown visibility {visibility:?}")]
    UnknownVisibility {
        /// The value.
        visibility: String,
    },
    /// A rule without `http`.
    #[error("failed to route: a rule has no paths")]
    NoPaths,
    /// An invalid host name.
    #[error("failed to route host {host:?}: not a host name")]
    BadHost {
        /// The value.
        host: String,
    },
    /// An invalid path.
    #[error("failed to route path {path:?}: not a path")]
    BadPath {
        /// The value.
        path: String,
    },
    /// An invalid header, or one that must not be set.
    #[error("failed to route by or set header {header:?}: not allowed")]
    BadHeader {
        /// The value.
        header: String,
    },
    /// An invalid percentage.
    #[error("failed to split: {percent} is not a percentage")]
    BadPercent {
        /// The value.
        percent: i64,
    },
    /// A backend whose name is forbidden.
    #[error("failed to route to Service {service}: its external name {name:?} is a loopback or link-local address")]
    ForbiddenName {
        /// The Service.
        service: String,
        /// The external name.
        name: String,
    },
    /// A backend that is the gateway itself, asked for a host of the same Ingress.
    #[error(
        "failed to route to Service {service}: it is the gateway itself, and without another host in rewriteHost requests would loop"
    )]
    Circle {
        /// The Service.
        service: String,
    },
    /// A Secret in another namespace.
    #[error("failed to use the TLS Secret {name:?} of namespace {namespace:?}: it must be in the namespace of its Ingress")]
    ForeignSecret {
        /// That namespace.
        namespace: String,
        /// The Secret.
        name: String,
    },
    /// A backend in another namespace.
    #[error("failed to route to namespace {namespace:?}: a backend must be in the namespace of its Ingress")]
    ForeignBackend {
        /// That namespace.
        namespace: String,
    },
}

/// The longest possible DNS name.
const MAX_HOST_BYTES: usize = 253;
/// Longer than any path that clients send; Envoy's limit for all headers is 60 KiB by default.
const MAX_VALUE_BYTES: usize = 8 * 1024;

pub(crate) fn check_host(host: &str) -> Result<(), IngressProblem> {
    let ok = !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    ok.then_some(()).ok_or_else(|| IngressProblem::BadHost { host: host.to_owned() })
}

/// A rewritten host may have a port.
pub(crate) fn check_rewrite(host: &str) -> Result<(), IngressProblem> {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => check_host(name),
        _ => check_host(host),
    }
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), IngressProblem> {
    let ok = prefix.starts_with('/') && prefix.len() <= MAX_VALUE_BYTES && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    ok.then_some(()).ok_or_else(|| IngressProblem::BadPath { path: prefix.to_owned() })
}

pub(crate) fn check_header(name: &str, value: &str) -> Result<(), IngressProblem> {
    // Envoy refuses to set the host header; `rewriteHost` does that.
    let ok = is_token(name) && !name.eq_ignore_ascii_case("host") && is_value(value);
    ok.then_some(()).ok_or_else(|| IngressProblem::BadHeader { header: name.to_owned() })
}

pub(crate) fn check_match_header(name: &str, value: &str) -> Result<(), IngressProblem> {
    (is_token(name) && is_value(value)).then_some(()).ok_or_else(|| IngressProblem::BadHeader { header: name.to_owned() })
}

/// Whether a gateway may connect to `host`: not to its own node or pod, nor to link-local
/// addresses, where clouds serve credentials. Network policies have to guard what a DNS name
/// resolves to.
pub(crate) fn is_allowed_backend(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    match name.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            !(address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.octets()[0] == 0)
        }
        Ok(IpAddr::V6(address)) => !(address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()),
        Err(_) => {
            // Resolvers also accept fewer than four numbers, and numbers in other bases, as
            // addresses.
            let last = name.rsplit('.').next().unwrap_or_default();
            let numeric =
                last.parse::<u64>().is_ok() || last.strip_prefix("0x").is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok());
            !(numeric || last == "localhost" || last == "localdomain" || name.is_empty())
        }
    }
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
    fn names_that_lead_to_the_node_itself_or_the_link_are_known_however_they_are_written() {
        for name in [
            "localhost",
            "LocalHost.",
            "x.localhost",
            "localhost.localdomain",
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "",
        ] {
            assert!(!is_allowed_backend(name), "{name}");
        }
        for name in ["example.com", "10.0.0.1", "192.168.0.1", "fd00::1", "localhost.example.com", "v1.example"] {
            assert!(is_allowed_backend(name), "{name}");
        }
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
