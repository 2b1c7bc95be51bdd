//! The prober without its sockets: when each peer is probed, what a reply means, which probes are
//! lost, and the state of each peer. Pure: time is an argument, and probes leave as
//! [`ProbeOrder`]s.

mod counters;
mod entry;
pub(crate) mod histogram;
pub(crate) mod in_flight;
mod outcomes;
pub(crate) mod pace;
pub(crate) mod pair;
pub(crate) mod path;
mod probes;
pub(crate) mod round_trip;
pub(crate) mod schedule;
mod second_opinion;
mod settings;
mod shared;
pub(crate) mod summary;

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use latency_matrix::{NodeName, Protocol};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use self::counters::Counters;
use self::entry::{PeerEntry, StretchedLimits};
pub use self::histogram::{BoundsError, BucketBounds, Histogram};
use self::in_flight::{Probe, ProbeFate, ProbesInFlight};
pub use self::pair::{PairWindow, PeerSilence, StateLimits, WindowLimits};
pub(crate) use self::path::INITIAL_TTL;
pub use self::path::{Path, ProbeFlow};
pub use self::probes::{IcmpError, NotSent, PeerView, ProbeOrder, ReceivedReply};
pub use self::round_trip::{Discard, RttSample};
use self::schedule::{PeerKey, Schedule};
use self::second_opinion::SecondOpinion;
pub use self::settings::{Method, Settings};
pub use self::shared::SharedSession;
pub use self::summary::{LossSummary, RttSummary, Summary, loss, percentile};
use crate::clock::{ClockReading, Mono, Wall};
use crate::peers::PeerSet;
use crate::protocol::icmp::Family;
use crate::protocol::wire::{Sequence, SessionId};

/// Losses are noticed up to this much late, so that one waking notices many.
const NOTICE_SLACK: Duration = Duration::from_millis(50);
/// A prober that wakes this much after the planned time was stopped.
const ASLEEP_AFTER: Duration = Duration::from_millis(500);
/// How long after a reply without a kernel timestamp the prober waits for replies.
const PROMPT_FOR: Duration = Duration::from_secs(60);

/// The state of a prober from its start to its end.
pub struct Session {
    settings: Settings,
    /// Window, limits and interval at the present stretch.
    window: WindowLimits,
    states: StateLimits,
    interval: Duration,
    own: NodeName,
    id: SessionId,
    rng: SmallRng,
    entries: Vec<Option<PeerEntry>>,
    generation: u32,
    by_node: BTreeMap<NodeName, u32>,
    schedule: Schedule,
    in_flight: ProbesInFlight,
    icmp: [bool; 2],
    unstamped: Option<Mono>,
    counters: Counters,
}

