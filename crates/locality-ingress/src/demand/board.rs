//! What is known of demand: pure, time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;

use crate::load::{ByServing, Load};
use crate::objects::ObjectName;
use crate::route_table::ClusterKey;

/// Entries about which nothing was heard for this long are dropped.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// One gateway's stream of reports.
pub type StreamId = u64;

/// What one report says of one revision, by serving node: requests in flight, and sent, finished and failed since the report before.
type Said = BTreeMap<ObjectName, BTreeMap<String, Load>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    totals: BTreeMap<ObjectName, BTreeMap<String, ByServing>>,
    streams: BTreeMap<StreamId, Stream>,
    version: u64,
    changed: BTreeMap<ObjectName, (u64, Instant)>,
}

#[derive(Debug)]
struct Stream {
    source: String,
    reported: Instant,
    in_flight: BTreeMap<ObjectName, BTreeMap<String, u64>>,
}

impl Board {
    /// Takes a report of the gateway on `source` over. The revisions whose load is different now.
    pub fn take(&mut self, stream: StreamId, source: &str, report: &LoadStatsRequest, now: Instant) -> BTreeSet<ObjectName> {
        let said = read(report);
        let before = self.streams.remove(&stream);
        let since = before.as_ref().map(|before| now.saturating_duration_since(before.reported).as_secs_f64());
        let had = before.map(|before| before.in_flight).unwrap_or_default();
        let mut changed = BTreeSet::new();
        let mut in_flight: BTreeMap<ObjectName, BTreeMap<String, u64>> = BTreeMap::new();
        for (revision, by_serving) in said {
            for (serving, load) in by_serving {
                let had = had.get(&revision).and_then(|had| had.get(&serving)).copied().unwrap_or(0);
                if load.in_flight > 0 {
                    in_flight.entry(revision.clone()).or_default().insert(serving.clone(), load.in_flight);
                }
                if load == Load::default() && had == 0 {
                    continue;
                }
                let total = self
                    .totals
                    .entry(revision.clone())
                    .or_default()
                    .entry(source.to_owned())
                    .or_default()
                    .entry(serving)
                    .or_default();
                total.arrived += load.arrived;
                total.finished += load.finished;
                total.failed += load.failed;
                // Between two reports the number in flight is taken to go straight from one to the other.
                total.busy_seconds += since.unwrap_or(0.0) * (as_f64(had) + as_f64(load.in_flight)) / 2.0;
                changed.insert(revision.clone());
            }
        }
        // What was in flight and is not listed any more has ended, or its cluster has.
        changed.extend(had.into_keys().filter(|revision| !in_flight.contains_key(revision)));
        self.streams.insert(stream, Stream { source: source.to_owned(), reported: now, in_flight });
        self.note(&changed, now);
        changed
    }

    /// A gateway's stream has ended: what it had in flight is not known any more.
    pub fn gone(&mut self, stream: StreamId, now: Instant) -> BTreeSet<ObjectName> {
        let changed: BTreeSet<_> =
            self.streams.remove(&stream).map(|stream| stream.in_flight.into_keys().collect()).unwrap_or_default();
        self.note(&changed, now);
        changed
    }

    fn note(&mut self, changed: &BTreeSet<ObjectName>, now: Instant) {
        if changed.is_empty() {
            return;
        }
        self.version += 1;
        for revision in changed {
            self.changed.insert(revision.clone(), (self.version, now));
        }
        let (totals, streams) = (&mut self.totals, &self.streams);
        self.changed.retain(|revision, (_, when)| {
            let idle = streams.values().all(|stream| !stream.in_flight.contains_key(revision));
            let stays = !idle || now.saturating_duration_since(*when) < FORGOTTEN_AFTER;
            if !stays {
                totals.remove(revision);
            }
            stays
        });
    }

    /// Counts the changes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The revisions that changed after `version`; all of them after 0.
    #[must_use]
    pub fn changed_since(&self, version: u64) -> Vec<ObjectName> {
        self.changed.iter().filter(|(_, (at, _))| *at > version).map(|(revision, _)| revision.clone()).collect()
    }

    /// The load of `revision`: source node -> serving node.
    #[must_use]
    pub fn of(&self, revision: &ObjectName) -> BTreeMap<String, ByServing> {
        let mut loads = self.totals.get(revision).cloned().unwrap_or_default();
        for stream in self.streams.values() {
            for (serving, in_flight) in stream.in_flight.get(revision).into_iter().flatten() {
                // While a gateway is replaced there are two on its node.
                loads.entry(stream.source.clone()).or_default().entry(serving.clone()).or_default().in_flight += in_flight;
            }
        }
        loads
    }
}

