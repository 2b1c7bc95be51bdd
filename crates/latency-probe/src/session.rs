//! The prober without its sockets: who is probed next, what a reply means, which probes are lost, and what is known of each peer. Pure:
//! time comes in as an argument, probes go out as [`Order`]s.

mod counters;
mod probes;
mod settings;

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use self::counters::Counters;
pub use self::probes::{NotSent, Order, PeerView, Returned};
pub use self::settings::{Feed, Settings};
use crate::clock::{Mono, Reading, Wall};
use crate::histogram::Histogram;
use crate::icmp::Family;
use crate::in_flight::{Fate, InFlight, Probe};
use crate::pair::{PairState, PairStats, StateLimits, WindowLimits};
use crate::peers::{NodeName, Peer, PeerSet, Protocol};
use crate::round_trip::{Discard, Rtt, Trip, round_trip};
use crate::row::{PeerRow, Row};
use crate::schedule::{PeerKey, Schedule};
use crate::wire::{Sequence, SessionId};

struct Entry {
    node: NodeName,
    peer: Peer,
    generation: u32,
    primary: PairStats,
    fallback: Option<Box<PairStats>>,
    /// Only where somebody wants buckets of each pair.
    times: Option<Histogram>,
    hops: Option<u8>,
}

/// How long after its time a lost probe may be noticed, so that many are noticed at one waking.
const NOTICE_SLACK: Duration = Duration::from_millis(50);
/// Whoever wakes later than this after the time it set for itself was asleep, machine and all: what was out meanwhile tells nothing.
const ASLEEP_AFTER: Duration = Duration::from_millis(500);
/// The time to live that packets of ours, and echo replies of Linux, begin with.
pub const INITIAL_TTL: u8 = 64;

/// One life of a prober.
pub struct Session {
    settings: Settings,
    /// The settings' window, limits and interval at the present pace.
    window: WindowLimits,
    states: StateLimits,
    interval: Duration,
    own: NodeName,
    id: SessionId,
    rng: SmallRng,
    entries: Vec<Option<Entry>>,
    generation: u32,
    by_node: BTreeMap<NodeName, u32>,
    schedule: Schedule,
    in_flight: InFlight,
    icmp: [bool; 2],
    counters: Counters,
}

