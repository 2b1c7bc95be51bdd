//! Which clusters a gateway has to report, and how often. Pure.
//!
//! Envoy lists every selected cluster in each report, idle or not. With many clusters, only those
//! with pods or with recent traffic are selected. All others, at zero, are selected for one report
//! every few seconds. That report finds held requests whose [access log entry](super::held) was
//! lost or went to another replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};

use crate::xds::proto::duration;

/// With fewer clusters, all are always selected.
pub(super) const FEW: usize = 200;
/// All clusters are selected once per second for each thousand of them: a report of 10,000 idle
/// ones has 77 kB after compression and costs the gateway 60 ms.
const ALL_EVERY: Duration = Duration::from_secs(1);
const THOUSAND: usize = 1000;
/// A cluster stays selected for this long after its last traffic.
const LATELY: Duration = Duration::from_secs(60);
/// The interval of a gateway without traffic, unless the configured one is longer.
const IDLE_INTERVAL: Duration = Duration::from_millis(250);
/// A gateway without traffic for this long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// What one gateway was asked to report.
#[derive(Debug)]
pub(super) struct ReportSelection {
    interval: Duration,
    /// When each cluster last carried traffic.
    lately: BTreeMap<String, Instant>,
    last_traffic: Option<Instant>,
    last_all: Option<Instant>,
    asked: Option<ReportRequest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ReportRequest {
    /// `None`: all clusters.
    clusters: Option<BTreeSet<String>>,
    interval: Duration,
}

impl ReportSelection {
    /// A gateway with traffic reports once per `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, lately: BTreeMap::new(), last_traffic: None, last_all: None, asked: None }
    }

    /// Takes note of the clusters with traffic in a report.
    pub(super) fn reported(&mut self, report: &LoadStatsRequest, is_known: impl Fn(&str) -> bool, now: Instant) {
        let busy = report.cluster_stats.iter().filter(|cluster| !cluster.upstream_locality_stats.is_empty());
        for cluster in busy.filter(|cluster| is_known(&cluster.cluster_name)) {
            self.last_traffic = Some(now);
            match self.lately.get_mut(&cluster.cluster_name) {
                Some(at) => *at = now,
                None => _ = self.lately.insert(cluster.cluster_name.clone(), now),
            }
        }
        self.lately.retain(|_, at| now.saturating_duration_since(*at) < LATELY);
        if self.asked.as_ref().is_some_and(|asked| asked.clusters.is_none()) {
            self.last_all = Some(now);
        }
    }

    /// Selects `clusters`, for which a request is held.
    pub(super) fn held(&mut self, clusters: Vec<String>, now: Instant) {
        self.last_traffic = Some(now);
        self.lately.extend(clusters.into_iter().map(|cluster| (cluster, now)));
    }

    /// The next request for reports, if it differs from the last one. `with_pods` are the clusters
    /// with pods; `all` is the number of clusters.
    pub(super) fn next(&mut self, with_pods: &Arc<BTreeSet<String>>, all: usize, now: Instant) -> Option<LoadStatsResponse> {
        let is_idle = self.last_traffic.is_none_or(|at| now.saturating_duration_since(at) >= IDLE_AFTER);
        let interval = if is_idle { self.interval.max(IDLE_INTERVAL) } else { self.interval };
        let all_every = ALL_EVERY * u32::try_from(all / THOUSAND).unwrap_or(u32::MAX).clamp(1, 60);
        let is_all_due = self.last_all.is_none_or(|at| now.saturating_duration_since(at) >= all_every);
        let clusters = (all > FEW && !is_all_due).then(|| {
            let mut clusters = (**with_pods).clone();
            clusters.extend(self.lately.keys().cloned());
            clusters
        });
        let asked = ReportRequest { clusters, interval };
        if self.asked.as_ref() == Some(&asked) {
            return None;
        }
        let answer = LoadStatsResponse {
            send_all_clusters: asked.clusters.is_none(),
            clusters: asked.clusters.iter().flatten().cloned().collect(),
            load_reporting_interval: duration(asked.interval),
            ..LoadStatsResponse::default()
        };
        self.asked = Some(asked);
        Some(answer)
    }

