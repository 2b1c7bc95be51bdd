//! What all gateways showed, put together second by second. Pure: the sampler feeds it and tells the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use placement::NodeName;
use gateway_link::RevisionKey;

use super::{ClusterReading, Reading, SecondReading, estimate};
use crate::autoscaler::{DemandHistory, SourceDemand};

/// For so long after a gateway was last read, its last known demand stands in for what it does not say.
const LAST_KNOWN_HOLDS: Duration = Duration::from_secs(15);

/// What a gateway without a histogram of times shows of them counts this much less with each second: what is older than a minute says nothing.
const FADING: f64 = 0.95;

/// How far a gateway's demand is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// Read within the last second or two.
    Known,
    /// Not read lately; its last known demand stands in.
    LastKnown,
    /// Not read for so long, or never, that its demand is unknown. Unknown is not zero: nothing may shrink on it.
    Unknown,
}

/// One gateway pod.
#[derive(Debug, Default)]
struct Gateway {
    node: Option<NodeName>,
    read_at: Option<Duration>,
    clusters: BTreeMap<RevisionKey, Cluster>,
}

/// One revision's cluster on one gateway.
#[derive(Debug, Default)]
struct Cluster {
    /// The gauge as last read.
    now: f64,
    /// Its sum and number over the present second.
    gauge_sum: f64,
    gauge_samples: u32,
    /// Counters when the last second closed.
    completed_before: Option<(Duration, f64)>,
    completed: Option<(Duration, f64)>,
    /// The histogram (sum in ms, count) when it last moved, and the mean since then.
    times: Option<(f64, f64)>,
    mean_seconds: Option<f64>,
    /// Where there is no histogram: what it would say, from the gauge.
    seen: SeenTimes,
    /// What the last closed second came to.
    last: SourceDemand,
}

/// How long requests take, as far as looking now and then tells: by Little's law, requests in flight added up over time, divided by how many
/// ended.
#[derive(Clone, Copy, Debug, Default)]
struct SeenTimes {
    /// In request-seconds.
    in_flight: f64,
    ended: f64,
}

impl SeenTimes {
    fn second(&mut self, gauge: f64, ended: f64, seconds: f64) {
        self.in_flight = self.in_flight * FADING + gauge * seconds;
        self.ended = self.ended * FADING + ended;
    }

    /// `None` where too little ended to tell.
    fn mean_seconds(self) -> Option<f64> {
        (self.ended >= 1.0).then(|| self.in_flight / self.ended)
    }
}

impl Cluster {
    fn read(&mut self, now: Duration, reading: &ClusterReading) {
        if let Some(active) = reading.active {
            self.now = active;
            self.gauge_sum += active;
            self.gauge_samples += 1;
        }
        if let Some(completed) = reading.ended() {
            self.completed = Some((now, completed));
        }
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
    }

    fn close_second(&mut self) -> SourceDemand {
        let gauge = if self.gauge_samples > 0 { self.gauge_sum / f64::from(self.gauge_samples) } else { self.now };
        let completed_per_second = match (self.completed_before, self.completed) {
            // Not read in this second: what was answered in it is not known to be nothing.
            (Some((before_at, _)), Some((at, _))) if at == before_at => Some(self.last.requests_per_second),
            (Some((before_at, before)), Some((at, after))) if at > before_at && after >= before => {
                let seconds = (at - before_at).as_secs_f64();
                self.seen.second(gauge, after - before, seconds);
                Some((after - before) / seconds)
            }
            _ => None,
        };
        let mean_seconds = if self.times.is_some() { self.mean_seconds } else { self.seen.mean_seconds() };
        self.last = estimate(SecondReading { gauge, completed_per_second, mean_seconds });
        (self.gauge_sum, self.gauge_samples) = (0.0, 0);
        self.completed_before = self.completed;
        self.last
    }
}

/// All gateways' demand, and its history per revision.
#[derive(Debug, Default)]
pub struct DemandBoard {
    gateways: BTreeMap<String, Gateway>,
    histories: BTreeMap<RevisionKey, Arc<DemandHistory>>,
}

impl DemandBoard {
    /// From now on these are the gateways (pod name -> node), and these the revisions of interest. What is about others is forgotten:
    /// a gateway that is gone, or no longer ready, takes no requests.
    pub fn retain(&mut self, gateways: &BTreeMap<String, NodeName>, revisions: &BTreeSet<RevisionKey>) {
        self.gateways.retain(|pod, _| gateways.contains_key(pod));
        for (pod, node) in gateways {
            self.gateways.entry(pod.clone()).or_default().node = Some(node.clone());
        }
        self.histories.retain(|key, _| revisions.contains(key));
        for key in revisions {
            self.histories.entry(key.clone()).or_default();
        }
    }

