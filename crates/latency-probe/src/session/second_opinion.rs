//! Evidence, beside the silence of its responder, for or against a node being reachable. Pure.
//!
//! A responder may be silent because its program restarts, has crashed, or is behind a firewall,
//! while the node serves as ever. So silence alone means "unknown". Evidence against the node is
//! the silence of ICMP where ICMP is known to pass, or an ICMP error that says that there is no
//! route. Any other answer of the node outweighs both.

use std::time::Duration;

use crate::clock::Mono;

/// Turns between two checks whether ICMP passes, if it did at the last check.
const CHECK_EVERY: u16 = 600;
/// Turns between two checks otherwise.
const RETRY_EVERY: u16 = 60;

/// Evidence counts at least this long: a kernel that looks for an address on its own link reports
/// its failure every three seconds, and may send "port unreachable" once a second.
const EVIDENCE_COUNTS_FOR: Duration = Duration::from_secs(5);

/// The evidence about one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SecondOpinion {
    /// The last ICMP probe that was sent while the peer answered otherwise was answered too.
    icmp_passes: bool,
    turns_until_check: u16,
    no_route: Option<Mono>,
    alive: Option<Mono>,
}

impl SecondOpinion {
    /// Whether to check ICMP in this turn of a peer that answers.
    pub(super) const fn wants_check(&mut self) -> bool {
        if self.turns_until_check > 0 {
            self.turns_until_check -= 1;
            return false;
        }
        self.turns_until_check = if self.icmp_passes { CHECK_EVERY } else { RETRY_EVERY };
        true
    }

    /// Records an answered ICMP probe.
    pub(super) const fn icmp_answered(&mut self, now: Mono) {
        self.icmp_passes = true;
        self.turns_until_check = CHECK_EVERY;
        self.alive = Some(now);
    }

    /// Records an ICMP probe lost while the peer answered otherwise.
    pub(super) const fn icmp_blocked(&mut self) {
        self.icmp_passes = false;
    }

    /// Records any other answer of the node, including "port unreachable".
    pub(super) const fn seen_alive(&mut self, now: Mono) {
        self.alive = Some(now);
    }

    /// Records an ICMP error that says that there is no route.
    pub(super) const fn found_no_route(&mut self, now: Mono) {
        self.no_route = Some(now);
    }

    /// Whether a silent peer is unreachable. Evidence older than `valid` and than
    /// [`EVIDENCE_COUNTS_FOR`] does not count.
    pub(super) fn confirms_silence(&self, icmp_is_silent: bool, now: Mono, valid: Duration) -> bool {
        let valid = valid.max(EVIDENCE_COUNTS_FOR);
        let recent = |at: Option<Mono>| at.filter(|at| now.since(*at) <= valid);
        match (recent(self.alive), recent(self.no_route)) {
            (Some(alive), Some(no_route)) => no_route > alive,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (None, None) => self.icmp_passes && icmp_is_silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_secs(10);

    fn second(second: u64) -> Mono {
        Mono::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn silence_needs_a_witness() {
        let mut opinion = SecondOpinion::default();
        assert!(!opinion.confirms_silence(true, second(0), VALID), "ICMP may be blocked");
        opinion.icmp_answered(second(0));
        assert!(!opinion.confirms_silence(true, second(10), VALID), "it was alive a moment ago");
        assert!(opinion.confirms_silence(true, second(11), VALID));
        assert!(!opinion.confirms_silence(false, second(11), VALID));
        opinion.icmp_blocked();
        assert!(!opinion.confirms_silence(true, second(11), VALID));
        opinion.found_no_route(second(20));
        assert!(opinion.confirms_silence(false, second(30), VALID) && !opinion.confirms_silence(false, second(31), VALID));
        opinion.seen_alive(second(21));
        assert!(!opinion.confirms_silence(true, second(25), VALID), "the later word counts");
    }

    #[test]
    fn evidence_outlives_the_pauses_between_reports_of_it() {
        let mut opinion = SecondOpinion::default();
        opinion.found_no_route(second(0));
        let quick = Duration::from_millis(300);
        assert!(opinion.confirms_silence(false, second(4), quick) && !opinion.confirms_silence(false, second(6), quick));
    }

    #[test]
    fn icmp_is_checked_now_and_then() {
        let mut opinion = SecondOpinion::default();
        let checks = |opinion: &mut SecondOpinion| (0..1_200).filter(|_| opinion.wants_check()).count();
        assert_eq!(checks(&mut opinion), 20);
        opinion.icmp_answered(second(0));
        assert!((1..=2).contains(&checks(&mut opinion)));
    }
}
