//! Demand from a gateway's statistics page, as events like those of locality-ingress.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_link::RevisionKey;
use gateway_link::demand::{ByServing, DemandEvent, Gateway, Load, RevisionDemand};
use latency_matrix::NodeName;

use super::page::{ClusterReading, Reading};
use super::{SecondReading, estimate};

/// The pages of one gateway, one after the other.
///
/// Two readings are combined, because each is blind to something ([`estimate`]): the gauge of
/// requests in flight, which a request of a few milliseconds is rarely caught by, and requests that
/// ended times the mean time of the gateway's histogram, which says nothing of requests that take
/// longer than it is between two pages. The page does not say which pod a request went to.
#[derive(Debug)]
pub struct GatewayPages {
    node: NodeName,
    clusters: BTreeMap<RevisionKey, PageCluster>,
    /// When the last page with counters was read.
    counted_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct PageCluster {
    reported: Load,
    /// The gauge as last read, and its sum over time since the last page with counters.
    gauge: Option<(Duration, f64)>,
    gauge_seconds: f64,
    arrived: Option<f64>,
    ended: Option<f64>,
    /// The histogram (sum in ms, count) when it last moved, and the mean since then.
    times: Option<(f64, f64)>,
    mean_seconds: Option<f64>,
}

impl GatewayPages {
    /// Of the gateway on `node`, before its first page.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self { node, clusters: BTreeMap::new(), counted_at: None }
    }

    /// The events of a page that was read at `now`; none before the first [whole](Self::read_whole)
    /// page.
    #[must_use]
    pub fn read_gauges(&mut self, reading: &Reading, now: Duration) -> Option<DemandEvent> {
        self.counted_at?;
        let mut demand = Vec::new();
        for (key, reading) in reading {
            let cluster = self.clusters.entry(key.clone()).or_default();
            let before = cluster.reported;
            cluster.look(reading, now);
            if cluster.reported != before {
                demand.push(cluster.report(key, &self.node));
            }
        }
        Some(DemandEvent::Update { version: 0, gateways: vec![], gone: vec![], demand, removed: vec![], held: vec![] })
    }

    /// The events of a page with all counters that was read at `now`. The gateway does not know
    /// revisions that it does not list, so they have no requests in flight there.
    #[must_use]
    pub fn read_whole(&mut self, reading: &Reading, now: Duration) -> DemandEvent {
        let seconds = self.counted_at.map(|at| now.saturating_sub(at).as_secs_f64());
        let removed: Vec<RevisionKey> = self.clusters.keys().filter(|key| !reading.contains_key(*key)).cloned().collect();
        self.clusters.retain(|key, _| reading.contains_key(key));
        let mut demand = Vec::new();
        for (key, reading) in reading {
            let cluster = self.clusters.entry(key.clone()).or_default();
            let before = cluster.reported;
            cluster.look(reading, now);
            cluster.count(reading, seconds);
            if cluster.reported != before {
                demand.push(cluster.report(key, &self.node));
            }
        }
        let gateways = vec![Gateway { stream: 0, node: self.node.to_string(), age_seconds: 0.0 }];
        if self.counted_at.replace(now).is_some() {
            return DemandEvent::Update { version: 0, gateways, gone: vec![], demand, removed, held: vec![] };
        }
        // Counts from before the first reading are no demand.
        let (instance, running_seconds) = (String::new(), now.as_secs_f64());
        DemandEvent::Snapshot { instance, running_seconds, version: 0, parts_left: 0, gateways, demand }
    }

    /// The gateway did not answer. The next page is treated as the first.
    pub fn lost(&mut self) {
        for cluster in self.clusters.values_mut() {
            cluster.gauge = None;
        }
    }
}

impl PageCluster {
    fn look(&mut self, reading: &ClusterReading, now: Duration) {
        let Some(active) = reading.active else { return };
        if let Some((at, before)) = self.gauge {
            self.gauge_seconds += now.saturating_sub(at).as_secs_f64() * (before + active) / 2.0;
        }
        self.gauge = Some((now, active));
        self.reported.in_flight = whole(active);
    }

