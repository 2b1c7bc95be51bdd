//! The demand of one revision that has traffic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_link::demand::ByServing;
use latency_matrix::NodeName;

use super::estimate::{SecondReading, estimate};
use crate::kpa::SourceDemand;

/// What was seen of times counts this much less with each second: what is older than a minute says
/// nothing.
const FADING: f64 = 0.95;

/// Counts of one second, or of one report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Amount {
    pub(super) arrived: f64,
    pub(super) ended: f64,
    /// Request-seconds at the pod: the way there and back is taken off.
    pub(super) busy_seconds: f64,
}

impl Amount {
    fn add(&mut self, other: Self, share: f64) {
        self.arrived += other.arrived * share;
        self.ended += other.ended * share;
        self.busy_seconds += other.busy_seconds * share;
    }
}

/// How long requests take, by Little's law: requests in flight added up over time, divided by how
/// many ended.
#[derive(Clone, Copy, Debug, Default)]
struct RequestTimes {
    busy_seconds: f64,
    ended: f64,
    second: u64,
}

impl RequestTimes {
    fn add(&mut self, amount: Amount, second: u64) {
        let passed = i32::try_from(second.saturating_sub(self.second)).unwrap_or(i32::MAX);
        let fading = FADING.powi(passed);
        self.busy_seconds = self.busy_seconds * fading + amount.busy_seconds;
        self.ended = self.ended * fading + amount.ended;
        self.second = self.second.max(second);
    }

    /// `None` with too few finished requests.
    fn mean_seconds(self) -> Option<f64> {
        (self.ended >= 1.0).then(|| (self.busy_seconds / self.ended).max(0.0))
    }
}

/// What comes from one source node.
#[derive(Debug, Default)]
struct FromSource {
    /// As each replica last reported it.
    reported: BTreeMap<Arc<str>, ByServing>,
    /// The seconds that were not returned yet, in order.
    seconds: VecDeque<(u64, Amount)>,
    seen: RequestTimes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RevisionBoard {
    sources: BTreeMap<NodeName, FromSource>,
    serving: BTreeMap<NodeName, RequestTimes>,
    /// Source nodes with a held request that no load report has confirmed, and until when it
    /// counts.
    held: BTreeMap<NodeName, Duration>,
}

/// What a replica reports about one source node.
pub(super) struct SourceReport<'a> {
    pub(super) replica: &'a Arc<str>,
    pub(super) source: &'a NodeName,
    pub(super) loads: ByServing,
    /// Whether the increase since the last report, or since 0, counts as demand. If not, the
    /// counters are only stored.
    pub(super) counts: bool,
    /// Whether the replica has just lost its gateway, so that it cannot know what is in flight.
    pub(super) is_departing: bool,
}

/// What time counts are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// The first second that was not given out yet.
    pub(super) open_from: Duration,
}

impl RevisionBoard {
    /// Applies the report of a replica.
    pub(super) fn apply_report(
        &mut self,
        mut report: SourceReport<'_>,
        time: Time,
        rtt_seconds: &dyn Fn(&NodeName, &NodeName) -> f64,
    ) {
        let source = self.sources.entry(report.source.clone()).or_default();
        let before = source.reported.get(report.replica);
        let mut sum = Amount::default();
        if report.counts {
            for (serving, load) in &report.loads {
                let before = before.and_then(|before| before.get(serving)).copied().unwrap_or_default();
                // A counter that fell was reset to 0.
                let grown = |now: u64, before: u64| if now >= before { now - before } else { now };
                let arrived = as_f64(grown(load.arrived, before.arrived));
                let ended = as_f64(grown(load.ended(), before.ended()));
                let busy = load.busy_seconds - before.busy_seconds;
                let busy = if busy >= 0.0 { busy } else { load.busy_seconds };
                let serving = NodeName::new(serving.as_str());
                let network = ended * rtt_seconds(report.source, &serving).max(0.0);
                let amount = Amount { arrived, ended, busy_seconds: busy - network };
                if amount != Amount::default() {
                    self.serving.entry(serving).or_default().add(amount, time.to.as_secs());
                    sum.add(amount, 1.0);
                }
            }
        }
        if report.is_departing
            && let Some(before) = before
        {
            for (serving, load) in &mut report.loads {
                load.in_flight = before.get(serving).map_or(0, |before| before.in_flight);
            }
        }
        self.held.remove(report.source);
        source.reported.insert(report.replica.clone(), report.loads);
        if sum != Amount::default() {
            source.spread(sum, time.from, time.to, time.open_from);
        }
    }

    /// Requests in flight, per source node that has any. `counts` says whose word counts of a node.
    pub(super) fn in_flight(&self, counts: &dyn Fn(&str, &NodeName) -> bool) -> BTreeMap<NodeName, f64> {
        let mut in_flight = BTreeMap::new();
        for (node, source) in &self.sources {
            let reports =
                source.reported.iter().filter(|(_, loads)| is_waited_for(loads)).filter(|(replica, _)| counts(replica, node));
            let sum: u64 = reports.flat_map(|(_, loads)| loads.values()).map(|load| load.in_flight).sum();
            if sum > 0 {
                in_flight.insert(node.clone(), as_f64(sum));
            }
        }
        for node in self.held.keys() {
            in_flight.entry(node.clone()).or_insert(1.0);
        }
        in_flight
    }

