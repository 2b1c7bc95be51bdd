//! How probes end: answered, lost, returned by the network, or written off. Pure.

use std::time::Duration;

use latency_matrix::{Protocol, StateKind};

use super::Session;
use super::entry::Fallback;
use super::in_flight::{Probe, ProbeFate};
use super::probes::{IcmpError, NotSent, ReceivedReply};
use super::round_trip::{Discard, RttSample, Trip, round_trip};
use super::settings::Method;
use crate::clock::{ClockReading, Mono, Wall};
use crate::protocol::control_message::IcmpReachability;
use crate::protocol::wire::Sequence;

impl Session {
    /// Ends a probe that was not sent, or whose connection failed.
    pub fn not_sent(&mut self, sequence: Sequence, why: NotSent, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, ProbeFate::WrittenOff) else { return };
        match why {
            NotSent::OurFault => self.counters.not_sent += 1,
            NotSent::NoRoute => self.lose_undeliverable(&probe, IcmpReachability::NoRoute, now),
            NotSent::Refused => self.lose_undeliverable(&probe, IcmpReachability::NobodyListens, now),
            NotSent::Failed => self.lost(&probe, now),
        }
    }

    fn lost(&mut self, probe: &Probe, now: Mono) {
        self.counters.lost[probe.protocol as usize] += 1;
        let limits = self.limits();
        if let Some(pair) = self.pair(probe) {
            pair.lost(limits.window, now);
        }
        if probe.protocol == limits.primary
            && let Some(entry) = self.entry(probe.peer)
        {
            entry.path.flow_ended(probe.flow, None);
        }
        if probe.protocol == Protocol::Icmp
            && let Some(entry) = self.entry(probe.peer).filter(|entry| entry.state(limits, now) == StateKind::Known)
        {
            entry.opinion.icmp_blocked();
        }
    }

    /// Counts a loss and records what the network said about the node.
    fn lose_undeliverable(&mut self, probe: &Probe, reachability: IcmpReachability, now: Mono) {
        self.lost(probe, now);
        if let Some(entry) = self.entry(probe.peer) {
            entry.note_reachability(reachability, now);
        }
        self.count_error(reachability);
    }

    const fn count_error(&mut self, reachability: IcmpReachability) {
        match reachability {
            IcmpReachability::NobodyListens => self.counters.refused += 1,
            IcmpReachability::NoRoute => self.counters.no_route += 1,
            IcmpReachability::Unclear => {}
        }
    }

    /// Handles an ICMP error about a UDP probe, read at `read`. "Port unreachable" from the node is
    /// an answer of its kernel: it counts like an ICMP echo reply.
    pub fn handle_icmp_error(&mut self, icmp_error: &IcmpError, read: ClockReading, prompt: bool) {
        // Some routers quote too little of a probe to identify it. And a kernel takes three seconds
        // to find that an address on its own link does not answer; the probe has timed out by then.
        let Some((session, sequence)) = icmp_error.probe else { return self.note_late_error(icmp_error, read.mono) };
        if session != self.id {
            return;
        }
        if self.in_flight.is_past(sequence) {
            return self.note_late_error(icmp_error, read.mono);
        }
        let Some(&mut probe) = self.in_flight.get_mut(sequence) else { return };
        let to_peer = self.entry(probe.peer).is_some_and(|entry| entry.peer.echo == icmp_error.to);
        if !to_peer || probe.protocol != Protocol::Udp || self.in_flight.end(sequence, ProbeFate::WrittenOff).is_none() {
            return;
        }
        self.lose_undeliverable(&probe, icmp_error.reachability, read.mono);
        let held = Duration::ZERO;
        let trip = Trip { sent: probe.sent, sent_stamp: probe.sent_stamp, received_stamp: icmp_error.stamp, read, prompt, held };
        let (window, prefers_udp) = (self.window, self.settings.method == Method::PreferUdp);
        if icmp_error.reachability == IcmpReachability::NobodyListens
            && prefers_udp
            && let Ok(rtt) = round_trip(&trip)
            && let Some(entry) = self.entry(probe.peer)
        {
            let fallback = entry.fallback.get_or_insert_with(|| Fallback::new(window));
            fallback.icmp.answered(window, read.mono, rtt);
            entry.path.answered(icmp_error.ttl);
        }
    }

    fn note_late_error(&mut self, icmp_error: &IcmpError, now: Mono) {
        let mut entries = self.entries.iter_mut().flatten();
        if let Some(entry) = entries.find(|entry| entry.peer.echo == icmp_error.to) {
            entry.note_reachability(icmp_error.reachability, now);
        }
        self.count_error(icmp_error.reachability);
    }

    /// Handles a reply that was read at `read`. Its content is untrusted: it counts only if it
    /// matches a probe in flight.
    pub fn handle_reply(&mut self, reply: &ReceivedReply, read: ClockReading) {
        if reply.session != self.id {
            // For an earlier session of this prober, or for another prober on this machine (a raw
            // socket sees both).
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
            // Connections end by `end_probe`, not by packets.
            Protocol::Tcp | Protocol::Http => false,
        };
        if probe.protocol != reply.protocol || !from_peer {
            self.counters.rejected += 1;
            return;
        }
        match probe.fate {
            ProbeFate::Out => {}
            ProbeFate::Answered => {
                self.counters.duplicate += 1;
                if let Some(pair) = self.pair(&probe) {
                    pair.replied_again();
                }
                return;
            }
            ProbeFate::WrittenOff => {
                self.counters.late += 1;
                return;
            }
        }
        if reply.stamp.is_none() && !reply.prompt {
            self.unstamped = Some(read.mono);
        }
        let ReceivedReply { stamp: received_stamp, prompt, .. } = *reply;
        let time = reply.held.ok_or(Discard::Impossible).and_then(|held| {
            round_trip(&Trip { sent: probe.sent, sent_stamp: probe.sent_stamp, received_stamp, read, prompt, held })
        });
        let departed = probe.sent_stamp.unwrap_or(probe.sent.wall);
        if let Some(((arrived, answered), returned)) = reply.turned.zip(reply.stamp).filter(|_| time.is_ok())
            && let Some(entry) = self.entry(probe.peer)
            && let Some(difference) = one_way_difference([departed, arrived, answered, returned])
        {
            entry.path.differed(difference);
        }
        self.end_probe(reply.sequence, time, reply.ttl, read.mono);
    }

    /// Ends a probe in flight with its RTT, or with the reason why there is none.
    pub fn end_probe(&mut self, sequence: Sequence, time: Result<RttSample, Discard>, ttl: Option<u8>, now: Mono) {
        let Some(probe) = self.in_flight.end(sequence, ProbeFate::Answered) else { return };
        self.counters.answered(probe.protocol, time.map(RttSample::as_seconds));
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
            let is_shown = probe.protocol == limits.primary || entry.state(limits, now) != StateKind::Known;
            if let Some(times) = entry.times.as_mut().filter(|_| is_shown) {
                times.observe(rtt.as_seconds());
            }
            entry.path.answered(ttl);
            if probe.protocol == limits.primary {
                entry.path.flow_ended(probe.flow, Some(rtt));
            }
        }
    }

    /// Counts probes as lost whose timeout is over. Call it after reading replies.
    pub fn give_up(&mut self, now: Mono) {
        while let Some(probe) = self.in_flight.pop_over(now, self.settings.timeout) {
            if probe.fate == ProbeFate::Out {
                self.lost(&probe, now);
            }
        }
    }
}

/// How much longer the request took than the reply, in nanoseconds, by the clocks of both nodes:
/// `[departure, arrival, answer, return]`. None if the clocks are centuries apart.
fn one_way_difference(stamps: [Wall; 4]) -> Option<i64> {
    let [departed, arrived, answered, returned] = stamps.map(|stamp| i64::try_from(stamp.as_nanos()).ok());
    let forward = arrived?.checked_sub(departed?)?;
    forward.checked_sub(returned?.checked_sub(answered?)?)
}