impl Session {
    /// A prober on node `own`. `seed` should be random: it also makes the session's number.
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
            in_flight: InFlight::default(),
            icmp: [false; 2],
            counters: Counters::default(),
        }
    }

    /// The number in this life's probes.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The node probed from.
    #[must_use]
    pub const fn own(&self) -> &NodeName {
        &self.own
    }

    /// How it probes.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Time between two probes of a peer at the present pace.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// From now on probes are so many times as far apart as the settings say. What is kept, and what counts as old, stretches with that.
    pub fn set_stretch(&mut self, times: f64) {
        let Settings { window, states, interval, .. } = self.settings;
        self.interval = interval.mul_f64(times);
        self.schedule.set_interval(self.interval);
        self.window = WindowLimits { span: window.span.mul_f64(times), ..window };
        self.states = StateLimits { stale_after: states.stale_after.mul_f64(times), ..states };
    }

    /// What it counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it counted, to count what only the sockets know.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// From now on, peers of this family can be probed by ICMP.
    pub const fn icmp_works(&mut self, family: Family) {
        self.icmp[family as usize] = true;
    }

    /// Whether peers of this family can be probed by ICMP.
    #[must_use]
    pub const fn has_icmp(&self, family: Family) -> bool {
        self.icmp[family as usize]
    }

    /// From now on these are the peers. Who is no longer among them is forgotten at once; whose address changed begins anew, because
    /// what was measured was another way. The own node is never a peer.
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
            self.entries[slot as usize] = Some(Entry {
                node: node.clone(),
                peer: peer.clone(),
                generation: self.generation,
                primary: PairStats::new(self.window),
                fallback: None,
                times: self.settings.pair_bounds.clone().map(Histogram::new),
                hops: None,
            });
            self.schedule.join(PeerKey { slot, generation: self.generation }, now, &mut self.rng);
        }
    }

    fn entry(&mut self, peer: PeerKey) -> Option<&mut Entry> {
        self.entries.get_mut(peer.slot as usize)?.as_mut().filter(|entry| entry.generation == peer.generation)
    }

    /// Where the outcome of a probe is kept, while its peer is one and its protocol is asked.
    fn pair(&mut self, probe: &Probe) -> Option<&mut PairStats> {
        let is_primary = probe.protocol == self.settings.feed.primary();
        let entry = self.entry(probe.peer)?;
        if is_primary { Some(&mut entry.primary) } else { entry.fallback.as_deref_mut() }
    }

    /// When there is something to do next, replies aside.
    #[must_use]
    pub fn wake(&self) -> Option<Mono> {
        let timeout = self.in_flight.next_timeout(self.settings.timeout + NOTICE_SLACK);
        [self.schedule.next(), timeout].into_iter().flatten().min()
    }

    /// The waking that was set for `planned` happened at `now`. To be called before replies are read.
    pub fn woke(&mut self, planned: Mono, now: Mono) {
        if now.since(planned) > ASLEEP_AFTER {
            self.counters.discarded_asleep += self.in_flight.write_off_all();
        }
    }

    /// The probes whose turn has come, at most `limit` peers' worth, appended to `orders`.
    pub fn due(&mut self, now: Reading, limit: usize, orders: &mut Vec<Order>) {
        for _ in 0..limit {
            let Some(turn) = self.schedule.take(now.mono) else { break };
            let (feed, window, states) = (self.settings.feed, self.window, self.states);
            let icmp = self.icmp;
            let Some(entry) = self.entry(turn.peer) else { continue };
            let has_icmp = icmp[Family::of(entry.peer.address()) as usize];
            match entry.primary.state(window, states, now.mono) {
                PairState::Unreachable if feed == Feed::PreferUdp && has_icmp && entry.fallback.is_none() => {
                    entry.fallback = Some(Box::new(PairStats::new(window)));
                }
                PairState::Known => entry.fallback = None,
                _ => {}
            }
            let protocols = [Some(feed.primary()), entry.fallback.as_ref().map(|_| Protocol::Icmp)];
            let ways = protocols.map(|protocol| protocol.map(|protocol| (protocol, entry.peer.target(protocol))));
            for (protocol, to) in ways.into_iter().flatten().filter(|(protocol, _)| *protocol != Protocol::Icmp || has_icmp) {
                let probe = Probe { peer: turn.peer, protocol, sent: now, sent_stamp: None, fate: Fate::Out };
                orders.push(Order { sequence: self.in_flight.push(probe), protocol, to });
                self.counters.sent[protocol as usize] += 1;
            }
            self.counters.lateness.observe(now.mono.since(turn.due).as_secs_f64());
            self.schedule.again(turn, now.mono, &mut self.rng);
        }
    }

    /// The probe is about to be handed to the kernel.
    pub fn sent(&mut self, sequence: Sequence, at: Reading) {
        if let Some(probe) = self.in_flight.get_mut(sequence) {
            probe.sent = at;
        }
    }

    /// The kernel passed the probe to the device at `stamp`.
    pub fn sent_stamp(&mut self, sequence: Sequence, stamp: Wall) {
        if let Some(probe) = self.in_flight.get_mut(sequence) {
            probe.sent_stamp = Some(stamp);
        }
    }

    /// The probe did not go out.
    pub fn not_sent(&mut self, sequence: Sequence, why: NotSent, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, Fate::WrittenOff) else { return };
        match why {
            NotSent::OurFault => self.counters.not_sent += 1,
            NotSent::NoWay => self.lost(&probe, now),
        }
    }

    fn lost(&mut self, probe: &Probe, now: Mono) {
        self.counters.lost[probe.protocol as usize] += 1;
        let window = self.window;
        if let Some(pair) = self.pair(probe) {
            pair.lost(window, now);
        }
    }

    /// A reply came in, and was read at `read`. Anything may be in it: it counts only if it fits a probe that is out.
    pub fn returned(&mut self, reply: &Returned, read: Reading) {
        if reply.session != self.id {
            // Ours, but to an earlier life of this prober, or to another prober on this machine (a raw socket sees those too).
            self.counters.foreign += 1;
            return;
        }
        let Some(&mut probe) = self.in_flight.get_mut(reply.sequence) else {
            if self.in_flight.is_past(reply.sequence) {
                self.counters.late += 1;
            } else {
                self.counters.rejected += 1;
            }
            return;
        };
        let Some(entry) = self.entry(probe.peer) else { return };
        let from_peer = match reply.protocol {
            Protocol::Udp => reply.from == entry.peer.echo,
            Protocol::Icmp => reply.from.ip() == entry.peer.address(),
            // Their outcomes come by `measured`, never in a packet.
            Protocol::Tcp | Protocol::Http => false,
        };
        if probe.protocol != reply.protocol || !from_peer {
            self.counters.rejected += 1;
            return;
        }
        match probe.fate {
            Fate::Out => {}
            Fate::Answered => {
                self.counters.duplicate += 1;
                if let Some(pair) = self.pair(&probe) {
                    pair.replied_again();
                }
                return;
            }
            Fate::WrittenOff => {
                self.counters.late += 1;
                return;
            }
        }
        let trip = Trip { sent: probe.sent, sent_stamp: probe.sent_stamp, received_stamp: reply.stamp, read, held: reply.held };
        self.measured(reply.sequence, round_trip(&trip), reply.ttl, read.mono);
    }

    /// The probe with that number came back, and took so long or gave no time. Nothing happens where it is out no longer.
    pub fn measured(&mut self, sequence: Sequence, time: Result<Rtt, Discard>, ttl: Option<u8>, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, Fate::Answered) else { return };
        self.counters.answered(probe.protocol, time.map(Rtt::as_seconds));
        let (primary, window, states) = (self.settings.feed.primary(), self.window, self.states);
        let Some(pair) = self.pair(&probe) else { return };
        let reordered = pair.replied(sequence);
        if let Ok(rtt) = time {
            pair.answered(window, now, rtt);
        }
        self.counters.reordered += u64::from(reordered);
        if let Some((entry, rtt)) = self.entry(probe.peer).zip(time.ok()) {
            let is_shown = probe.protocol == primary || entry.primary.state(window, states, now) != PairState::Known;
            if let Some(times) = entry.times.as_mut().filter(|_| is_shown) {
                times.observe(rtt.as_seconds());
            }
            entry.hops = ttl.and_then(|ttl| INITIAL_TTL.checked_sub(ttl));
        }
    }

    /// Gives up the probes that have been out for too long. To be called after replies were read.
    pub fn give_up(&mut self, now: Mono) {
        while let Some(probe) = self.in_flight.pop_over(now, self.settings.timeout) {
            if probe.fate == Fate::Out {
                self.lost(&probe, now);
            }
        }
    }

    /// How many probes are kept, out or lately ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether a reply may come to any probe.
    #[must_use]
    pub const fn awaits_replies(&self) -> bool {
        self.in_flight.out() > 0
    }

    /// The peers as they stand now, in order of name.
    pub fn peers(&self, now: Mono) -> impl Iterator<Item = PeerView<'_>> {
        let (window, states, feed) = (self.window, self.states, self.settings.feed);
        self.by_node.values().filter_map(|slot| self.entries.get(*slot as usize)?.as_ref()).map(move |entry| {
            let primary = entry.primary.summary(window, states, now);
            let fallback = entry.fallback.as_ref().filter(|_| primary.state != PairState::Known);
            let told = fallback.map(|pair| pair.summary(window, states, now)).filter(|summary| summary.rtt.is_some());
            let (protocol, summary) = told.map_or((feed.primary(), primary), |summary| (Protocol::Icmp, summary));
            PeerView { node: &entry.node, protocol, summary, times: entry.times.as_ref(), hops: entry.hops }
        })
    }

    /// The times of a peer that are kept, oldest first.
    pub fn times(&self, node: &NodeName) -> impl Iterator<Item = Rtt> {
        let entry = self.by_node.get(node).and_then(|slot| self.entries.get(*slot as usize)?.as_ref());
        entry.into_iter().flat_map(|entry| entry.primary.times())
    }

    /// The row of the matrix as it stands now.
    #[must_use]
    pub fn row(&self, now: Reading) -> Row {
        let peers = self.peers(now.mono).map(|peer| PeerRow::new(peer.node.clone(), peer.protocol, &peer.summary, peer.hops));
        Row::new(self.own.clone(), now.wall, peers.collect())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("own", &self.own).field("peers", &self.by_node.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
