//! What users and operators set, read into types: ConfigMaps `config-autoscaler`, `config-deployment` and `config-ikukantai`, and the
//! annotations of a revision. All of it is read anew for every decision, from a watch.

mod cluster;
mod go_duration;
mod revision;
mod toggle;

pub use cluster::ClusterSettings;
pub use go_duration::parse as parse_go_duration;
pub use revision::{Aggregation, Metric, RevisionSettings};
pub use toggle::Toggle;

use std::collections::BTreeMap;
use std::str::FromStr;

/// A value under a key, where it is there and well-formed. What is malformed counts as absent, as in Knative once its webhook has let
/// the object pass; the caller's default then holds.
fn value<T: FromStr>(data: &BTreeMap<String, String>, key: &str) -> Option<T> {
    data.get(key)?.trim().parse().ok()
}

/// As [`value`], for Go's way of writing durations.
fn duration(data: &BTreeMap<String, String>, key: &str) -> Option<std::time::Duration> {
    go_duration::parse(data.get(key)?.trim())
}

/// As [`value`], for finite numbers above or equal to `least`.
fn number(data: &BTreeMap<String, String>, key: &str, least: f64) -> Option<f64> {
    value::<f64>(data, key).filter(|number| number.is_finite() && *number >= least)
}