    /// Takes the counters over. `seconds` is the time since they were read last.
    fn count(&mut self, reading: &ClusterReading, seconds: Option<f64>) {
        if let (Some(sum), Some(count)) = (reading.time_sum_ms, reading.time_count) {
            let (sum_before, count_before) = self.times.unwrap_or((0.0, 0.0));
            if count > count_before && sum >= sum_before {
                self.mean_seconds = Some((sum - sum_before) / (count - count_before) / 1000.0);
                self.times = Some((sum, count));
            } else if count < count_before {
                // The gateway restarted.
                self.times = Some((sum, count));
            }
        }
        let arrived = grown(&mut self.arrived, reading.arrived());
        let ended = grown(&mut self.ended, reading.ended());
        let gauge_seconds = std::mem::take(&mut self.gauge_seconds);
        let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) else { return };
        self.reported.arrived += whole(arrived);
        self.reported.finished += whole(ended);
        let of = estimate(SecondReading {
            gauge: gauge_seconds / seconds,
            arrived_per_second: Some(arrived / seconds),
            ended_per_second: Some(ended / seconds),
            mean_seconds: self.mean_seconds,
        });
        self.reported.busy_seconds += of.concurrency * seconds;
    }

    fn report(&self, key: &RevisionKey, node: &NodeName) -> RevisionDemand {
        let by_serving = ByServing::from([(String::new(), self.reported)]);
        RevisionDemand { key: key.clone(), loads: BTreeMap::from([(node.to_string(), by_serving)]) }
    }
}

/// The increase of a counter since the last reading. A counter that fell was reset to 0.
fn grown(before: &mut Option<f64>, now: Option<f64>) -> f64 {
    let Some(now) = now else { return 0.0 };
    match before.replace(now) {
        Some(before) if now >= before => now - before,
        Some(_) => now,
        None => 0.0,
    }
}