impl Session {
    /// A session of node `own`. `seed` should be random; the session's number is drawn from it.
    #[must_use]
    pub fn new(own: NodeName, settings: Settings, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            schedule: Schedule::new(settings.interval),
            window: settings.window,
            states: settings.states,
            interval: settings.interval,
            settings,
            own,
            id: SessionId(rand::Rng::next_u64(&mut rng)),
            rng,
            entries: Vec::new(),
            generation: 0,
            by_node: BTreeMap::new(),
            in_flight: ProbesInFlight::default(),
            icmp: [false; 2],
            unstamped: None,
            counters: Counters::default(),
        }
    }

    /// The random number in this session's probes.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The node of this prober.
    #[must_use]
    pub const fn own(&self) -> &NodeName {
        &self.own
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Time between two probes of a peer, at the present stretch.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Multiplies the interval of the settings by `times`, and with it the window and the age at
    /// which pairs are stale.
    pub fn set_stretch(&mut self, times: f64) {
        let Settings { window, states, interval, .. } = self.settings;
        self.interval = interval.mul_f64(times);
        self.schedule.set_interval(self.interval);
        self.window = WindowLimits { span: window.span.mul_f64(times), ..window };
        self.states = StateLimits { stale_after: states.stale_after.mul_f64(times), ..states };
    }

    /// Counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counters, for the sockets to add what only they see.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Peers of this family can be probed by ICMP from now on.
    pub const fn enable_icmp(&mut self, family: Family) {
        self.icmp[family as usize] = true;
    }

    /// Whether peers of this family can be probed by ICMP.
    #[must_use]
    pub const fn has_icmp(&self, family: Family) -> bool {
        self.icmp[family as usize]
    }

    /// Replaces the set of peers. A peer that is gone is forgotten at once; a peer whose address
    /// changed starts without history, because its path is another. This node is never a peer.
    pub fn set_peers(&mut self, peers: &PeerSet, now: Mono) {
        let gone: Vec<NodeName> = self
            .by_node
            .iter()
            .filter(|(node, slot)| {
                let entry = self.entries.get(**slot as usize).and_then(Option::as_ref);
                entry.is_none_or(|entry| peers.get(*node).is_none_or(|peer| !entry.peer.is_where(peer)))
            })
            .map(|(node, _)| node.clone())
            .collect();
        for node in gone {
            if let Some(slot) = self.by_node.remove(&node) {
                self.entries[slot as usize] = None;
            }
        }
        let mut free = (0_u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.is_none())
            .map(|(slot, _)| slot)
            .collect::<Vec<_>>()
            .into_iter();
        for (node, peer) in peers.iter().filter(|(node, _)| **node != self.own) {
            let btree_map::Entry::Vacant(vacant) = self.by_node.entry(node.clone()) else { continue };
            let slot = free.next().unwrap_or_else(|| {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            });
            vacant.insert(slot);
            self.generation = self.generation.wrapping_add(1);
            self.entries[slot as usize] = Some(PeerEntry {
                node: node.clone(),
                peer: peer.clone(),
                generation: self.generation,
                primary: PairWindow::new(self.window),
                fallback: None,
                opinion: SecondOpinion::default(),
                turns: 0,
                times: self.settings.pair_bounds.clone().map(Histogram::new),
                path: Path::new(self.settings.flows),
            });
            self.schedule.join(PeerKey { slot, generation: self.generation }, now, &mut self.rng);
        }
    }

    fn entry(&mut self, peer: PeerKey) -> Option<&mut PeerEntry> {
        self.entries.get_mut(peer.slot as usize)?.as_mut().filter(|entry| entry.generation == peer.generation)
    }

    /// The statistics that a probe's outcome belongs to, if its peer is still one.
    fn pair(&mut self, probe: &Probe) -> Option<&mut PairWindow> {
        let primary = self.settings.method.primary();
        let entry = self.entry(probe.peer)?;
        match probe.protocol {
            protocol if protocol == primary => Some(&mut entry.primary),
            Protocol::Icmp => entry.fallback.as_mut().map(|fallback| &mut fallback.icmp),
            Protocol::Tcp => entry.fallback.as_mut().map(|fallback| &mut fallback.tcp),
            Protocol::Udp | Protocol::Http => None,
        }
    }

    /// Time of the next turn or timeout.
    #[must_use]
    pub fn wake(&self) -> Option<Mono> {
        let timeout = self.in_flight.next_timeout(self.settings.timeout + NOTICE_SLACK);
        [self.schedule.next(), timeout].into_iter().flatten().min()
    }

    /// Whether a prober that slept from `before`, planned to wake at `planned`, and woke at `now`,
    /// was stopped for so long that probes in flight without a reply in the socket are neither
    /// latency nor loss: starved of the processor, or suspended with the machine. Some kinds of
    /// suspension stop the monotonic clock, so the wall clock is compared too.
    #[must_use]
    pub fn was_stopped(planned: Mono, before: ClockReading, now: ClockReading) -> bool {
        let wall = Duration::from_nanos(now.wall.as_nanos().saturating_sub(before.wall.as_nanos()));
        now.mono.since(planned) > ASLEEP_AFTER || wall.saturating_sub(now.mono.since(before.mono)) > ASLEEP_AFTER
    }

    /// Writes off what is in flight after the program [was stopped](Self::was_stopped). Call it
    /// after reading the replies in the sockets, whose timestamps are good.
    pub fn write_off_in_flight(&mut self) {
        self.counters.discarded_asleep += self.in_flight.write_off(|_| true);
    }

    /// Writes off the probes in flight by `protocol` after the kernel dropped replies because the
    /// socket was full: it is not known which ones. Call it after reading replies.
    pub fn note_overrun(&mut self, protocol: Protocol, dropped: u64) {
        self.counters.overrun += dropped;
        self.in_flight.write_off(|probe| probe.protocol == protocol);
    }

    /// Whether kernel timestamps are missing, so that replies must be read as they arrive.
    #[must_use]
    pub fn needs_prompt_reading(&self, now: Mono) -> bool {
        self.unstamped.is_some_and(|at| now.since(at) <= PROMPT_FOR)
    }

    /// Appends the probes that are due to `orders`, for at most `limit` peers.
    pub fn take_due(&mut self, now: ClockReading, limit: usize, orders: &mut Vec<ProbeOrder>) {
        for _ in 0..limit {
            let Some(turn) = self.schedule.take(now.mono) else { break };
            let (limits, last_turn, flows) = (self.limits(), self.settings.probes_per_peer, u32::from(self.settings.flows));
            let (icmp, prefers_udp) = (self.icmp, self.settings.method == Method::PreferUdp);
            let Some(entry) = self.entry(turn.peer) else { continue };
            let has_icmp = icmp[Family::of(entry.peer.address()) as usize];
            let protocols = [
                Some(limits.primary).filter(|protocol| *protocol != Protocol::Icmp || has_icmp),
                (prefers_udp && entry.asks_icmp(limits, now.mono) && has_icmp).then_some(Protocol::Icmp),
                (prefers_udp && entry.asks_tcp(limits, now.mono)).then_some(Protocol::Tcp),
            ];
            let flow = u8::try_from(entry.turns % flows.max(1)).unwrap_or(0);
            entry.turns = entry.turns.wrapping_add(1);
            let is_last = last_turn.is_some_and(|last| entry.turns >= last);
            let ways = protocols.map(|protocol| protocol.map(|protocol| (protocol, entry.peer.target(protocol))));
            for (protocol, to) in ways.into_iter().flatten() {
                let probe = Probe { peer: turn.peer, protocol, flow, sent: now, sent_stamp: None, fate: ProbeFate::Out };
                orders.push(ProbeOrder { sequence: self.in_flight.push(probe), protocol, to, flow });
                self.counters.sent[protocol as usize] += 1;
            }
            self.counters.lateness.observe(now.mono.since(turn.due).as_secs_f64());
            if !is_last {
                self.schedule.again(turn, now.mono, &mut self.rng);
            }
        }
    }

    /// Whether there are peers, each had all of its probes, and none is in flight.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.by_node.is_empty() && self.schedule.next().is_none() && self.in_flight.out() == 0
    }

    const fn limits(&self) -> StretchedLimits {
        StretchedLimits { window: self.window, states: self.states, primary: self.settings.method.primary() }
    }

    /// Records the time just before the probe is handed to the kernel.
    pub fn mark_sent(&mut self, sequence: Sequence, at: ClockReading) {
        if let Some(probe) = self.in_flight.get_mut(sequence) {
            probe.sent = at;
        }
    }

    /// Records the kernel's timestamp of the probe's departure.
    pub fn mark_departed(&mut self, sequence: Sequence, stamp: Wall) {
        if let Some(probe) = self.in_flight.get_mut(sequence) {
            probe.sent_stamp = Some(stamp);
        }
    }

    /// Number of probes that are kept: in flight or recently ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether any probe is in flight.
    #[must_use]
    pub const fn awaits_replies(&self) -> bool {
        self.in_flight.out() > 0
    }

    /// The peers at `now`, in order of name.
    pub fn peers(&self, now: Mono) -> impl Iterator<Item = PeerView<'_>> {
        let limits = self.limits();
        self.by_node.values().filter_map(|slot| self.entries.get(*slot as usize)?.as_ref()).map(move |entry| {
            let (protocol, summary) = entry.summary(limits, now);
            PeerView { node: &entry.node, protocol, summary, times: entry.times.as_ref(), path: &entry.path }
        })
    }

    /// The kept RTTs of a peer, oldest first.
    pub fn times(&self, node: &NodeName) -> impl Iterator<Item = RttSample> {
        let entry = self.by_node.get(node).and_then(|slot| self.entries.get(*slot as usize)?.as_ref());
        entry.into_iter().flat_map(|entry| entry.primary.times())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("own", &self.own).field("peers", &self.by_node.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
