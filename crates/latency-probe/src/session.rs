//! The prober without its sockets: who is probed next, what a reply means, which probes are lost, and what is known of each peer. Pure:
//! time comes in as an argument, probes go out as [`Order`]s.

mod counters;
mod probes;
mod second_opinion;
mod settings;

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use self::counters::Counters;
pub use self::probes::{Bounced, NotSent, Order, PeerView, Returned};
use self::second_opinion::SecondOpinion;
pub use self::settings::{Feed, Settings};
use crate::clock::{Mono, Reading, Wall};
use crate::control_message::Verdict;
use crate::histogram::Histogram;
use crate::icmp::Family;
use crate::in_flight::{Fate, InFlight, Probe};
use crate::pair::{PairState, PairStats, Silence, StateLimits, Summary, WindowLimits};
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
    opinion: SecondOpinion,
    turns: u32,
    /// Only where somebody wants buckets of each pair.
    times: Option<Histogram>,
    hops: Option<u8>,
}

/// So many ICMP probes lost in a row, or as many as make the peer silent where those are fewer, are a second opinion.
const ICMP_SILENT_AFTER: u32 = 3;

/// What is kept of a pair, and when it is no longer known, at the present pace.
#[derive(Clone, Copy)]
struct Limits {
    window: WindowLimits,
    states: StateLimits,
    primary: Protocol,
}

impl Entry {
    /// What it means if the primary protocol is silent.
    fn silence(&self, limits: Limits, now: Mono) -> Silence {
        let enough = limits.states.unreachable_after.min(ICMP_SILENT_AFTER);
        let icmp_is_silent = match &self.fallback {
            Some(icmp) => icmp.lost_lately(enough),
            None => limits.primary == Protocol::Icmp,
        };
        if self.opinion.confirms_silence(icmp_is_silent, now, limits.states.stale_after) {
            Silence::Confirmed
        } else {
            Silence::Unexplained
        }
    }

    fn state(&self, limits: Limits, now: Mono) -> PairState {
        self.primary.state(limits.window, limits.states, self.silence(limits, now), now)
    }

    /// What is shown of the peer: what the primary protocol tells, or ICMP in its place while it tells nothing.
    fn summary(&self, limits: Limits, now: Mono) -> (Protocol, Summary) {
        let of = |pair: &PairStats, silence| pair.summary(limits.window, limits.states, silence, now);
        let primary = of(&self.primary, self.silence(limits, now));
        let is_told = matches!(primary.state, PairState::Known | PairState::Unreachable);
        let fallback = self.fallback.as_ref().filter(|_| !is_told);
        let told = fallback.map(|pair| of(pair, Silence::Unexplained)).filter(|summary| summary.rtt.is_some());
        told.map_or((limits.primary, primary), |summary| (Protocol::Icmp, summary))
    }
}

