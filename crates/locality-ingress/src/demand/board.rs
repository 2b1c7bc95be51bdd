//! The sums of all load reports. Pure; the time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use gateway_link::RevisionKey;
use gateway_link::demand::{DemandEvent, Gateway, Held, RevisionDemand, Run};

use super::history::History;
use super::report::{self, ReportedLoad, as_f64};
use super::stream_state::Stream;
use crate::kubernetes::objects::ObjectName;
use gateway_link::demand::{ByServing, Load};

/// A revision without any report for this long is dropped.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Streams per node: a gateway, its successor, and streams that broke silently.
const MOST_STREAMS_OF_A_NODE: usize = 4;
/// Streams in total.
const MOST_STREAMS: usize = 4096;
/// Maximum number of pairs of revision and source node. Only a hostile peer has more.
const MOST_ENTRIES: usize = 500_000;
/// Number of ended streams and dropped revisions that are kept for readers; a reader that is
/// farther behind starts with a new snapshot.
const KEPT_ENDS: usize = 4096;

/// A held request is announced again only after this time.
const HELD_ANEW_AFTER: Duration = Duration::from_millis(500);

/// The number of one gateway's stream of reports.
pub(super) type StreamId = u64;

/// A revision and a source node.
type Entry = (ObjectName, String);

/// The position of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    version: u64,
    reports: u64,
}

/// Why a stream of reports is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Too many of this node.
    #[error("failed to accept load reports: the node has {MOST_STREAMS_OF_A_NODE} streams already")]
    OfThisNode,
    /// Too many in total.
    #[error("failed to accept load reports: there are {MOST_STREAMS} streams already")]
    Altogether,
}

/// The sums of all load reports, by revision, source node and serving node, with a version per
/// change.
#[derive(Debug)]
pub struct LoadBoard {
    instance: String,
    began: Instant,
    totals: BTreeMap<ObjectName, BTreeMap<String, ByServing>>,
    streams: BTreeMap<StreamId, Stream>,
    history: History<Entry>,
    /// Ended streams, dropped revisions and held requests, by version.
    ended: VecDeque<(u64, End)>,
    /// When a held request was last announced.
    held: BTreeMap<Entry, Instant>,
    /// The version of the last end that is no longer kept.
    ends_dropped_to: u64,
    reports: u64,
}

#[derive(Clone, Debug)]
enum End {
    Stream(StreamId),
    Revision(ObjectName),
    Held(Entry),
}

impl LoadBoard {
    /// An empty board. `instance` names this run of the program.
    #[must_use]
    pub fn new(instance: String, now: Instant) -> Self {
        Self {
            instance,
            began: now,
            totals: BTreeMap::new(),
            streams: BTreeMap::new(),
            history: History::default(),
            ended: VecDeque::new(),
            held: BTreeMap::new(),
            ends_dropped_to: 0,
            reports: 0,
        }
    }

    /// Opens the stream of reports of the gateway on `source`.
    ///
    /// # Errors
    /// [`TooMany`] if the node or the board has too many streams.
    pub fn open_stream(&mut self, stream: StreamId, source: &str, now: Instant) -> Result<(), TooMany> {
        if self.streams.len() >= MOST_STREAMS {
            return Err(TooMany::Altogether);
        }
        if self.streams.values().filter(|other| other.source == source).count() >= MOST_STREAMS_OF_A_NODE {
            return Err(TooMany::OfThisNode);
        }
        self.streams.insert(stream, Stream::new(source, now));
        Ok(())
    }

