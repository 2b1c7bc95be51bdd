//! What only the lab needs in its cluster; our own daemons come from the workspace's `deploy`
//! folder.

/// Cluster DNS.
pub(super) const COREDNS: &str = include_str!("../../manifests/coredns.yaml");
/// Prometheus, in its own namespace.
pub(super) const PROMETHEUS: &str = include_str!("../../manifests/prometheus.yaml");