/// How long after its time a lost probe may be noticed, so that many are noticed at one waking.
const NOTICE_SLACK: Duration = Duration::from_millis(50);
/// A prober that wakes later than this after the time it set for itself was stopped.
const ASLEEP_AFTER: Duration = Duration::from_millis(500);
/// After a reply without a stamp, replies are waited for for so long.
const PROMPT_FOR: Duration = Duration::from_secs(60);
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
    unstamped: Option<Mono>,
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
            unstamped: None,
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
                opinion: SecondOpinion::default(),
                turns: 0,
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

    /// Whether whoever went to sleep at `before`, to wake at `planned`, and is awake at `now`, was stopped for so long that what was
    /// in flight tells nothing unless it is already in the socket: kept from the processor, or asleep with the whole machine. In
    /// some kinds of sleep the monotonic clock stands still, and only the wall clock tells.
    #[must_use]
    pub fn was_stopped(planned: Mono, before: Reading, now: Reading) -> bool {
        let wall = Duration::from_nanos(now.wall.as_nanos().saturating_sub(before.wall.as_nanos()));
        now.mono.since(planned) > ASLEEP_AFTER || wall.saturating_sub(now.mono.since(before.mono)) > ASLEEP_AFTER
    }

    /// This program [was stopped](Self::was_stopped). To be called after the replies that lie in the sockets were read, because
    /// their stamps are good.
    pub fn woke_late(&mut self) {
        self.counters.discarded_asleep += self.in_flight.write_off(|_| true);
    }

    /// The kernel dropped replies by this protocol, because they were not read in time. Which ones nobody knows, so that none of
    /// those in flight may be taken for lost. To be called after replies were read.
    pub fn overran(&mut self, protocol: Protocol, dropped: u64) {
        self.counters.overrun += dropped;
        self.in_flight.write_off(|probe| probe.protocol == protocol);
    }

    /// Whether replies come without the kernel's stamps, so that they must be waited for to be timed.
    #[must_use]
    pub fn needs_prompt_reading(&self, now: Mono) -> bool {
        self.unstamped.is_some_and(|at| now.since(at) <= PROMPT_FOR)
    }

    /// The probes whose turn has come, at most `limit` peers' worth, appended to `orders`.
    pub fn due(&mut self, now: Reading, limit: usize, orders: &mut Vec<Order>) {
        for _ in 0..limit {
            let Some(turn) = self.schedule.take(now.mono) else { break };
            let (limits, feed, last_turn) = (self.limits(), self.settings.feed, self.settings.probes_per_peer);
            let icmp = self.icmp;
            let Some(entry) = self.entry(turn.peer) else { continue };
            let has_icmp = icmp[Family::of(entry.peer.address()) as usize];
            let may_ask_icmp = feed == Feed::PreferUdp && has_icmp;
            let is_silent = entry.primary.lost_lately(limits.states.unreachable_after);
            let is_known = entry.state(limits, now.mono) == PairState::Known;
            if is_known {
                entry.fallback = None;
            } else if may_ask_icmp && is_silent {
                entry.fallback.get_or_insert_with(|| Box::new(PairStats::new(limits.window)));
            }
            let asks_icmp = may_ask_icmp && (entry.fallback.is_some() || (is_known && entry.opinion.wants_check()));
            entry.turns = entry.turns.saturating_add(1);
            let is_last = last_turn.is_some_and(|last| entry.turns >= last);
            let is_sent = |protocol: &Protocol| *protocol != Protocol::Icmp || has_icmp;
            let protocols = [Some(limits.primary), asks_icmp.then_some(Protocol::Icmp)];
            let ways = protocols.map(|protocol| protocol.filter(is_sent).map(|protocol| (protocol, entry.peer.target(protocol))));
            for (protocol, to) in ways.into_iter().flatten() {
                let probe = Probe { peer: turn.peer, protocol, sent: now, sent_stamp: None, fate: Fate::Out };
                orders.push(Order { sequence: self.in_flight.push(probe), protocol, to });
                self.counters.sent[protocol as usize] += 1;
            }
            self.counters.lateness.observe(now.mono.since(turn.due).as_secs_f64());
            if !is_last {
                self.schedule.again(turn, now.mono, &mut self.rng);
            }
        }
    }

    /// Whether there are peers, every one had all of its probes, and none may still come back.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.by_node.is_empty() && self.schedule.next().is_none() && self.in_flight.out() == 0
    }

    const fn limits(&self) -> Limits {
        Limits { window: self.window, states: self.states, primary: self.settings.feed.primary() }
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

    /// The probe did not go out, or its connection did not come about.
    pub fn not_sent(&mut self, sequence: Sequence, why: NotSent, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, Fate::WrittenOff) else { return };
        match why {
            NotSent::OurFault => self.counters.not_sent += 1,
            NotSent::NoRoute => self.bounced_probe(&probe, Verdict::NoRoute, now),
            NotSent::Refused => self.bounced_probe(&probe, Verdict::NobodyListens, now),
            NotSent::Failed => self.lost(&probe, now),
        }
    }

    fn lost(&mut self, probe: &Probe, now: Mono) {
        self.counters.lost[probe.protocol as usize] += 1;
        let limits = self.limits();
        if let Some(pair) = self.pair(probe) {
            pair.lost(limits.window, now);
        }
        if probe.protocol == Protocol::Icmp
            && let Some(entry) = self.entry(probe.peer).filter(|entry| entry.state(limits, now) == PairState::Known)
        {
            entry.opinion.icmp_blocked();
        }
    }

    /// The probe is lost, and what the network says about its node is kept.
    fn bounced_probe(&mut self, probe: &Probe, verdict: Verdict, now: Mono) {
        self.lost(probe, now);
        if let Some(entry) = self.entry(probe.peer) {
            note_verdict(entry, verdict, now);
        }
        self.count_verdict(verdict);
    }

    const fn count_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::NobodyListens => self.counters.refused += 1,
            Verdict::NoRoute => self.counters.no_route += 1,
            Verdict::Unclear => {}
        }
    }

    /// The network said, at `read`, that a UDP probe did not arrive. From a node where nobody listens that is an answer of its
    /// kernel, as good as one by ICMP echo, and shown in its place.
    pub fn bounced(&mut self, bounced: &Bounced, read: Reading, prompt: bool) {
        let Some((session, sequence)) = bounced.probe else {
            // Some routers send back too little of a probe to tell which one it was.
            let mut entries = self.entries.iter_mut().flatten();
            if let Some(entry) = entries.find(|entry| entry.peer.echo == bounced.to) {
                note_verdict(entry, bounced.verdict, read.mono);
            }
            self.count_verdict(bounced.verdict);
            return;
        };
        let is_ours = session == self.id;
        let Some(&mut probe) = self.in_flight.get_mut(sequence).filter(|_| is_ours) else { return };
        let to_peer = self.entry(probe.peer).is_some_and(|entry| entry.peer.echo == bounced.to);
        if !to_peer || probe.protocol != Protocol::Udp || self.in_flight.end(sequence, Fate::WrittenOff).is_none() {
            return;
        }
        self.bounced_probe(&probe, bounced.verdict, read.mono);
        let held = Duration::ZERO;
        let trip = Trip { sent: probe.sent, sent_stamp: probe.sent_stamp, received_stamp: bounced.stamp, read, prompt, held };
        let (window, prefers_udp) = (self.window, self.settings.feed == Feed::PreferUdp);
        if bounced.verdict == Verdict::NobodyListens
            && prefers_udp
            && let Ok(rtt) = round_trip(&trip)
            && let Some(entry) = self.entry(probe.peer)
        {
            let fallback = entry.fallback.get_or_insert_with(|| Box::new(PairStats::new(window)));
            fallback.answered(window, read.mono, rtt);
            entry.hops = hops(bounced.ttl);
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
        if reply.stamp.is_none() && !reply.prompt {
            self.unstamped = Some(read.mono);
        }
        let Returned { stamp: received_stamp, prompt, .. } = *reply;
        let time = reply.held.ok_or(Discard::Impossible).and_then(|held| {
            round_trip(&Trip { sent: probe.sent, sent_stamp: probe.sent_stamp, received_stamp, read, prompt, held })
        });
        self.measured(reply.sequence, time, reply.ttl, read.mono);
    }

    /// The probe with that number came back, and took so long or gave no time. Nothing happens where it is out no longer.
    pub fn measured(&mut self, sequence: Sequence, time: Result<Rtt, Discard>, ttl: Option<u8>, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, Fate::Answered) else { return };
        self.counters.answered(probe.protocol, time.map(Rtt::as_seconds));
        let limits = self.limits();
        if let Some(entry) = self.entry(probe.peer) {
            match probe.protocol {
                Protocol::Icmp => entry.opinion.icmp_answered(now),
                _ => entry.opinion.seen_alive(now),
            }
        }
        let Some(pair) = self.pair(&probe) else { return };
        let reordered = pair.replied(sequence);
        if let Ok(rtt) = time {
            pair.answered(limits.window, now, rtt);
        }
        self.counters.reordered += u64::from(reordered);
        if let Some((entry, rtt)) = self.entry(probe.peer).zip(time.ok()) {
            let is_shown = probe.protocol == limits.primary || entry.state(limits, now) != PairState::Known;
            if let Some(times) = entry.times.as_mut().filter(|_| is_shown) {
                times.observe(rtt.as_seconds());
            }
            entry.hops = hops(ttl);
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
        let limits = self.limits();
        self.by_node.values().filter_map(|slot| self.entries.get(*slot as usize)?.as_ref()).map(move |entry| {
            let (protocol, summary) = entry.summary(limits, now);
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

/// Routers on the way back, by the time to live that an answer had left.
fn hops(ttl: Option<u8>) -> Option<u8> {
    ttl.and_then(|ttl| INITIAL_TTL.checked_sub(ttl))
}

const fn note_verdict(entry: &mut Entry, verdict: Verdict, now: Mono) {
    match verdict {
        Verdict::NobodyListens => entry.opinion.seen_alive(now),
        Verdict::NoRoute => entry.opinion.found_no_route(now),
        Verdict::Unclear => {}
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("own", &self.own).field("peers", &self.by_node.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