    /// Takes in one reading of the gateway `pod`. A page that was read and does not name a revision means that the gateway does not know
    /// of it, so nothing of it can be in flight there.
    pub fn read(&mut self, pod: &str, now: Duration, reading: &Reading) {
        let Some(gateway) = self.gateways.get_mut(pod) else { return };
        gateway.read_at = Some(now);
        for (key, cluster) in &mut gateway.clusters {
            if !reading.contains_key(key) {
                *cluster = Cluster::default();
            }
        }
        for (key, cluster) in reading {
            if self.histories.contains_key(key) {
                gateway.clusters.entry(key.clone()).or_default().read(now, cluster);
            }
        }
        gateway.clusters.retain(|key, _| self.histories.contains_key(key));
    }

    /// Ends the second `second`: what was read in it goes into every revision's history. Where some gateway is unknown, the second is
    /// recorded without it only if another's demand is known; the [state](Self::unknown_sources) says so.
    pub fn close_second(&mut self, second: u64, now: Duration) {
        let mut sources: BTreeMap<&RevisionKey, BTreeMap<NodeName, SourceDemand>> = BTreeMap::new();
        let mut any_read = false;
        for gateway in self.gateways.values_mut() {
            let state = state(gateway.read_at, now);
            let Some(node) = &gateway.node else { continue };
            any_read |= state != GatewayState::Unknown;
            for (key, cluster) in &mut gateway.clusters {
                let demand = match state {
                    GatewayState::Known => cluster.close_second(),
                    GatewayState::LastKnown => cluster.last,
                    GatewayState::Unknown => continue,
                };
                let total = sources.entry(key).or_default().entry(node.clone()).or_default();
                total.concurrency += demand.concurrency;
                total.requests_per_second += demand.requests_per_second;
            }
        }
        if any_read {
            for (key, history) in &mut self.histories {
                // Copied only where a decision is still looking at it.
                Arc::make_mut(history).record(second, sources.remove(key).unwrap_or_default());
            }
        }
    }

    /// The history of one revision.
    #[must_use]
    pub fn history(&self, key: &RevisionKey) -> Option<Arc<DemandHistory>> {
        self.histories.get(key).cloned()
    }

    /// Requests in flight at this instant, per source node that has any.
    #[must_use]
    pub fn held_now(&self, key: &RevisionKey) -> BTreeMap<NodeName, f64> {
        let mut held = BTreeMap::new();
        for gateway in self.gateways.values() {
            if let (Some(node), Some(cluster)) = (&gateway.node, gateway.clusters.get(key))
                && cluster.now > 0.0
            {
                *held.entry(node.clone()).or_insert(0.0) += cluster.now;
            }
        }
        held
    }

    /// Nodes from which any request comes, as far as is known.
    #[must_use]
    pub fn senders(&self) -> BTreeSet<NodeName> {
        let sends =
            |cluster: &Cluster| cluster.now > 0.0 || cluster.last.concurrency > 0.0 || cluster.last.requests_per_second > 0.0;
        let sending = self.gateways.values().filter(|gateway| gateway.clusters.values().any(sends));
        sending.filter_map(|gateway| gateway.node.clone()).collect()
    }

    /// Source nodes whose demand is unknown.
    #[must_use]
    pub fn unknown_sources(&self, now: Duration) -> BTreeSet<NodeName> {
        self.gateways
            .values()
            .filter(|gateway| state(gateway.read_at, now) == GatewayState::Unknown)
            .filter_map(|gateway| gateway.node.clone())
            .collect()
    }

    /// How many gateways there are.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }
}

