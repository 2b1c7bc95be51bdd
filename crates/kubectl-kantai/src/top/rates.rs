//! From counts of all replicas to rates.

use std::collections::BTreeMap;

use gateway_link::RevisionKey;
use gateway_link::demand::{ByServing, DemandEvent, Load, RevisionDemand};
use serde::Serialize;

use crate::known::Unread;

/// Requests from one source node to one serving node over an interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) namespace: String,
    pub(super) revision: String,
    /// The node where requests enter.
    pub(super) source: String,
    /// The node that answers; empty where activators hold requests, or the node is not known.
    pub(super) serving: String,
    /// `None` where a replica began anew within the interval.
    pub(super) requests_per_second: Option<f64>,
    pub(super) failed_per_second: Option<f64>,
    pub(super) in_flight: u64,
    /// Mean time of the requests that ended, network included; `None` where none did.
    pub(super) mean_seconds: Option<f64>,
}

impl Rate {
    pub(super) fn row(&self) -> Vec<String> {
        let number = |number: Option<f64>, unit: &str| number.map_or("?".to_owned(), |number| format!("{number:.1}{unit}"));
        vec![
            self.namespace.clone(),
            self.revision.clone(),
            self.source.clone(),
            if self.serving.is_empty() { "(held)".to_owned() } else { self.serving.clone() },
            number(self.requests_per_second, ""),
            self.in_flight.to_string(),
            self.mean_seconds.map_or("-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1000.0)),
            number(self.failed_per_second, "/s"),
        ]
    }
}

/// Source and serving node of a revision.
type Way = (RevisionKey, String, String);

/// What the replicas told.
#[derive(Debug, Default)]
pub(super) struct Board {
    replicas: BTreeMap<String, Replica>,
}

#[derive(Debug, Default)]
struct Replica {
    /// The name of its run; counts of another run began at zero.
    instance: String,
    loads: BTreeMap<RevisionKey, BTreeMap<String, ByServing>>,
    /// Counts at the last look, of the same run.
    before: Option<BTreeMap<Way, Load>>,
    lost: Option<Unread>,
}

impl Board {
    /// Takes in what a replica said.
    pub(super) fn hear(&mut self, replica: &str, event: DemandEvent) {
        let replica = self.replicas.entry(replica.to_owned()).or_default();
        replica.lost = None;
        match event {
            // A stream begins with it, in one or more parts; what an earlier stream told is gone
            // since that was lost.
            DemandEvent::Snapshot { instance, demand, .. } => {
                if replica.instance != instance {
                    *replica = Replica { instance, ..Replica::default() };
                }
                replica.add(demand);
            }
            DemandEvent::Update { demand, removed, .. } => {
                for key in removed {
                    replica.loads.remove(&key);
                }
                replica.add(demand);
            }
            DemandEvent::Heartbeat { .. } => {}
        }
    }

    /// A replica is not heard any more. What it told last says nothing of now.
    pub(super) fn lose(&mut self, replica: &str, why: Unread) {
        let replica = self.replicas.entry(replica.to_owned()).or_default();
        *replica = Replica { lost: Some(why), ..Replica::default() };
    }

    /// Replicas that are not heard.
    pub(super) fn unread(&self) -> Vec<(String, Unread)> {
        self.replicas.iter().filter_map(|(name, replica)| Some((name.clone(), replica.lost.clone()?))).collect()
    }

    /// The rates since the last call, `seconds` ago, the most requests first.
    pub(super) fn rates(&mut self, seconds: f64) -> Vec<Rate> {
        let mut sums: BTreeMap<Way, Sum> = BTreeMap::new();
        for replica in self.replicas.values_mut() {
            let now = replica.by_way();
            for (way, load) in &now {
                let sum = sums.entry(way.clone()).or_default();
                sum.in_flight = sum.in_flight.saturating_add(load.in_flight);
                match &replica.before {
                    // What a replica had not told before began within the interval.
                    Some(before) => sum.add(load, before.get(way).copied().unwrap_or_default()),
                    None => sum.is_unknown = true,
                }
            }
            replica.before = (!replica.instance.is_empty()).then_some(now);
        }
        let mut rates: Vec<Rate> =
            sums.into_iter().filter(|(_, sum)| sum.is_any()).map(|(way, sum)| sum.rate(way, seconds)).collect();
        rates.sort_by(|one, other| {
            let most = |rate: &Rate| rate.requests_per_second.unwrap_or(0.0);
            most(other).total_cmp(&most(one)).then(other.in_flight.cmp(&one.in_flight))
        });
        rates
    }
}

impl Replica {
    fn add(&mut self, demand: Vec<RevisionDemand>) {
        for one in demand {
            self.loads.entry(one.key).or_default().extend(one.loads);
        }
    }

