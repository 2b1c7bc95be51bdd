//! Parses one load report.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;

use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::ClusterKey;

/// The longest possible node name.
pub(super) const LONGEST_NODE_NAME: usize = 253;
/// Serving nodes of one revision in one report: more than any cluster has.
const MOST_SERVING_NODES: usize = 10_000;

/// The report about one revision and serving node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ReportedLoad {
    pub(super) in_flight: u64,
    /// Since the previous report, as are the next two.
    pub(super) arrived: u64,
    pub(super) finished: u64,
    pub(super) failed: u64,
    /// The length of the reported interval, if the report has it.
    pub(super) seconds: Option<f64>,
}

impl ReportedLoad {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.arrived == 0 && self.finished == 0 && self.failed == 0
    }
}

/// The report by revision and serving node. A revision may have several ports and thus several
/// clusters. Unknown clusters are ignored.
pub(super) fn read(
    report: &LoadStatsRequest,
    is_known: impl Fn(&str) -> bool,
) -> BTreeMap<ObjectName, BTreeMap<String, ReportedLoad>> {
    let mut said: BTreeMap<ObjectName, BTreeMap<String, ReportedLoad>> = BTreeMap::new();
    for cluster in report.cluster_stats.iter().filter(|cluster| is_known(&cluster.cluster_name)) {
        let Ok(key) = cluster.cluster_name.parse::<ClusterKey>() else { continue };
        let interval = cluster.load_report_interval.as_ref();
        let seconds = interval.and_then(|interval| {
            let (seconds, nanos) = (u64::try_from(interval.seconds).ok()?, u32::try_from(interval.nanos).ok()?);
            // An interval of more than a day is not credible.
            let interval = Duration::from_secs(seconds.min(86_400)) + Duration::from_nanos(nanos.into());
            Some(interval.as_secs_f64())
        });
        for one in &cluster.upstream_locality_stats {
            let serving = one.locality.as_ref().map_or("", |locality| locality.sub_zone.as_str());
            let by_serving = said.entry(key.service.clone()).or_default();
            if serving.len() > LONGEST_NODE_NAME || by_serving.len() >= MOST_SERVING_NODES {
                continue;
            }
            let load = by_serving.entry(serving.to_owned()).or_default();
            load.in_flight = load.in_flight.saturating_add(one.total_requests_in_progress);
            load.arrived = load.arrived.saturating_add(one.total_issued_requests);
            load.finished = load.finished.saturating_add(one.total_successful_requests);
            load.failed = load.failed.saturating_add(one.total_error_requests);
            load.seconds = seconds.or(load.seconds);
        }
    }
    said
}

// Counts of requests are exact in an f64.
#[allow(clippy::cast_precision_loss)]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}
