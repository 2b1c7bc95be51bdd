//! What is kept of one peer, and what is said of it. Pure.

use super::histogram::Histogram;
use super::pair::{PairState, PairStats, Silence, StateLimits, Summary, WindowLimits};
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
    pub(super) fallback: Option<Box<PairStats>>,
    pub(super) opinion: SecondOpinion,
    pub(super) turns: u32,
    /// Only where somebody wants buckets of each pair.
    pub(super) times: Option<Histogram>,
    pub(super) hops: Option<u8>,
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

    pub(super) fn state(&self, limits: Limits, now: Mono) -> PairState {
        self.primary.state(limits.window, limits.states, self.silence(limits, now), now)
    }

    /// What is shown of the peer: what the primary protocol tells, or ICMP in its place while it tells nothing.
    pub(super) fn summary(&self, limits: Limits, now: Mono) -> (Protocol, Summary) {
        let of = |pair: &PairStats, silence| pair.summary(limits.window, limits.states, silence, now);
        let primary = of(&self.primary, self.silence(limits, now));
        let is_told = matches!(primary.state, PairState::Known | PairState::Unreachable);
        let fallback = self.fallback.as_ref().filter(|_| !is_told);
        let told = fallback.map(|pair| of(pair, Silence::Unexplained)).filter(|summary| summary.rtt.is_some());
        told.map_or((limits.primary, primary), |summary| (Protocol::Icmp, summary))
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
