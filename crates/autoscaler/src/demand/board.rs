//! All replicas' events in, the demand of every tick out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gateway_link::RevisionKey;
use gateway_link::demand::{DemandEvent, Gateway, Held, RevisionDemand};
use latency_matrix::NodeName;

use super::replicas::{Listing, Replicas};
use super::revision::{RevisionBoard, SourceReport, Time};
use super::sources::Sources;
use crate::kpa::SourceDemand;
use crate::picture::ObservedDemand;

/// How long after its end a second waits for gateways whose reports do not cover it yet.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a replica may be silent before it is forgotten.
const REPLICA_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How long a request that was handed to an activator counts without a load report that confirms
/// it. Gateways with 10,000 clusters list those at zero every ten seconds.
const HELD_COUNTS: Duration = Duration::from_secs(12);
/// At most this many seconds are returned in one tick; older ones are dropped.
const MOST_SECONDS: u64 = 60;

/// The demand of all revisions since the last tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tick {
    /// That of each revision that [`busy`](Self::busy) does not name: the same seconds, without
    /// requests, or unknown.
    pub quiet: ObservedDemand,
    /// That of the revisions that carried traffic, or have requests in flight.
    pub busy: BTreeMap<RevisionKey, ObservedDemand>,
}

/// See the [module](crate::demand).
///
/// A second is returned as `Some` once the reports of all gateways cover it, and otherwise two
/// seconds after its end as `None`: a missing report is not zero demand. Requests are counted once,
/// whichever replica a gateway reports to.
#[derive(Debug)]
pub struct Board {
    replicas: Replicas,
    sources: Sources,
    revisions: BTreeMap<RevisionKey, RevisionBoard>,
    woken: BTreeSet<RevisionKey>,
    /// The first second that was not given out yet.
    next_second: u64,
}