/// What a report says, by revision and serving node. A revision may have several ports and so several clusters.
fn read(report: &LoadStatsRequest) -> Said {
    let mut said = Said::new();
    for cluster in &report.cluster_stats {
        let Ok(key) = cluster.cluster_name.parse::<ClusterKey>() else { continue };
        let by_serving = said.entry(key.service).or_default();
        for one in &cluster.upstream_locality_stats {
            let serving = one.locality.as_ref().map_or("", |locality| locality.sub_zone.as_str());
            let load = by_serving.entry(serving.to_owned()).or_default();
            load.in_flight += one.total_requests_in_progress;
            load.arrived += one.total_issued_requests;
            load.finished += one.total_successful_requests;
            load.failed += one.total_error_requests;
        }
    }
    said
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Locality;
    use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
    use proptest::prelude::*;

    use super::*;

    fn report(clusters: &[(&str, &str, u64, u64, u64)]) -> LoadStatsRequest {
        let cluster_stats = clusters.iter().map(|&(name, serving, in_flight, arrived, ended)| ClusterStats {
            cluster_name: name.to_owned(),
            upstream_locality_stats: vec![UpstreamLocalityStats {
                locality: Some(Locality { sub_zone: serving.to_owned(), ..Locality::default() }),
                total_requests_in_progress: in_flight,
                total_issued_requests: arrived,
                total_successful_requests: ended,
                ..UpstreamLocalityStats::default()
            }],
            ..ClusterStats::default()
        });
        LoadStatsRequest { cluster_stats: cluster_stats.collect(), ..LoadStatsRequest::default() }
    }

    #[test]
    fn what_gateways_say_is_added_up_by_revision_source_and_serving_node() {
        let (mut board, now) = (Board::default(), Instant::now());
        let hello = ObjectName::new("default", "hello-00001");
        let changed =
            board.take(1, "node3", &report(&[("default/hello-00001/80", "node1", 3, 5, 2), ("kantai", "", 1, 1, 0)]), now);
        assert_eq!(changed, [hello.clone()].into());
        let later = now + Duration::from_millis(500);
        board.take(
            1,
            "node3",
            &report(&[("default/hello-00001/80", "node1", 1, 0, 2), ("default/hello-00001/443", "node2", 2, 2, 0)]),
            later,
        );
        let loads = board.of(&hello);
        let near = loads["node3"]["node1"];
        assert_eq!((near.in_flight, near.arrived, near.finished, near.failed), (1, 5, 4, 0));
        // From 3 to 1 within half a second.
        assert!((near.busy_seconds - 1.0).abs() < 1e-9, "{near:?}");
        assert_eq!(loads["node3"]["node2"].in_flight, 2);
    }

    #[test]
    fn idle_clusters_are_no_change_and_a_gateway_that_goes_takes_its_requests_along() {
        let (mut board, now) = (Board::default(), Instant::now());
        let name = ObjectName::new("ns", "a");
        assert!(board.take(1, "n", &report(&[("ns/a/80", "m", 0, 0, 0)]), now).is_empty());
        assert_eq!(board.version(), 0);
        board.take(1, "n", &report(&[("ns/a/80", "m", 4, 4, 0)]), now);
        board.take(2, "n", &report(&[("ns/a/80", "m", 1, 1, 0)]), now);
        assert_eq!(board.of(&name)["n"]["m"].in_flight, 5);
        let version = board.version();
        board.gone(1, now);
        assert_eq!(board.of(&name)["n"]["m"].in_flight, 1);
        assert_eq!(board.changed_since(version), std::slice::from_ref(&name));
        // Its cluster is gone from the list.
        board.take(2, "n", &report(&[]), now);
        assert_eq!(board.of(&name)["n"]["m"].in_flight, 0);
        assert_eq!(board.of(&name)["n"]["m"].arrived, 5);
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let (mut board, now) = (Board::default(), Instant::now());
        board.take(1, "n", &report(&[("ns/a/80", "m", 0, 1, 1)]), now);
        board.take(1, "n", &report(&[("ns/b/80", "m", 0, 1, 1)]), now + FORGOTTEN_AFTER);
        assert_eq!(board.changed_since(0), [ObjectName::new("ns", "b")]);
        assert!(board.of(&ObjectName::new("ns", "a")).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_counted_twice(reports in prop::collection::vec((0_u64..3, "[ab]", 0_u64..5, 0_u64..5, 0_u64..5), 0..30)) {
            let (mut board, now) = (Board::default(), Instant::now());
            let mut last = BTreeMap::new();
            for (stream, serving, in_flight, arrived, ended) in &reports {
                board.take(*stream, "n", &report(&[("ns/a/80", serving, *in_flight, *arrived, *ended)]), now);
                last.insert(*stream, *in_flight);
            }
            let loads: Vec<Load> = board.of(&ObjectName::new("ns", "a")).into_values().flat_map(BTreeMap::into_values).collect();
            prop_assert_eq!(loads.iter().map(|load| load.in_flight).sum::<u64>(), last.values().sum::<u64>());
            prop_assert_eq!(loads.iter().map(|load| load.arrived).sum::<u64>(), reports.iter().map(|one| one.3).sum::<u64>());
        }
    }
}
