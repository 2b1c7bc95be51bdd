//! The hash that identifies one version of an Ingress: SHA-256 of the JSON that Go writes for the
//! defaulted spec, then the namespace, then the name.
//!
//! A probe with `K-Network-Hash: override` is answered with it, which proves that the gateway has
//! this version.

use sha2::{Digest as _, Sha256};

use k8s_api::kingress::IngressSpec;

/// The header of the hash.
pub(crate) const HASH_HEADER: &str = "K-Network-Hash";
/// The value that asks the gateway to answer with its own hash.
pub(crate) const HASH_OVERRIDE: &str = "override";
/// The header that marks a probe; activators and queue-proxies answer such requests themselves.
pub(crate) const PROBE_HEADER: &str = "K-Network-Probe";
/// The value of [`PROBE_HEADER`].
pub(crate) const PROBE_VALUE: &str = "probe";
/// The user agent of ingress probes.
pub(crate) const PROBE_USER_AGENT: &str = "Knative-Ingress-Probe";

/// The hash of a defaulted `spec` of the Ingress `name` in `namespace`, in lower-case hexadecimal.
///
/// # Panics
/// Never: every field of a spec has a JSON form.
#[must_use]
pub(crate) fn network_hash(spec: &IngressSpec, namespace: &str, name: &str) -> String {
    let json = serde_json::to_string(spec).expect("strings and numbers always have a JSON form");
    let mut hasher = Sha256::new();
    hasher.update(as_go_escapes(&json));
    hasher.update(namespace);
    hasher.update(name);
    hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for nibble in [byte >> 4, byte & 0xf] {
            hex.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
        hex
    })
}

/// Go escapes five more characters than `serde_json`. They occur inside strings only, so they can
/// be replaced everywhere.
fn as_go_escapes(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> IngressSpec {
        serde_json::from_str(json).unwrap()
    }

    // Knative's own test vectors.
    const PLAIN: &str = r#"{"rules":[{"hosts":["example.com"],"http":{"paths":[{"splits":[{"serviceNamespace":"","serviceName":"blah","servicePort":0}]}]}}]}"#;
    const WITH_HEADER: &str = r#"{"rules":[{"hosts":["example.com"],"http":{"paths":[{"splits":[{"serviceNamespace":"","serviceName":"blah","servicePort":0,"appendHeaders":{"Foo":"bar"}}]}]}}]}"#;

    #[test]
    fn knative_test_vectors() {
        assert_eq!(network_hash(&spec(PLAIN), "", ""), "a25000a350642c8abef53078b329bd043e18758f6063c1172d53b04e14fcf5c1");
        assert_eq!(network_hash(&spec(WITH_HEADER), "", ""), "6b652c7abed871354affd4a9cb699d33816f24541fac942149b91ad872fe63ca");
    }

    #[test]
    fn the_json_is_what_go_writes() {
        for json in [PLAIN, WITH_HEADER] {
            assert_eq!(serde_json::to_string(&spec(json)).unwrap(), json);
        }
        let full = r#"{"tls":[{"hosts":["a"],"secretName":"s","secretNamespace":"n"}],"rules":[{"hosts":["a"],"visibility":"ExternalIP","http":{"paths":[{"path":"/x","rewriteHost":"r","headers":{"H":{"exact":""}},"splits":[{"serviceNamespace":"n","serviceName":"b","servicePort":"http","percent":30,"appendHeaders":{"A":"1","B":"2"}}],"appendHeaders":{"C":"3"}}]}}],"httpOption":"Redirected"}"#;
        assert_eq!(serde_json::to_string(&spec(full)).unwrap(), full);
    }

    #[test]
    fn go_escapes() {
        assert_eq!(as_go_escapes("{\"a\":\"<b>&\u{2028}\u{2029}\"}"), r#"{"a":"\u003cb\u003e\u0026\u2028\u2029"}"#);
    }

    #[test]
    fn namespace_and_name_count() {
        let spec = spec(PLAIN);
        assert_ne!(network_hash(&spec, "a", "b"), network_hash(&spec, "a", "c"));
    }
}