// Pages hold finite numbers of at least zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Board;
    use crate::kpa::SourceDemand;

    const MS: Duration = Duration::from_millis(1);

    fn key() -> RevisionKey {
        RevisionKey::new("default", "hello-00001")
    }

    fn near(_: &NodeName, _: &NodeName) -> f64 {
        0.0
    }

    fn reading(active: f64, total: f64, times: Option<(f64, f64)>) -> Reading {
        let cluster = ClusterReading {
            active: Some(active),
            total: Some(total),
            completed: None,
            time_sum_ms: times.map(|(sum, _)| sum),
            time_count: times.map(|(_, count)| count),
        };
        Reading::from([(key(), cluster)])
    }

    fn demand(board: &mut Board, now: Duration) -> Vec<Option<SourceDemand>> {
        let tick = board.tick(now, |_| true);
        let seconds = tick.busy.get(&key()).unwrap_or(&tick.quiet).seconds.clone();
        let of = |sources: BTreeMap<NodeName, SourceDemand>| sources.get("node1").copied().unwrap_or_default();
        seconds.into_iter().map(|(_, sources)| sources.map(of)).collect()
    }

    #[test]
    fn held_requests_show_at_once_and_average_over_the_second() {
        let (mut pages, mut board) = (GatewayPages::new("node1".into()), Board::new(Duration::ZERO));
        assert!(pages.read_gauges(&reading(4.0, 4.0, None), Duration::ZERO).is_none());
        board.apply_event("gw", pages.read_whole(&reading(0.0, 7.0, None), Duration::ZERO), Duration::ZERO, &near);
        board.apply_event("gw", pages.read_gauges(&reading(0.0, 7.0, None), MS * 450).unwrap(), MS * 450, &near);
        board.apply_event("gw", pages.read_gauges(&reading(4.0, 11.0, None), MS * 550).unwrap(), MS * 550, &near);
        assert_eq!(board.in_flight(&key()), BTreeMap::from([("node1".into(), 4.0)]));
        assert!(board.take_woken().contains(&key()));
        board.apply_event("gw", pages.read_whole(&reading(4.0, 11.0, None), MS * 1000), MS * 1000, &near);
        let of = demand(&mut board, MS * 1000)[0].unwrap();
        assert!((of.concurrency - 2.0).abs() < 1e-9, "{of:?}");
        assert!((of.requests_per_second - 4.0).abs() < 1e-9, "all that arrived, none ended: {of:?}");
    }

    #[test]
    fn short_requests_count_by_rate_and_histogram() {
        let (mut pages, mut board) = (GatewayPages::new("node1".into()), Board::new(Duration::ZERO));
        for half in 0..=4_u32 {
            let ended = f64::from(10 * half);
            let page = reading(0.0, ended, Some((ended * 5.0, ended)));
            board.apply_event("gw", pages.read_whole(&page, MS * 500 * half), MS * 500 * half, &near);
        }
        let of = demand(&mut board, MS * 2000)[1].unwrap();
        assert!((of.concurrency - 0.1).abs() < 1e-9 && (of.requests_per_second - 20.0).abs() < 1e-9, "{of:?}");
    }

    /// Twenty requests a second of 50 ms each: one in flight on average, which the gauge shows as
    /// anything from 0 to 3.
    #[test]
    fn without_a_histogram_times_are_learnt_from_the_gauge() {
        let (mut pages, mut board) = (GatewayPages::new("node1".into()), Board::new(Duration::ZERO));
        let shown = [0.0, 2.0, 0.0, 1.0, 3.0, 0.0, 1.0, 1.0];
        let mut last = Vec::new();
        for (quarter, active) in (0..=240_u32).zip(shown.iter().cycle()) {
            let now = MS * 250 * quarter;
            let page = reading(*active, f64::from(5 * quarter) + active, None);
            let event = if quarter % 2 == 0 { pages.read_whole(&page, now) } else { pages.read_gauges(&page, now).unwrap() };
            board.apply_event("gw", event, now, &near);
            last.extend(demand(&mut board, now));
        }
        for of in &last[40..] {
            let of = of.unwrap();
            assert!((of.concurrency - 1.0).abs() < 0.2, "{of:?}");
            assert!((of.requests_per_second - 20.0).abs() < 5.0, "{of:?}");
        }
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_unknown_and_one_that_restarts_counts_from_anew() {
        let (mut pages, mut board) = (GatewayPages::new("node1".into()), Board::new(Duration::ZERO));
        board.apply_event("gw", pages.read_whole(&reading(1.0, 1000.0, None), Duration::ZERO), Duration::ZERO, &near);
        pages.lost();
        assert_eq!(demand(&mut board, MS * 20_000), vec![None; 18], "the last two may still come");
        assert!(board.tick(MS * 20_000, |_| true).quiet.is_unknown);
        board.apply_event("gw", pages.read_whole(&reading(1.0, 2.0, None), MS * 20_100), MS * 20_100, &near);
        board.apply_event("gw", pages.read_whole(&reading(1.0, 2.0, None), MS * 22_100), MS * 22_100, &near);
        let of = demand(&mut board, MS * 22_100);
        assert!((of.last().unwrap().unwrap().concurrency - 1.0).abs() < 1e-6, "{of:?}");
    }

    #[test]
    fn a_revision_that_the_page_does_not_name_has_nothing_in_flight() {
        let (mut pages, mut board) = (GatewayPages::new("node1".into()), Board::new(Duration::ZERO));
        board.apply_event("gw", pages.read_whole(&reading(3.0, 3.0, None), Duration::ZERO), Duration::ZERO, &near);
        assert_eq!(board.in_flight(&key()).len(), 1);
        board.apply_event("gw", pages.read_whole(&Reading::new(), MS * 500), MS * 500, &near);
        assert!(board.in_flight(&key()).is_empty());
    }
}
