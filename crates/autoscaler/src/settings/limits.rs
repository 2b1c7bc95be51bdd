//! Knative's limits of settings that both annotations and ConfigMaps have.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Shortest and longest window.
pub(super) const WINDOW: RangeInclusive<Duration> = Duration::from_secs(6)..=Duration::from_secs(3600);
/// The same in words.
pub(super) const WINDOW_RULE: &str = "whole seconds from 6s to 1h";
/// The least target of a pod.
pub(super) const LEAST_TARGET: f64 = 0.01;
/// The rule of [`is_burst_capacity`] in words.
pub(super) const BURST_RULE: &str = "-1 (activators always in the request path) or at least 0";

pub(super) fn is_burst_capacity(capacity: f64) -> bool {
    capacity >= 0.0 || capacity == -1.0
}