    fn by_way(&self) -> BTreeMap<Way, Load> {
        let of_revision = |(key, sources): (&RevisionKey, &BTreeMap<String, ByServing>)| {
            let of_source = |(source, serving): (&String, &ByServing)| {
                let way = |(serving, load): (&String, &Load)| ((key.clone(), source.clone(), serving.clone()), *load);
                serving.iter().map(way).collect::<Vec<_>>()
            };
            sources.iter().flat_map(of_source).collect::<Vec<_>>()
        };
        self.loads.iter().flat_map(of_revision).collect()
    }
}

/// What came of all replicas on one way.
#[derive(Debug, Default)]
struct Sum {
    arrived: u64,
    ended: u64,
    failed: u64,
    busy_seconds: f64,
    in_flight: u64,
    is_unknown: bool,
}

impl Sum {
    fn add(&mut self, now: &Load, before: Load) {
        let more = |now: u64, before: u64| now.saturating_sub(before);
        self.arrived = self.arrived.saturating_add(more(now.arrived, before.arrived));
        self.ended = self.ended.saturating_add(more(now.ended(), before.ended()));
        self.failed = self.failed.saturating_add(more(now.failed, before.failed));
        self.busy_seconds += (now.busy_seconds - before.busy_seconds).max(0.0);
    }

    fn is_any(&self) -> bool {
        self.arrived > 0 || self.ended > 0 || self.in_flight > 0
    }

    fn rate(&self, (key, source, serving): Way, seconds: f64) -> Rate {
        let per_second = |count: u64| (!self.is_unknown && seconds > 0.0).then(|| count as f64 / seconds);
        Rate {
            namespace: key.namespace,
            revision: key.revision,
            source,
            serving,
            requests_per_second: per_second(self.arrived),
            failed_per_second: per_second(self.failed),
            in_flight: self.in_flight,
            // By Little's law.
            mean_seconds: (self.ended > 0 && !self.is_unknown).then(|| self.busy_seconds / self.ended as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(arrived: u64, finished: u64, busy_seconds: f64) -> Vec<RevisionDemand> {
        let load = Load { in_flight: arrived - finished, arrived, finished, failed: 0, busy_seconds };
        let loads = [("node1".to_owned(), [("node2".to_owned(), load)].into())].into();
        vec![RevisionDemand { key: RevisionKey::new("default", "hello-00001"), loads }]
    }

    fn snapshot(instance: &str, demand: Vec<RevisionDemand>) -> DemandEvent {
        DemandEvent::Snapshot {
            instance: instance.to_owned(),
            running_seconds: 9.0,
            version: 1,
            parts_left: 0,
            gateways: vec![],
            demand,
        }
    }

    fn update(demand: Vec<RevisionDemand>) -> DemandEvent {
        DemandEvent::Update { version: 2, gateways: vec![], gone: vec![], demand, removed: vec![], held: vec![] }
    }

    #[test]
    fn rates_are_what_came_between_two_looks_at_all_replicas() {
        let mut board = Board::default();
        board.hear("a", snapshot("a-1", demand(100, 100, 10.0)));
        board.hear("b", snapshot("b-1", demand(10, 10, 1.0)));
        assert_eq!(board.rates(2.0), [], "counts since a start are no rate, and nothing is in flight");
        board.hear("a", update(demand(120, 118, 12.0)));
        board.hear("b", update(demand(12, 12, 1.2)));
        let rates = board.rates(2.0);
        let [rate] = &rates[..] else { panic!("{rates:?}") };
        assert_eq!((rate.requests_per_second, rate.in_flight, rate.failed_per_second), (Some(11.0), 2, Some(0.0)));
        assert!((rate.mean_seconds.unwrap() - 0.11).abs() < 1e-9);
        assert_eq!(rate.row()[2..7], ["node1", "node2", "11.0", "2", "110.0 ms"]);
    }

    #[test]
    fn a_replica_that_began_anew_has_no_rate_and_one_that_is_lost_is_named() {
        let mut board = Board::default();
        board.hear("a", snapshot("a-1", demand(100, 90, 10.0)));
        let _ = board.rates(1.0);
        board.hear("a", snapshot("a-2", demand(5, 3, 0.5)));
        let rates = board.rates(1.0);
        assert_eq!((rates[0].requests_per_second, rates[0].in_flight), (None, 2));
        board.lose("a", Unread::because("gone"));
        assert_eq!((board.rates(1.0), board.unread()), (vec![], vec![("a".to_owned(), Unread::because("gone"))]));
    }
}