impl Board {
    /// A board that knows of nothing before `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            replicas: Replicas::default(),
            sources: Sources::default(),
            revisions: BTreeMap::new(),
            woken: BTreeSet::new(),
            next_second: now.as_secs(),
        }
    }

    /// Sets the nodes that have a gateway. The demand of a listed gateway that is silent is
    /// unknown; a gateway that is neither listed nor reporting is gone. Without a list, a gateway
    /// is gone after a minute of silence.
    pub fn expect_gateways(&mut self, nodes: BTreeSet<NodeName>) {
        self.sources.expect(nodes);
    }

    /// Applies an event of `replica`. `rtt_seconds` gives the round trip between a source and a
    /// serving node, 0 where it is unknown. It is subtracted from the time of each request.
    pub fn apply_event(
        &mut self,
        replica: &str,
        event: DemandEvent,
        now: Duration,
        rtt_seconds: &dyn Fn(&NodeName, &NodeName) -> f64,
    ) {
        match event {
            DemandEvent::Snapshot { instance, running_seconds, parts_left, gateways, demand, .. } => {
                let is_same_run = self.begin_snapshot(replica, instance);
                let began = now.saturating_sub(Duration::try_from_secs_f64(running_seconds).unwrap_or(now));
                // All counts of a new run are new if it began after the last event of the run
                // before.
                let counts = if is_same_run { None } else { Some(began) };
                let line = ReportLine { gateways, demand, new_since: counts, ..ReportLine::default() };
                self.apply_line(replica, line, now, rtt_seconds);
                if parts_left == 0 {
                    self.end_snapshot(replica);
                }
            }
            DemandEvent::Update { gateways, gone, demand, removed, held, .. } => {
                if !self.is_followed(replica) {
                    return;
                }
                self.apply_line(replica, ReportLine { gateways, gone, demand, new_since: None }, now, rtt_seconds);
                for key in removed {
                    self.forget(replica, &key);
                }
                for Held { key, source } in held {
                    let revision = self.revisions.entry(key.clone()).or_default();
                    revision.hold(NodeName::new(source), now + HELD_COUNTS);
                    self.woken.insert(key);
                }
            }
            DemandEvent::Heartbeat { gateways, .. } => {
                if self.is_followed(replica) {
                    self.apply_line(replica, ReportLine { gateways, ..ReportLine::default() }, now, rtt_seconds);
                }
            }
        }
    }

    /// The stream of `replica` ended, or the replica did.
    pub fn lose(&mut self, replica: &str, now: Duration) {
        let Some(replica) = self.replicas.0.get_mut(replica) else { return };
        replica.lost_at.get_or_insert(now);
        replica.listing = None;
        let nodes = replica.leave_all();
        self.note_unheard(&nodes);
    }

    /// Gives out the seconds that ended since the last tick. Only revisions for which `is_ours`
    /// holds are named.
    pub fn tick(&mut self, now: Duration, is_ours: impl Fn(&RevisionKey) -> bool) -> Tick {
        self.prune(now);
        let seconds = self.ended(now);
        let is_unknown = self.sources.is_empty() || !self.sources.unknown(now).is_empty();
        let mut busy = BTreeMap::new();
        let in_flight_counts = |replica: &str, node: &NodeName| in_flight_counts(&self.replicas, replica, node);
        self.revisions.retain(|key, revision| {
            let of = |(second, is_known): &(u64, bool)| {
                let demand: BTreeMap<NodeName, SourceDemand> = revision.close(*second);
                (*second, is_known.then_some(demand))
            };
            let seconds: Vec<_> = seconds.iter().map(of).collect();
            revision.let_go(now);
            let in_flight = revision.in_flight(&in_flight_counts);
            let is_busy =
                !in_flight.is_empty() || seconds.iter().any(|(_, demand)| demand.as_ref().is_some_and(|of| !of.is_empty()));
            if is_busy && is_ours(key) {
                busy.insert(key.clone(), ObservedDemand { seconds, in_flight, service_seconds: BTreeMap::new(), is_unknown });
            }
            revision.is_known()
        });
        let nobody = |(second, is_known): (u64, bool)| (second, is_known.then(BTreeMap::new));
        let quiet =
            ObservedDemand { seconds: seconds.into_iter().map(nobody).collect(), is_unknown, ..ObservedDemand::default() };
        Tick { quiet, busy }
    }

    /// The revisions that got requests in flight, after none, since the last call.
    #[must_use]
    pub fn take_woken(&mut self) -> BTreeSet<RevisionKey> {
        let mut woken = std::mem::take(&mut self.woken);
        woken.retain(|key| self.is_waited_for(key));
        woken
    }

    /// Whether [`take_woken`](Self::take_woken) may return any revision.
    #[must_use]
    pub fn is_anyone_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Requests in flight at this instant, per source node that has any.
    #[must_use]
    pub fn in_flight(&self, key: &RevisionKey) -> BTreeMap<NodeName, f64> {
        let counts = |replica: &str, node: &NodeName| in_flight_counts(&self.replicas, replica, node);
        self.revisions.get(key).map(|revision| revision.in_flight(&counts)).unwrap_or_default()
    }

    /// Recent mean response time of `key` per serving node in seconds, without the network's round
    /// trip. Nodes with too few finished requests are left out. Time that an activator held
    /// requests counts for the activator's node.
    #[must_use]
    pub fn service_seconds(&self, key: &RevisionKey) -> BTreeMap<NodeName, f64> {
        self.revisions.get(key).map(RevisionBoard::service_seconds).unwrap_or_default()
    }

    /// Finished requests for `key`, as the gateways count them. A gateway that restarts counts from
    /// 0.
    #[must_use]
    pub fn ended_requests(&self, key: &RevisionKey) -> u64 {
        self.revisions.get(key).map_or(0, RevisionBoard::ended)
    }

    /// The nodes from which requests came lately, for any revision.
    #[must_use]
    pub fn senders(&self) -> BTreeSet<NodeName> {
        self.revisions.values().flat_map(RevisionBoard::sources).cloned().collect()
    }

    /// The nodes whose gateways' demand is not known.
    #[must_use]
    pub fn unknown_sources(&self, now: Duration) -> BTreeSet<NodeName> {
        self.sources.unknown(now)
    }

    /// How many revisions it knows of.
    #[must_use]
    pub fn revisions(&self) -> usize {
        self.revisions.len()
    }

    fn is_followed(&self, replica: &str) -> bool {
        self.replicas.0.get(replica).is_some_and(|replica| replica.instance.is_some() && replica.lost_at.is_none())
    }

    /// Whether the counters of the replica continue those of its last event.
    fn begin_snapshot(&mut self, replica: &str, instance: String) -> bool {
        let (name, replica) = self.replicas.named(replica);
        replica.lost_at = None;
        if let Some(listing) = &replica.listing {
            return listing.is_same_run;
        }
        let is_same_run = replica.instance.as_ref() == Some(&instance);
        replica.instance = Some(instance);
        replica.listing = Some(Listing { is_same_run, revisions: BTreeSet::new() });
        let nodes = replica.leave_all();
        if !is_same_run {
            self.revisions.retain(|_, revision| revision.forget_replica(&name));
        }
        self.note_unheard(&nodes);
        is_same_run
    }

    fn end_snapshot(&mut self, replica: &str) {
        let (name, replica) = self.replicas.named(replica);
        let Some(listing) = replica.listing.take() else { return };
        self.revisions.retain(|key, revision| listing.revisions.contains(key) || revision.forget_replica(&name));
    }

    fn forget(&mut self, replica: &str, key: &RevisionKey) {
        if self.revisions.get_mut(key).is_some_and(|revision| !revision.forget_replica(replica)) {
            self.revisions.remove(key);
        }
    }

    /// Takes over one line of a replica that is followed.
    fn apply_line(&mut self, replica: &str, line: ReportLine, now: Duration, rtt_seconds: &dyn Fn(&NodeName, &NodeName) -> f64) {
        let (name, known) = self.replicas.named(replica);
        let departing: BTreeSet<NodeName> = line.gone.iter().filter_map(|stream| known.leave(*stream)).collect();
        let is_news = |gateway: &&Gateway| !known.hears_node(&NodeName::new(gateway.node.as_str()));
        let moved: BTreeSet<NodeName> =
            line.gateways.iter().filter(is_news).map(|gateway| NodeName::new(gateway.node.as_str())).collect();
        let reported = known.apply_gateways(&line.gateways, now);
        if let Some(listing) = &mut known.listing {
            listing.revisions.extend(line.demand.iter().map(|of| of.key.clone()));
        }
        let departing: BTreeSet<NodeName> = departing.into_iter().filter(|node| !known.hears_node(node)).collect();
        for node in &moved {
            self.note_moved(&name, node);
        }
        let is_new = |sources: &Sources, node: &NodeName| match line.new_since {
            None => true,
            Some(began) => sources.counted_to(node).is_some_and(|counted_to| counted_to <= began),
        };
        for RevisionDemand { key, loads } in line.demand {
            let was_waited_for = self.is_waited_for(&key);
            let revision = self.revisions.entry(key.clone()).or_default();
            for (source, loads) in loads {
                let source = NodeName::new(source);
                let to = reported.get(&source).copied().unwrap_or(now);
                let from = self.sources.counted_to(&source).unwrap_or(to);
                let time = Time { from, to, open_from: Duration::from_secs(self.next_second) };
                let counts = is_new(&self.sources, &source);
                let is_departing = departing.contains(&source);
                revision.apply_report(
                    SourceReport { replica: &name, source: &source, loads, counts, is_departing },
                    time,
                    rtt_seconds,
                );
            }
            if !was_waited_for && self.is_waited_for(&key) {
                self.woken.insert(key);
            }
        }
        for (node, at) in reported {
            let is_complete = is_new(&self.sources, &node);
            self.sources.reported(&node, at, is_complete);
        }
        self.note_unheard(&departing);
    }

    /// The gateway of `node` reports to `replica` from now on. Requests in flight that other
    /// replicas reported for it, or this one did earlier, no longer count.
    fn note_moved(&mut self, replica: &str, node: &NodeName) {
        for (name, other) in &self.replicas.0 {
            if **name == *replica || !other.hears_node(node) {
                for revision in self.revisions.values_mut() {
                    revision.clear_in_flight(name, node);
                }
            }
        }
    }

    fn note_unheard(&mut self, nodes: &BTreeSet<NodeName>) {
        for node in nodes.iter().filter(|node| !self.replicas.any_hears(node)) {
            self.sources.unheard(node);
        }
    }

    /// The seconds that can be given out, and whether all of each is known.
    fn ended(&mut self, now: Duration) -> Vec<(u64, bool)> {
        self.next_second = self.next_second.max(now.as_secs().saturating_sub(MOST_SECONDS));
        let mut seconds = Vec::new();
        while self.next_second < now.as_secs() {
            let start = Duration::from_secs(self.next_second);
            let is_known = self.sources.are_counted(start);
            let may_come = now < start + Duration::from_secs(1) + PATIENCE;
            if !is_known && may_come && self.sources.may_be_counted(start) {
                break;
            }
            seconds.push((self.next_second, is_known));
            self.next_second += 1;
        }
        seconds
    }

    fn prune(&mut self, now: Duration) {
        let is_long_lost = |lost_at: Option<Duration>| lost_at.is_some_and(|at| now.saturating_sub(at) > REPLICA_FORGOTTEN_AFTER);
        let lost: Vec<Arc<str>> =
            self.replicas.0.iter().filter(|(_, replica)| is_long_lost(replica.lost_at)).map(|(name, _)| name.clone()).collect();
        for name in lost {
            self.replicas.0.remove(&name);
            self.revisions.retain(|_, revision| revision.forget_replica(&name));
        }
        if self.sources.prune(now) {
            let sources = &self.sources;
            self.revisions.retain(|_, revision| revision.retain_sources(|node| sources.is_known(node)));
        }
    }

    /// Whether any request for it is in flight.
    fn is_waited_for(&self, key: &RevisionKey) -> bool {
        let counts = |replica: &str, node: &NodeName| in_flight_counts(&self.replicas, replica, node);
        self.revisions.get(key).is_some_and(|revision| revision.is_waited_for(&counts))
    }
}

/// Whether the requests in flight that `replica` reported for `node` count: the gateway reports to
/// it, or to no replica and it was the last.
fn in_flight_counts(replicas: &Replicas, replica: &str, node: &NodeName) -> bool {
    replicas.hears(replica, node) || !replicas.any_hears(node)
}

/// What one line says.
#[derive(Default)]
struct ReportLine {
    gateways: Vec<Gateway>,
    gone: Vec<u64>,
    demand: Vec<RevisionDemand>,
    /// Since when the counters count, where they do not continue those of an earlier event.
    new_since: Option<Duration>,
}

#[cfg(test)]
mod tests;
