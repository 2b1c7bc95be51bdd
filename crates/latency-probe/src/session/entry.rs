//! What is kept of one peer, and what is said of it. Pure.

use super::histogram::Histogram;
use super::pair::{PairState, PairStats, Silence, StateLimits, Summary, WindowLimits};
use super::path::Path;
use super::second_opinion::SecondOpinion;
use crate::clock::Mono;
use crate::peers::{NodeName, Peer, Protocol};
use crate::protocol::control_message::Verdict;

/// One peer.
pub(super) struct Entry {
    pub(super) node: NodeName,
    pub(super) peer: Peer,
    pub(super) generation: u32,
    pub(super) primary: PairStats,
    pub(super) fallback: Option<Box<Fallback>>,
    pub(super) opinion: SecondOpinion,
    pub(super) turns: u32,
    /// Only where somebody wants buckets of each pair.
    pub(super) times: Option<Histogram>,
    pub(super) path: Path,
}

/// So many ICMP probes lost in a row, or as many as make the peer silent where those are fewer, are a second opinion.
const ICMP_SILENT_AFTER: u32 = 3;

/// What is kept of a pair, and when it is no longer known, at the present pace.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) window: WindowLimits,
    pub(super) states: StateLimits,
    pub(super) primary: Protocol,
}

/// What tells of a peer whose responder is silent.
#[derive(Debug)]
pub(super) struct Fallback {
    /// ICMP echo, and the answers of a kernel that nobody listens.
    pub(super) icmp: PairStats,
    /// TCP handshakes, tried while ICMP tells nothing: a firewall may let only these through.
    pub(super) tcp: PairStats,
}

impl Fallback {
    pub(super) fn new(window: WindowLimits) -> Box<Self> {
        Box::new(Self { icmp: PairStats::new(window), tcp: PairStats::new(window) })
    }
}

impl Entry {
    /// What it means if the primary protocol is silent.
    fn silence(&self, limits: Limits, now: Mono) -> Silence {
        let enough = limits.states.unreachable_after.min(ICMP_SILENT_AFTER);
        let icmp_is_silent = match &self.fallback {
            Some(fallback) => fallback.icmp.lost_lately(enough),
            None => limits.primary == Protocol::Icmp,
        };
        if self.opinion.confirms_silence(icmp_is_silent, now, limits.states.stale_after) {
            Silence::Confirmed
        } else {
            Silence::Unexplained
        }
    }

    pub(super) fn state(&self, limits: Limits, now: Mono) -> PairState {
        self.primary.state(limits.window, limits.states, self.silence(limits, now), now)
    }

    /// What is shown of the peer: what the primary protocol tells, or ICMP, or TCP, in its place while it tells nothing.
    pub(super) fn summary(&self, limits: Limits, now: Mono) -> (Protocol, Summary) {
        let of = |pair: &PairStats, silence| pair.summary(limits.window, limits.states, silence, now);
        let primary = of(&self.primary, self.silence(limits, now));
        let is_told = matches!(primary.state, PairState::Known | PairState::Unreachable);
        let Some(fallback) = self.fallback.as_ref().filter(|_| !is_told) else { return (limits.primary, primary) };
        let others = [(Protocol::Icmp, &fallback.icmp), (Protocol::Tcp, &fallback.tcp)];
        let others = others.map(|(protocol, pair)| (protocol, of(pair, Silence::Unexplained)));
        let told = |state| others.into_iter().find(|(_, summary)| summary.state == state);
        told(PairState::Known).or_else(|| told(PairState::Stale)).unwrap_or((limits.primary, primary))
    }

    /// Whether ICMP is asked in this turn: in place of a silent responder, or to find out whether it gets through.
    pub(super) fn asks_icmp(&mut self, limits: Limits, now: Mono) -> bool {
        if self.state(limits, now) == PairState::Known {
            self.fallback = None;
            return self.opinion.wants_check();
        }
        if self.primary.lost_lately(limits.states.unreachable_after) {
            self.fallback.get_or_insert_with(|| Fallback::new(limits.window));
        }
        self.fallback.is_some()
    }

    /// Whether a TCP handshake is tried in this turn: while the responder is silent and ICMP tells nothing.
    pub(super) fn asks_tcp(&self, limits: Limits, now: Mono) -> bool {
        let is_known = |pair: &PairStats| {
            let silent = pair.lost_lately(limits.states.unreachable_after.min(ICMP_SILENT_AFTER));
            !silent && pair.state(limits.window, limits.states, Silence::Unexplained, now) == PairState::Known
        };
        let is_silent = self.primary.lost_lately(limits.states.unreachable_after);
        is_silent && self.fallback.as_ref().is_some_and(|fallback| !is_known(&fallback.icmp))
    }

    /// What the network said about the node is kept as a second opinion.
    pub(super) const fn note_verdict(&mut self, verdict: Verdict, now: Mono) {
        match verdict {
            Verdict::NobodyListens => self.opinion.seen_alive(now),
            Verdict::NoRoute => self.opinion.found_no_route(now),
            Verdict::Unclear => {}
        }
    }
}
