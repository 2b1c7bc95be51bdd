//! The state of one peer. Pure.

use latency_matrix::{NodeName, Protocol, StateKind};

use super::histogram::Histogram;
use super::pair::{PairWindow, PeerSilence, StateLimits, Summary, WindowLimits};
use super::path::Path;
use super::second_opinion::SecondOpinion;
use crate::clock::Mono;
use crate::peers::Peer;
use crate::protocol::control_message::IcmpReachability;

/// One peer.
pub(super) struct PeerEntry {
    pub(super) node: NodeName,
    pub(super) peer: Peer,
    pub(super) generation: u32,
    pub(super) primary: PairWindow,
    pub(super) fallback: Option<Box<Fallback>>,
    pub(super) opinion: SecondOpinion,
    pub(super) turns: u32,
    /// Only with `--pair-buckets`.
    pub(super) times: Option<Histogram>,
    pub(super) path: Path,
}

/// ICMP probes lost in a row that make a second opinion; fewer if fewer make the peer silent.
const ICMP_SILENT_AFTER: u32 = 3;

/// Window and limits at the present stretch.
#[derive(Clone, Copy)]
pub(super) struct StretchedLimits {
    pub(super) window: WindowLimits,
    pub(super) states: StateLimits,
    pub(super) primary: Protocol,
}

/// Other ways to reach a peer whose responder is silent.
#[derive(Debug)]
pub(super) struct Fallback {
    /// ICMP echo replies, and "port unreachable" in answer to UDP probes.
    pub(super) icmp: PairWindow,
    /// TCP handshakes, tried while ICMP does not answer: a firewall may pass only these.
    pub(super) tcp: PairWindow,
}

impl Fallback {
    pub(super) fn new(window: WindowLimits) -> Box<Self> {
        Box::new(Self { icmp: PairWindow::new(window), tcp: PairWindow::new(window) })
    }
}

impl PeerEntry {
    /// What the silence of the primary protocol means.
    fn silence(&self, limits: StretchedLimits, now: Mono) -> PeerSilence {
        let enough = limits.states.unreachable_after.min(ICMP_SILENT_AFTER);
        let icmp_is_silent = match &self.fallback {
            Some(fallback) => fallback.icmp.lost_lately(enough),
            None => limits.primary == Protocol::Icmp,
        };
        if self.opinion.confirms_silence(icmp_is_silent, now, limits.states.stale_after) {
            PeerSilence::Confirmed
        } else {
            PeerSilence::Unexplained
        }
    }

    pub(super) fn state(&self, limits: StretchedLimits, now: Mono) -> StateKind {
        self.primary.state(limits.window, limits.states, self.silence(limits, now), now)
    }

    /// The summary to report, and its protocol: the primary one's, or ICMP's or TCP's while that is
    /// silent.
    pub(super) fn summary(&self, limits: StretchedLimits, now: Mono) -> (Protocol, Summary) {
        let of = |pair: &PairWindow, silence| pair.summary(limits.window, limits.states, silence, now);
        let primary = of(&self.primary, self.silence(limits, now));
        let is_told = matches!(primary.state, StateKind::Known | StateKind::Unreachable);
        let Some(fallback) = self.fallback.as_ref().filter(|_| !is_told) else { return (limits.primary, primary) };
        let others = [(Protocol::Icmp, &fallback.icmp), (Protocol::Tcp, &fallback.tcp)];
        let others = others.map(|(protocol, pair)| (protocol, of(pair, PeerSilence::Unexplained)));
        let told = |state| others.into_iter().find(|(_, summary)| summary.state == state);
        told(StateKind::Known).or_else(|| told(StateKind::Stale)).unwrap_or((limits.primary, primary))
    }

    /// Whether to send an ICMP probe in this turn: as fallback, or to check whether ICMP passes.
    pub(super) fn asks_icmp(&mut self, limits: StretchedLimits, now: Mono) -> bool {
        if self.state(limits, now) == StateKind::Known {
            self.fallback = None;
            return self.opinion.wants_check();
        }
        if self.primary.lost_lately(limits.states.unreachable_after) {
            self.fallback.get_or_insert_with(|| Fallback::new(limits.window));
        }
        self.fallback.is_some()
    }

    /// Whether to try a TCP handshake in this turn: the responder is silent and ICMP does not
    /// answer.
    pub(super) fn asks_tcp(&self, limits: StretchedLimits, now: Mono) -> bool {
        let is_known = |pair: &PairWindow| {
            let silent = pair.lost_lately(limits.states.unreachable_after.min(ICMP_SILENT_AFTER));
            !silent && pair.state(limits.window, limits.states, PeerSilence::Unexplained, now) == StateKind::Known
        };
        let is_silent = self.primary.lost_lately(limits.states.unreachable_after);
        is_silent && self.fallback.as_ref().is_some_and(|fallback| !is_known(&fallback.icmp))
    }

    /// Records what the network said about the node.
    pub(super) const fn note_reachability(&mut self, reachability: IcmpReachability, now: Mono) {
        match reachability {
            IcmpReachability::NobodyListens => self.opinion.seen_alive(now),
            IcmpReachability::NoRoute => self.opinion.found_no_route(now),
            IcmpReachability::Unclear => {}
        }
    }
}