    /// Applies a report; clusters that are not `is_known` are ignored. Returns the revisions whose
    /// load from the gateway's node changed.
    pub fn apply_report(
        &mut self,
        stream: StreamId,
        report: &LoadStatsRequest,
        is_known: impl Fn(&str) -> bool,
        now: Instant,
    ) -> BTreeSet<ObjectName> {
        let Some(of) = self.streams.get_mut(&stream) else { return BTreeSet::new() };
        self.reports += 1;
        let is_first = of.report == 0;
        let since = of.reported(self.reports, now);
        let mut changed = BTreeSet::new();
        let said = report::read(report, is_known);
        for (revision, by_serving) in &said {
            for (serving, reported) in by_serving {
                let had = of.in_flight(revision, serving);
                if reported.is_idle() && had == 0 {
                    continue;
                }
                let is_new = !self.history.has(&(revision.clone(), of.source.clone()));
                if is_new && self.history.len() >= MOST_ENTRIES {
                    continue;
                }
                let mut reported = *reported;
                // A gateway counts requests of a cluster only once it is asked to report it, so
                // requests in flight beyond the count have arrived before. Those that were in
                // flight when the stream began were counted by the previous stream.
                if !is_first {
                    let ended = reported.finished.saturating_add(reported.failed);
                    let came = reported.in_flight.saturating_add(ended).saturating_sub(had);
                    reported.arrived = reported.arrived.max(came);
                }
                let seconds = reported.seconds.unwrap_or(since);
                add(&mut self.totals, revision, &of.source, serving, &reported, had, seconds);
                of.set_in_flight(revision, serving, reported.in_flight);
                changed.insert(revision.clone());
            }
        }
        // A locality without endpoints is not listed any more, even if requests are in flight
        // there.
        let totals = &self.totals;
        let mean_seconds = |source: &str, revision: &ObjectName, serving: &str| {
            let load = totals.get(revision).and_then(|of| of.get(source)?.get(serving)).copied().unwrap_or_default();
            // Envoy reports no end of requests that clients gave up, so the mean over those that
            // ended may be far too long. Twice the time of all that arrived bounds it: those in
            // flight may take as long again.
            (load.busy_seconds / as_f64(load.ended().max(1))).min(2.0 * load.busy_seconds / as_f64(load.arrived.max(1)))
        };
        of.move_unlisted_to_leaving(&said, mean_seconds, now);
        for left in of.end_leaving(now) {
            let load = load_of(&mut self.totals, &left.revision, &of.source, &left.serving);
            load.finished = load.finished.saturating_add(left.ended);
            load.busy_seconds += left.busy_seconds;
            changed.insert(left.revision);
        }
        let source = of.source.clone();
        for revision in &changed {
            // The report counts the held request; the next one is announced again.
            self.held.remove(&(revision.clone(), source.clone()));
        }
        self.record_changes(&changed, &source, now);
        changed
    }

    /// Closes a gateway's stream; its requests in flight are unknown from now on. Returns its node
    /// and the affected revisions.
    pub fn close_stream(&mut self, stream: StreamId, now: Instant) -> Option<(String, BTreeSet<ObjectName>)> {
        let gone = self.streams.remove(&stream)?;
        let changed = gone.busy_revisions();
        self.record_changes(&changed, &gone.source, now);
        self.record_end(End::Stream(stream));
        Some((gone.source, changed))
    }

    /// Records that the gateway on `source` handed a request for `revision` to an activator.
    /// Returns whether that has to be announced.
    pub fn record_held(&mut self, revision: &ObjectName, source: &str, now: Instant) -> bool {
        let is_reported = |stream: &Stream| stream.source == source && stream.is_busy(revision);
        if source.len() > report::LONGEST_NODE_NAME || self.streams.values().any(is_reported) {
            return false;
        }
        self.held.retain(|_, told| now.saturating_duration_since(*told) < HELD_ANEW_AFTER);
        let entry = (revision.clone(), source.to_owned());
        if self.held.len() >= KEPT_ENDS || self.held.contains_key(&entry) {
            return false;
        }
        self.held.insert(entry.clone(), now);
        self.record_end(End::Held(entry));
        true
    }

    fn record_changes(&mut self, changed: &BTreeSet<ObjectName>, source: &str, now: Instant) {
        for revision in changed {
            self.history.record((revision.clone(), source.to_owned()), now);
        }
        self.forget_idle(now);
    }

    /// Drops revisions that were idle for long, a few per call.
    fn forget_idle(&mut self, now: Instant) {
        for _ in 0..64 {
            let Some((revision, source)) = self.history.oldest_before(now, FORGOTTEN_AFTER) else { return };
            let sources = self.totals.get(&revision).into_iter().flat_map(BTreeMap::keys);
            let is_young = |source: &String| self.history.is_younger(&(revision.clone(), source.clone()), now, FORGOTTEN_AFTER);
            let is_busy = self.streams.values().any(|stream| stream.is_busy(&revision));
            if is_busy || sources.clone().any(is_young) {
                self.history.record((revision, source), now);
                continue;
            }
            for source in self.totals.remove(&revision).into_iter().flat_map(BTreeMap::into_keys) {
                self.history.remove(&(revision.clone(), source));
            }
            self.history.remove(&(revision.clone(), source));
            self.record_end(End::Revision(revision));
        }
    }

    fn record_end(&mut self, end: End) {
        let version = self.history.next_version();
        self.ended.push_back((version, end));
        while self.ended.len() > KEPT_ENDS {
            if let Some((version, _)) = self.ended.pop_front() {
                self.ends_dropped_to = version;
            }
        }
    }

