//! How long a request waits that wakes a revision from zero, phase by phase.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_link::RevisionKey;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

/// What a cold start has reached. Times count from when it was seen that requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The label's values.
pub(crate) enum Phase {
    /// A decision looks at it.
    seen,
    /// Pods were decided on.
    decided,
    /// A pod exists.
    created,
    /// A pod is ready.
    ready,
    /// A request was answered.
    answered,
}

/// The label of the histogram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PhaseLabels {
    pub(crate) phase: Phase,
}

/// What one decision shows of a revision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    /// Whether any request waits.
    pub(crate) waits: bool,
    /// Whether pods are desired.
    pub(crate) is_wanted: bool,
    /// Pods that exist.
    pub(crate) pods: usize,
    /// Pods that are ready.
    pub(crate) ready: u32,
    /// Requests that ended since the gateways count.
    pub(crate) ended: u64,
    /// For how long it has been known that requests wait, where this look is due to that.
    pub(crate) noticed_ago: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    at: Duration,
    reached: Phase,
    ended: u64,
}

/// Cold starts that are under way.
#[derive(Debug, Default)]
pub(crate) struct ColdStarts(BTreeMap<RevisionKey, Start>);

/// A cold start without an answer for this long is not measured.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(600);

impl ColdStarts {
    /// Whether a look at the revision may say anything: one is under way, or begins.
    pub(crate) fn concerns(&self, key: &RevisionKey, waits: bool, pods: usize) -> bool {
        self.0.contains_key(key) || waits && pods == 0
    }

    /// Takes in a look at `now`. The phases that have just been reached, and when, since it was
    /// seen that requests wait.
    pub(crate) fn look(&mut self, key: &RevisionKey, now: Duration, look: Look) -> Vec<(Phase, Duration)> {
        let mut reached = Vec::new();
        if !self.0.contains_key(key) {
            if !look.waits || look.pods > 0 {
                return reached;
            }
            let at = now.saturating_sub(look.noticed_ago);
            self.0.insert(key.clone(), Start { at, reached: Phase::seen, ended: look.ended });
            reached.push((Phase::seen, now.saturating_sub(at)));
        }
        let Some(start) = self.0.get_mut(key) else { return reached };
        let since = now.saturating_sub(start.at);
        // A counter that fell was reset to 0.
        start.ended = start.ended.min(look.ended);
        let is_answered = look.ended > start.ended;
        let phases = [
            (Phase::decided, look.is_wanted || look.pods > 0),
            (Phase::created, look.pods > 0),
            (Phase::ready, look.ready > 0),
            (Phase::answered, look.ready > 0 && is_answered),
        ];
        for (phase, is_reached) in phases {
            if is_reached && start.reached < phase {
                start.reached = phase;
                reached.push((phase, since));
            }
        }
        let is_over = start.reached == Phase::answered || since > GIVEN_UP_AFTER;
        // The client gave up before a pod was ready.
        let is_deserted = !look.waits && !is_answered && start.reached < Phase::ready;
        if is_over || is_deserted {
            self.0.remove(key);
        }
        reached
    }

    /// The revision is gone.
    pub(crate) fn forget(&mut self, key: &RevisionKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const WAITING: Look = Look { waits: true, is_wanted: false, pods: 0, ready: 0, ended: 7, noticed_ago: Duration::ZERO };

    #[test]
    fn each_phase_is_measured_once_from_when_the_request_was_seen() {
        let (mut starts, key) = (ColdStarts::default(), RevisionKey::new("default", "hello-00001"));
        let mut look = |at, look| starts.look(&key, ms(at), look);
        assert_eq!(look(0, Look { waits: false, ..WAITING }), []);
        let seen = look(1005, Look { noticed_ago: ms(5), is_wanted: true, ..WAITING });
        assert_eq!(seen, [(Phase::seen, ms(5)), (Phase::decided, ms(5))]);
        let decided = Look { is_wanted: true, ..WAITING };
        assert_eq!(look(1010, decided), []);
        assert_eq!(look(1100, Look { pods: 1, ..decided }), [(Phase::created, ms(100))]);
        assert_eq!(look(2000, Look { pods: 1, ready: 1, ..decided }), [(Phase::ready, ms(1000))]);
        assert_eq!(look(2500, Look { pods: 1, ready: 1, waits: false, ended: 8, ..decided }), [(Phase::answered, ms(1500))]);
        assert_eq!(
            look(2600, Look { pods: 1, ready: 1, waits: true, ended: 9, ..decided }),
            [],
            "a warm revision has no cold start"
        );
        assert!(starts.0.is_empty());
    }

    #[test]
    fn one_that_nobody_waits_for_any_more_is_not_measured() {
        let (mut starts, key) = (ColdStarts::default(), RevisionKey::new("default", "hello-00001"));
        starts.look(&key, ms(0), WAITING);
        assert!(starts.concerns(&key, false, 0));
        assert_eq!(starts.look(&key, ms(100), Look { waits: false, ..WAITING }), []);
        assert!(!starts.concerns(&key, false, 0));
        starts.look(&key, ms(200), WAITING);
        starts.look(&key, ms(200) + GIVEN_UP_AFTER * 2, WAITING);
        assert!(starts.0.is_empty());
    }
}
