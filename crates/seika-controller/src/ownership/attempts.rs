//! Results of earlier attempts to adopt and to release pods of a Seika, and when to retry. Pure.
//!
//! Two things must not happen. A pod that may not be adopted or released must not stop the Seika,
//! nor be tried at each reconciliation. And releasing must not become a loop: where admission
//! changes pods so that they never match, each released pod is replaced, and its replacement does
//! not match either.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::status::Trouble;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(300);
/// Pods that are released without waiting; as many as the Seika has, if that is more.
const RELEASED_AT_ONCE: u32 = 10;
const RELEASE_FIRST: Duration = Duration::from_secs(1);
const RELEASE_LAST: Duration = Duration::from_secs(3600);
/// After this long without a release a Seika's back-off is reset. Longer than the longest wait:
/// otherwise a loop would reset it in each round.
const FORGIVEN_AFTER: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug)]
struct RefusedAdoption {
    times: u32,
    until: Instant,
    trouble: Trouble,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Adoptions and releases that failed, by the pod's UID.
    refused: HashMap<String, RefusedAdoption>,
    /// Pods that came out of their own creation with labels that do not match: UID -> name.
    unlike: BTreeMap<String, String>,
    /// Releases since the last time that there was none for [`FORGIVEN_AFTER`].
    released: u32,
    last_release: Option<Instant>,
    /// Pods that wait for their release, as of the last pass.
    waiting: usize,
}

impl Attempts {
    /// Whether to try to adopt or release this pod now.
    pub(crate) fn is_due(&self, uid: &str, now: Instant) -> bool {
        self.refused.get(uid).is_none_or(|refused| refused.until <= now)
    }

    /// It failed. Returns whether for the first time.
    pub(crate) fn failed(&mut self, uid: &str, trouble: Trouble, now: Instant) -> bool {
        let times = self.refused.get(uid).map_or(0, |refused| refused.times);
        let until = now + doubled(RETRY_FIRST, times, RETRY_LAST);
        self.refused.insert(uid.to_owned(), RefusedAdoption { times: times.saturating_add(1), until, trouble });
        times == 0
    }

    /// It was done, or there is nothing left to do.
    pub(crate) fn done(&mut self, uid: &str) {
        self.refused.remove(uid);
    }

    /// This pod was asked for with the right labels and came out with others: admission changed
    /// them. It stays the Seika's: a replacement would come out the same.
    pub(crate) fn came_out_unlike(&mut self, uid: &str, name: &str) {
        self.unlike.insert(uid.to_owned(), name.to_owned());
    }

    /// Whether this pod never matched.
    pub(crate) fn is_unlike(&self, uid: &str) -> bool {
        self.unlike.contains_key(uid)
    }

    /// Whether a pod may be released now, where the Seika has `wanted` in all.
    pub(crate) fn may_release(&mut self, wanted: i32, now: Instant) -> bool {
        if self.last_release.is_some_and(|last| now.duration_since(last) >= FORGIVEN_AFTER) {
            (self.released, self.last_release) = (0, None);
        }
        self.release_due(wanted).is_none_or(|due| due <= now)
    }

    /// One was released.
    pub(crate) fn released(&mut self, now: Instant) {
        self.released = self.released.saturating_add(1);
        self.last_release = Some(now);
    }

    /// So many pods are kept until they may be released.
    pub(crate) fn wait_for_release(&mut self, pods: usize) {
        self.waiting = pods;
    }

    fn release_due(&self, wanted: i32) -> Option<Instant> {
        let at_once = RELEASED_AT_ONCE.max(u32::try_from(wanted).unwrap_or(0));
        let beyond = self.released.checked_sub(at_once)?;
        Some(self.last_release? + doubled(RELEASE_FIRST, beyond, RELEASE_LAST))
    }

    /// Forgets pods that are neither to be adopted nor to be released any more: they are gone, or
    /// as they should be. Of a pod that the watch has not shown yet, nobody knows.
    pub(crate) fn retain(&mut self, is_claimed: impl Fn(&str) -> bool, is_unseen: impl Fn(&str) -> bool) {
        self.refused.retain(|uid, _| is_claimed(uid));
        self.unlike.retain(|uid, _| is_claimed(uid) || is_unseen(uid));
    }

    /// In how long to try again.
    pub(crate) fn again_in(&self, wanted: i32, now: Instant) -> Option<Duration> {
        let release = self.release_due(wanted).filter(|_| self.waiting > 0);
        let due = self.refused.values().map(|refused| refused.until).chain(release).min()?;
        Some(due.saturating_duration_since(now))
    }

