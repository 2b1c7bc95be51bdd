//! Requests in figures: per step and source node.

use std::collections::BTreeMap;

use serde::Serialize;

use super::RequestReport;

/// The requests that one step sent from one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResponseSummary {
    /// The step.
    pub step: String,
    /// The source node.
    pub from_node: String,
    /// How many.
    pub requests: usize,
    /// How many were not answered with success.
    pub failed: usize,
    /// Share of the answered ones that were answered on their source node; none when none was
    /// answered.
    pub local_share: Option<f64>,
    /// Answers per serving node.
    pub served_by: BTreeMap<String, usize>,
    /// Median response time of the answered ones.
    pub p50_seconds: Option<f64>,
    /// 95th percentile.
    pub p95_seconds: Option<f64>,
    /// The slowest.
    pub max_seconds: Option<f64>,
}

/// One summary per step and source node, in the order in which they first sent.
#[must_use]
pub fn summaries(requests: &[RequestReport]) -> Vec<ResponseSummary> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut groups: BTreeMap<(&str, &str), Vec<&RequestReport>> = BTreeMap::new();
    for request in requests {
        let key = (request.step.as_str(), request.from_node.as_str());
        if !groups.contains_key(&key) {
            order.push(key);
        }
        groups.entry(key).or_default().push(request);
    }
    order.iter().filter_map(|key| Some(summary(*key, groups.get(key)?))).collect()
}

fn summary((step, from_node): (&str, &str), requests: &[&RequestReport]) -> ResponseSummary {
    let answered: Vec<&&RequestReport> = requests.iter().filter(|request| request.succeeded()).collect();
    let mut served_by: BTreeMap<String, usize> = BTreeMap::new();
    for node in answered.iter().filter_map(|request| request.served_by_node.clone()) {
        *served_by.entry(node).or_default() += 1;
    }
    let mut seconds: Vec<f64> = answered.iter().map(|request| request.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let local = served_by.get(from_node).copied().unwrap_or(0);
    ResponseSummary {
        step: step.to_owned(),
        from_node: from_node.to_owned(),
        requests: requests.len(),
        failed: requests.len() - answered.len(),
        local_share: share(local, answered.len()),
        served_by,
        p50_seconds: quantile(&seconds, 0.5),
        p95_seconds: quantile(&seconds, 0.95),
        max_seconds: seconds.last().copied(),
    }
}

#[allow(clippy::cast_precision_loss)]
fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The smallest value that at least the share `quantile` of sorted values does not exceed.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(sorted: &[f64], quantile: f64) -> Option<f64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}