    /// The number of changes so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.history.version()
    }

    /// All sums, for a new reader, and its position after them.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> (Vec<DemandEvent>, Position) {
        let run =
            Run { instance: self.instance.clone(), running_seconds: now.saturating_duration_since(self.began).as_secs_f64() };
        let gateways = self.gateways(|_| true, now);
        let demand = self.demand(self.totals.iter().flat_map(|(revision, of)| of.keys().map(move |source| (revision, source))));
        let events = DemandEvent::snapshot(&run, self.version(), &gateways, demand);
        (events, Position { version: self.version(), reports: self.reports })
    }

    /// The changes after `position`, and the next position; `None` if the reader has to start with
    /// a new snapshot. Without changes it is a heartbeat.
    #[must_use]
    pub fn since(&self, position: Position, now: Instant) -> Option<(Vec<DemandEvent>, Position)> {
        if position.version < self.ends_dropped_to {
            return None;
        }
        let next = Position { version: self.version(), reports: self.reports };
        if position.version == self.version() {
            let gateways = self.gateways(|_| true, now);
            return Some((vec![DemandEvent::Heartbeat { version: self.version(), gateways }], next));
        }
        let (mut gone, mut removed, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for (_, end) in self.ended.iter().filter(|(version, _)| *version > position.version) {
            match end {
                End::Stream(stream) => gone.push(*stream),
                // It may have got traffic again since.
                End::Revision(revision) if self.totals.contains_key(revision) => {}
                End::Revision(revision) => removed.push(key(revision)),
                End::Held((revision, source)) => held.push(Held { key: key(revision), source: source.clone() }),
            }
        }
        let changed = self.history.since(position.version);
        let demand = self.demand(changed.map(|(revision, source)| (revision, source)));
        let gateways = self.gateways(|stream| stream.report > position.reports, now);
        Some((DemandEvent::update(self.version(), gateways, gone, demand, removed, held), next))
    }

    fn gateways(&self, wanted: impl Fn(&Stream) -> bool, now: Instant) -> Vec<Gateway> {
        // Before its first report nothing is known about a gateway.
        let reported = self.streams.iter().filter(|(_, stream)| stream.report > 0 && wanted(stream));
        let gateway = |(id, stream): (&StreamId, &Stream)| Gateway {
            stream: *id,
            node: stream.source.clone(),
            age_seconds: now.saturating_duration_since(stream.reported_at).as_secs_f64(),
        };
        reported.map(gateway).collect()
    }

    fn demand<'a>(&self, entries: impl Iterator<Item = (&'a ObjectName, &'a String)>) -> Vec<RevisionDemand> {
        let mut by_revision: BTreeMap<&ObjectName, BTreeMap<String, ByServing>> = BTreeMap::new();
        for (revision, source) in entries {
            by_revision.entry(revision).or_default().insert(source.clone(), self.load_from(revision, source));
        }
        by_revision.into_iter().map(|(revision, loads)| RevisionDemand { key: key(revision), loads }).collect()
    }

    /// The load of `revision` from `source`, by serving node.
    #[must_use]
    pub fn load_from(&self, revision: &ObjectName, source: &str) -> ByServing {
        let mut loads = self.totals.get(revision).and_then(|of| of.get(source)).cloned().unwrap_or_default();
        // While a gateway is replaced, its node has two.
        for stream in self.streams.values().filter(|stream| stream.source == source) {
            stream.each_in_flight(revision, |serving, in_flight| {
                let load = loads.entry(serving.to_owned()).or_default();
                load.in_flight = load.in_flight.saturating_add(in_flight);
            });
        }
        loads
    }

    /// The load of every revision: source node -> serving node.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectName, BTreeMap<String, ByServing>> {
        let of = |(revision, sources): (&ObjectName, &BTreeMap<String, ByServing>)| {
            let loads = sources.keys().map(|source| (source.clone(), self.load_from(revision, source)));
            (revision.clone(), loads.collect())
        };
        self.totals.iter().map(of).collect()
    }
}

fn key(revision: &ObjectName) -> RevisionKey {
    RevisionKey::new(&revision.namespace, &revision.name)
}

fn load_of<'a>(
    totals: &'a mut BTreeMap<ObjectName, BTreeMap<String, ByServing>>,
    revision: &ObjectName,
    source: &str,
    serving: &str,
) -> &'a mut Load {
    let of = totals.entry(revision.clone()).or_default().entry(source.to_owned()).or_default();
    of.entry(serving.to_owned()).or_default()
}

fn add(
    totals: &mut BTreeMap<ObjectName, BTreeMap<String, ByServing>>,
    revision: &ObjectName,
    source: &str,
    serving: &str,
    reported: &ReportedLoad,
    had: u64,
    seconds: f64,
) {
    let total = load_of(totals, revision, source, serving);
    total.arrived = total.arrived.saturating_add(reported.arrived);
    total.finished = total.finished.saturating_add(reported.finished);
    total.failed = total.failed.saturating_add(reported.failed);
    // Between two reports the number in flight is taken to change linearly.
    total.busy_seconds += seconds * (as_f64(had) + as_f64(reported.in_flight)) / 2.0;
}

#[cfg(test)]
pub(super) mod tests;