fn state(read_at: Option<Duration>, now: Duration) -> GatewayState {
    match read_at.map(|at| now.saturating_sub(at)) {
        Some(age) if age <= Duration::from_secs(2) => GatewayState::Known,
        Some(age) if age <= LAST_KNOWN_HOLDS => GatewayState::LastKnown,
        _ => GatewayState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Aggregation;

    fn key() -> RevisionKey {
        RevisionKey::new("default", "hello-00001")
    }

    fn board() -> DemandBoard {
        let mut board = DemandBoard::default();
        let gateways = BTreeMap::from([("gw-a".to_owned(), "node1".into()), ("gw-b".to_owned(), "node3".into())]);
        board.retain(&gateways, &BTreeSet::from([key()]));
        board
    }

    fn reading(active: f64, completed: f64, times: Option<(f64, f64)>) -> Reading {
        let cluster = ClusterReading {
            active: Some(active),
            total: None,
            completed: Some(completed),
            time_sum_ms: times.map(|(sum, _)| sum),
            time_count: times.map(|(_, count)| count),
        };
        Reading::from([(key(), cluster)])
    }

    fn averages(board: &DemandBoard, second: u64) -> BTreeMap<NodeName, SourceDemand> {
        board.history(&key()).unwrap().average(second, Duration::from_secs(1), Aggregation::Linear).unwrap()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn held_requests_show_at_once_and_average_over_the_second() {
        let mut board = board();
        board.read("gw-a", MS * 250, &reading(0.0, 0.0, None));
        board.read("gw-b", MS * 250, &reading(0.0, 0.0, None));
        assert!(board.held_now(&key()).is_empty());
        board.read("gw-b", MS * 500, &reading(4.0, 0.0, None));
        assert_eq!(board.held_now(&key()), BTreeMap::from([("node3".into(), 4.0)]));
        board.close_second(0, MS * 1000);
        assert_eq!(
            averages(&board, 0),
            BTreeMap::from([("node3".into(), SourceDemand { concurrency: 2.0, requests_per_second: 0.0 })])
        );
    }

    #[test]
    fn short_requests_count_by_rate_and_time() {
        let mut board = board();
        board.read("gw-a", MS * 900, &reading(0.0, 100.0, Some((500.0, 100.0))));
        board.close_second(0, MS * 1000);
        board.read("gw-a", MS * 1900, &reading(0.0, 120.0, Some((500.0, 100.0))));
        board.close_second(1, MS * 2000);
        let demand = averages(&board, 1)[&NodeName::from("node1")];
        assert!((demand.concurrency - 0.1).abs() < 1e-9 && (demand.requests_per_second - 20.0).abs() < 1e-9);
    }

    /// Twenty requests a second of 50 ms each: one in flight on average, which the gauge shows as anything from 0 to 3.
    #[test]
    fn without_a_histogram_times_are_learnt_from_the_gauge() {
        let mut board = board();
        let shown = [0.0, 2.0, 0.0, 1.0, 3.0, 0.0, 1.0, 1.0];
        for second in 0..60_u32 {
            for (quarter, active) in (0..4).zip(shown.iter().cycle().skip(second as usize % 2 * 4)) {
                let ended = f64::from(20 * second + 5 * quarter);
                let cluster = ClusterReading { active: Some(*active), total: Some(ended + active), ..ClusterReading::default() };
                board.read("gw-a", MS * (1000 * second + 250 * quarter), &Reading::from([(key(), cluster)]));
            }
            board.close_second(second.into(), MS * 1000 * (second + 1));
        }
        for second in 40..60 {
            let demand = averages(&board, second)[&NodeName::from("node1")];
            // The gauge alone says 0.75 and 1.25 in turn.
            assert!((demand.concurrency - 1.0).abs() < 0.05, "{demand:?}");
            assert!((demand.requests_per_second - 20.0).abs() < 1e-9, "{demand:?}");
        }
    }

    #[test]
    fn a_second_without_counters_goes_on_as_the_last() {
        let mut board = board();
        board.read("gw-a", MS * 900, &reading(0.0, 100.0, Some((500.0, 100.0))));
        board.close_second(0, MS * 1000);
        board.read("gw-a", MS * 1900, &reading(0.0, 120.0, Some((500.0, 100.0))));
        board.close_second(1, MS * 2000);
        let gauge_only = ClusterReading { active: Some(0.0), ..ClusterReading::default() };
        board.read("gw-a", MS * 2900, &Reading::from([(key(), gauge_only)]));
        board.close_second(2, MS * 3000);
        assert!((averages(&board, 2)[&NodeName::from("node1")].requests_per_second - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_silent_gateway_keeps_its_demand_and_then_is_unknown() {
        let mut board = board();
        let second = Duration::from_secs(1);
        board.read("gw-a", second * 10, &reading(3.0, 0.0, None));
        board.read("gw-b", second * 10, &reading(0.0, 0.0, None));
        board.close_second(10, second * 11);
        for at in 11..=24 {
            board.read("gw-b", second * at, &reading(0.0, 0.0, None));
            board.close_second(u64::from(at), second * (at + 1));
        }
        assert_eq!(averages(&board, 24)[&NodeName::from("node1")].concurrency, 3.0);
        assert!(board.unknown_sources(second * 25).is_empty());
        assert_eq!(board.unknown_sources(second * 26), BTreeSet::from(["node1".into()]));
    }

    #[test]
    fn a_gateway_never_read_is_unknown_and_one_that_left_is_not() {
        let mut board = board();
        assert_eq!(board.unknown_sources(Duration::ZERO).len(), 2);
        board.retain(&BTreeMap::new(), &BTreeSet::from([key()]));
        assert!(board.unknown_sources(Duration::ZERO).is_empty());
        board.close_second(0, Duration::from_secs(1));
        assert_eq!(board.history(&key()).unwrap().average(0, Duration::from_secs(1), Aggregation::Linear), None);
    }

    #[test]
    fn a_restarted_gateway_counts_from_anew() {
        let mut board = board();
        board.read("gw-a", MS * 900, &reading(0.0, 1000.0, Some((5000.0, 1000.0))));
        board.close_second(0, MS * 1000);
        board.read("gw-a", MS * 1900, &reading(1.0, 2.0, Some((20.0, 2.0))));
        board.close_second(1, MS * 2000);
        assert_eq!(averages(&board, 1)[&NodeName::from("node1")], SourceDemand { concurrency: 1.0, requests_per_second: 0.0 });
    }
}