    /// What the status has to say about it.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        // Always the same one of several, so that the status does not change with each look.
        if let Some((_, refused)) = self.refused.iter().min_by_key(|(uid, _)| uid.as_str()) {
            return Some(refused.trouble.clone());
        }
        if let Some(name) = self.unlike.values().min() {
            let message = format!(
                "{} pods were given labels at their creation that the selector does not match, {name} for one: \
                 look for an admission webhook that changes labels. They count as this Seika's",
                self.unlike.len()
            );
            return Some(Trouble { reason: "LabelsChanged", message });
        }
        (self.waiting > 0).then(|| Trouble {
            reason: "ReleasesHeld",
            message: format!(
                "{} pods that the selector no longer matches wait for their release: {} were released lately, and their \
                 replacements were relabelled too",
                self.waiting, self.released
            ),
        })
    }
}

fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(16))).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Trouble {
        Trouble { reason: "FailedAdopt", message: "not allowed".into() }
    }

    #[test]
    fn what_is_refused_is_tried_again_later_each_time() {
        let begun = Instant::now();
        let mut attempts = Attempts::default();
        assert!(attempts.is_due("a", begun));
        attempts.failed("a", trouble(), begun);
        assert!(!attempts.is_due("a", begun) && attempts.is_due("b", begun));
        assert_eq!(attempts.again_in(1, begun), Some(RETRY_FIRST));
        assert!(attempts.is_due("a", begun + RETRY_FIRST));
        attempts.failed("a", trouble(), begun);
        assert_eq!(attempts.again_in(1, begun), Some(RETRY_FIRST * 2));
        for _ in 0..100 {
            attempts.failed("a", trouble(), begun);
        }
        assert_eq!(attempts.again_in(1, begun), Some(RETRY_LAST));
        assert_eq!(attempts.trouble(), Some(trouble()));
        attempts.done("a");
        assert_eq!((attempts.again_in(1, begun), attempts.trouble()), (None, None));
    }

    #[test]
    fn a_pod_that_is_gone_leaves_nothing() {
        let mut attempts = Attempts::default();
        attempts.failed("a", trouble(), Instant::now());
        attempts.came_out_unlike("b", "hello-node1-x");
        assert!(attempts.is_unlike("b"));
        attempts.retain(|uid| uid == "a", |uid| uid == "b");
        assert!(attempts.is_unlike("b") && attempts.trouble().is_some());
        attempts.retain(|_| false, |_| false);
        assert!(attempts.refused.is_empty() && attempts.unlike.is_empty() && attempts.trouble().is_none());
    }

    /// An operator that relabels every new pod makes a release out of each: however long that goes
    /// on, few pods are left behind.
    #[test]
    fn releases_that_go_round_in_circles_come_to_a_stand() {
        let begun = Instant::now();
        let mut attempts = Attempts::default();
        let mut released_within = |wanted, from: Duration, until: Duration| {
            let ticks = (from.as_secs()..until.as_secs()).map(|second| begun + Duration::from_secs(second));
            let due = ticks.filter(|now| {
                attempts.may_release(wanted, *now) && {
                    attempts.released(*now);
                    true
                }
            });
            due.count()
        };
        let day = Duration::from_secs(24 * 3600);
        let in_a_day = released_within(3, Duration::ZERO, day);
        assert!((10..=50).contains(&in_a_day), "{in_a_day} released in a day");
        // After a while without any, it is as at first.
        let calm = day + FORGIVEN_AFTER;
        let later = released_within(200, calm, calm + Duration::from_secs(200));
        assert_eq!(later, 200);
    }

    #[test]
    fn pods_that_wait_for_their_release_are_told_of() {
        let begun = Instant::now();
        let mut attempts = Attempts::default();
        for _ in 0..RELEASED_AT_ONCE {
            assert!(attempts.may_release(2, begun));
            attempts.released(begun);
        }
        assert!(!attempts.may_release(2, begun));
        assert_eq!(attempts.trouble(), None);
        attempts.wait_for_release(1);
        assert_eq!(attempts.trouble().unwrap().reason, "ReleasesHeld");
        assert_eq!(attempts.again_in(2, begun), Some(RELEASE_FIRST));
        attempts.wait_for_release(0);
        assert_eq!((attempts.again_in(2, begun), attempts.trouble()), (None, None));
    }
}