    /// The last request could not be sent.
    pub(super) fn not_sent(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn report(clusters: &[(&str, bool)]) -> LoadStatsRequest {
        let stats = |&(name, is_busy): &(&str, bool)| ClusterStats {
            cluster_name: name.to_owned(),
            upstream_locality_stats: if is_busy { vec![UpstreamLocalityStats::default()] } else { vec![] },
            ..ClusterStats::default()
        };
        LoadStatsRequest { cluster_stats: clusters.iter().map(stats).collect(), ..LoadStatsRequest::default() }
    }

    fn pods(names: &[&str]) -> Arc<BTreeSet<String>> {
        Arc::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn with_few_clusters_all_are_asked_for_and_how_often_follows_traffic() {
        let (start, none) = (Instant::now(), pods(&[]));
        let mut selection = ReportSelection::new(MS * 50);
        let first = selection.next(&none, 10, start).unwrap();
        assert!(first.send_all_clusters);
        assert_eq!(first.load_reporting_interval, duration(IDLE_INTERVAL));
        selection.reported(&report(&[("ns/a/80", true)]), |_| true, start + MS * 250);
        let busy = selection.next(&none, 10, start + MS * 250).unwrap();
        assert!(busy.send_all_clusters);
        assert_eq!(busy.load_reporting_interval, duration(MS * 50));
        selection.reported(&report(&[("ns/a/80", false)]), |_| true, start + MS * 300);
        assert!(selection.next(&none, 10, start + MS * 300).is_none(), "nothing new");
        selection.reported(&report(&[("ns/a/80", false)]), |_| true, start + MS * 2300);
        assert_eq!(selection.next(&none, 10, start + MS * 2300).unwrap().load_reporting_interval, duration(IDLE_INTERVAL));
        selection.reported(&report(&[("admin", true)]), |name| name != "admin", start + MS * 2600);
        assert!(selection.next(&none, 10, start + MS * 2600).is_none(), "the gateway's own clusters are no traffic");
    }

    #[test]
    fn with_many_clusters_those_with_pods_or_traffic_are_asked_for_and_all_now_and_then() {
        let (start, with_pods) = (Instant::now(), pods(&["ns/b/80"]));
        let mut selection = ReportSelection::new(MS * 50);
        assert!(selection.next(&with_pods, 1_000, start).unwrap().send_all_clusters, "what is in flight already is seen");
        selection.reported(&report(&[("ns/a/80", true), ("ns/c/80", false)]), |_| true, start + MS * 250);
        let named = selection.next(&with_pods, 1_000, start + MS * 250).unwrap();
        assert!(!named.send_all_clusters);
        assert_eq!(named.clusters, ["ns/a/80", "ns/b/80"]);
        selection.held(vec!["ns/z/80".to_owned()], start + MS * 260);
        assert!(selection.next(&with_pods, 1_000, start + MS * 260).unwrap().clusters.contains(&"ns/z/80".to_owned()));
        selection.reported(&report(&[("ns/z/80", true)]), |_| true, start + MS * 1250);
        assert!(selection.next(&with_pods, 1_000, start + MS * 1250).unwrap().send_all_clusters);
        selection.reported(&report(&[]), |_| true, start + MS * 1300);
        let named = selection.next(&with_pods, 1_000, start + MS * 1300).unwrap();
        assert_eq!(named.clusters, ["ns/a/80", "ns/b/80", "ns/z/80"]);
        selection.reported(&report(&[]), |_| true, start + MS * 2300);
        assert!(
            selection.next(&with_pods, 10_000, start + MS * 2300).is_none_or(|next| !next.send_all_clusters),
            "ten times as rarely"
        );
        let later = start + LATELY + MS * 1300;
        selection.reported(&report(&[]), |_| true, later);
        selection.next(&with_pods, 1_000, later);
        selection.reported(&report(&[]), |_| true, later + MS);
        assert_eq!(selection.next(&with_pods, 1_000, later + MS).unwrap().clusters, ["ns/b/80"]);
    }
}
