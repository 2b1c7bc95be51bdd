//! The DNS suffix of the cluster.

/// The suffix of most clusters.
const DEFAULT: &str = "cluster.local";

/// The suffix in our own `/etc/resolv.conf`, or else `cluster.local`.
#[must_use]
pub fn cluster_domain() -> String {
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    found_in(&resolver).unwrap_or_else(|| DEFAULT.to_owned())
}

/// The kubelet has pods search in `<namespace>.svc.<suffix>`, `svc.<suffix>` and `<suffix>`.
fn found_in(resolver: &str) -> Option<String> {
    let searched = resolver.lines().filter_map(|line| line.trim().strip_prefix("search")).flat_map(str::split_whitespace);
    let suffix = searched.filter_map(|domain| domain.strip_prefix("svc.")).map(|suffix| suffix.trim_end_matches('.')).next()?;
    (!suffix.is_empty()).then(|| suffix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_is_what_follows_svc() {
        let written = "nameserver 10.96.0.10\nsearch kantai-system.svc.prod.example svc.prod.example prod.example example.net\noptions ndots:5\n";
        assert_eq!(found_in(written).as_deref(), Some("prod.example"));
        assert_eq!(found_in("search svc.cluster.local.\n").as_deref(), Some("cluster.local"));
        assert_eq!(found_in("nameserver 1.1.1.1\nsearch example.net\n"), None);
    }
}