    /// A request from `source` is held.
    pub(super) fn hold(&mut self, source: NodeName, until: Duration) {
        self.held.insert(source, until);
    }

    /// What was held for long and never reported is over.
    pub(super) fn let_go(&mut self, now: Duration) {
        self.held.retain(|_, until| now < *until);
    }

    /// Whether any request is in flight.
    pub(super) fn is_waited_for(&self, counts: &dyn Fn(&str, &NodeName) -> bool) -> bool {
        let reports = self.sources.iter().flat_map(|(node, source)| source.reported.iter().map(move |report| (node, report)));
        !self.held.is_empty()
            || reports.filter(|(_, (_, loads))| is_waited_for(loads)).any(|(node, (replica, _))| counts(replica, node))
    }

    /// Drops the requests in flight that the replica reported for `source`.
    pub(super) fn clear_in_flight(&mut self, replica: &str, source: &NodeName) {
        let reports = self.sources.get_mut(source).and_then(|source| source.reported.get_mut(replica));
        for load in reports.into_iter().flat_map(BTreeMap::values_mut) {
            load.in_flight = 0;
        }
    }

    /// Forgets the reports of the replica. Returns whether any others are left.
    pub(super) fn forget_replica(&mut self, replica: &str) -> bool {
        for source in self.sources.values_mut() {
            source.reported.remove(replica);
        }
        self.is_known()
    }

    /// Forgets the reports about nodes that are no sources any more. Returns whether any are left.
    pub(super) fn retain_sources(&mut self, is_source: impl Fn(&NodeName) -> bool) -> bool {
        for (_, source) in self.sources.iter_mut().filter(|(node, _)| !is_source(node)) {
            source.reported.clear();
        }
        self.is_known()
    }

    /// Returns whether any reports are left. Source nodes without any are dropped.
    pub(super) fn is_known(&mut self) -> bool {
        self.sources.retain(|_, source| !source.reported.is_empty() || !source.seconds.is_empty());
        !self.sources.is_empty() || !self.held.is_empty()
    }

    /// Ends the second `second`: its demand per source node that had any.
    pub(super) fn close(&mut self, second: u64) -> BTreeMap<NodeName, SourceDemand> {
        let mut demand = BTreeMap::new();
        for (node, source) in &mut self.sources {
            while source.seconds.front().is_some_and(|(other, _)| *other < second) {
                source.seconds.pop_front();
            }
            if source.seconds.front().is_none_or(|(other, _)| *other != second) {
                continue;
            }
            let Some((_, amount)) = source.seconds.pop_front() else { continue };
            source.seen.add(amount, second);
            let reading = SecondReading {
                gauge: amount.busy_seconds,
                arrived_per_second: Some(amount.arrived),
                ended_per_second: Some(amount.ended),
                mean_seconds: source.seen.mean_seconds(),
            };
            let of = estimate(reading);
            if of != SourceDemand::default() {
                demand.insert(node.clone(), of);
            }
        }
        demand
    }

    /// Requests that ended, as the gateways count them.
    pub(super) fn ended(&self) -> u64 {
        let reports = self.sources.values().flat_map(|source| source.reported.values());
        reports.flat_map(BTreeMap::values).map(gateway_link::demand::Load::ended).fold(0, u64::saturating_add)
    }

    /// Where its requests come from.
    pub(super) fn sources(&self) -> impl Iterator<Item = &NodeName> {
        self.sources.keys()
    }

    /// Seconds that a request takes at the pods of a node.
    pub(super) fn service_seconds(&self) -> BTreeMap<NodeName, f64> {
        self.serving.iter().filter_map(|(node, seen)| Some((node.clone(), seen.mean_seconds()?))).collect()
    }
}

impl FromSource {
    /// Spreads the amount of the interval from `from` to `to` evenly over its seconds. Seconds
    /// before `open_from` were returned already. Where only a part of the interval lies before,
    /// that part is dropped: its second was unknown. A whole interval that is late counts from
    /// `open_from` on.
    fn spread(&mut self, amount: Amount, from: Duration, to: Duration, open_from: Duration) {
        let from = from.min(to);
        let whole = to - from;
        if to <= open_from || whole.is_zero() {
            if whole <= LATE {
                self.at(to.max(open_from).as_secs()).add(amount, 1.0);
            }
            return;
        }
        let mut start = from.max(open_from).max(to.saturating_sub(KEPT));
        while start < to {
            let second = start.as_secs();
            let end = Duration::from_secs(second + 1).min(to);
            self.at(second).add(amount, (end - start).as_secs_f64() / whole.as_secs_f64());
            start = end;
        }
    }

    fn at(&mut self, second: u64) -> &mut Amount {
        let place = self.seconds.partition_point(|(other, _)| *other < second);
        if self.seconds.get(place).is_none_or(|(other, _)| *other != second) {
            self.seconds.insert(place, (second, Amount::default()));
        }
        &mut self.seconds[place].1
    }
}

/// What is older was asked for long ago.
const KEPT: Duration = Duration::from_secs(10);
/// A report about more time than this that comes after its seconds were given out is no news.
const LATE: Duration = Duration::from_secs(2);

fn is_waited_for(loads: &ByServing) -> bool {
    loads.values().any(|load| load.in_flight > 0)
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
fn as_f64(count: u64) -> f64 {
    count as f64
}
