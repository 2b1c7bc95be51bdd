//! The state of one gateway's stream of reports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::report::{ReportedLoad, as_f64};
use crate::kubernetes::objects::ObjectName;

/// Requests on removed endpoints count for at most this long.
const LONGEST_LEAVING: Duration = Duration::from_secs(600);

/// The last reported requests in flight of one gateway.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) source: String,
    /// The board's number of the last report; 0 before the first.
    pub(super) report: u64,
    pub(super) reported_at: Instant,
    /// By revision and serving node, as last reported; never zero.
    in_flight: BTreeMap<ObjectName, BTreeMap<String, u64>>,
    leaving: Vec<Leaving>,
}

/// Requests in flight on removed endpoints. The gateway never reports their end. They are taken to
/// end evenly over twice the mean response time, so that each counts for about that time.
#[derive(Debug)]
struct Leaving {
    revision: ObjectName,
    serving: String,
    began: Instant,
    looked: Instant,
    all: u64,
    left: u64,
    lasts: Duration,
}

/// Requests that are taken to have ended.
#[derive(Debug, PartialEq)]
pub(super) struct EndedLeaving {
    pub(super) revision: ObjectName,
    pub(super) serving: String,
    pub(super) ended: u64,
    pub(super) busy_seconds: f64,
}

impl Stream {
    pub(super) fn new(source: &str, now: Instant) -> Self {
        Self { source: source.to_owned(), report: 0, reported_at: now, in_flight: BTreeMap::new(), leaving: Vec::new() }
    }

    /// Records the arrival of a report. Returns the seconds since the previous one.
    pub(super) fn reported(&mut self, report: u64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.reported_at).as_secs_f64();
        (self.report, self.reported_at) = (report, now);
        since
    }

    pub(super) fn in_flight(&self, revision: &ObjectName, serving: &str) -> u64 {
        self.in_flight.get(revision).and_then(|of| of.get(serving)).copied().unwrap_or(0)
    }

    pub(super) fn set_in_flight(&mut self, revision: &ObjectName, serving: &str, count: u64) {
        if count > 0 {
            self.in_flight.entry(revision.clone()).or_default().insert(serving.to_owned(), count);
        } else if let Some(of) = self.in_flight.get_mut(revision) {
            of.remove(serving);
            if of.is_empty() {
                self.in_flight.remove(revision);
            }
        }
    }

    /// Moves requests in flight that a report does not list any more to `leaving`.
    pub(super) fn move_unlisted_to_leaving(
        &mut self,
        said: &BTreeMap<ObjectName, BTreeMap<String, ReportedLoad>>,
        mean_seconds: impl Fn(&str, &ObjectName, &str) -> f64,
        now: Instant,
    ) {
        let (source, leaving) = (&self.source, &mut self.leaving);
        self.in_flight.retain(|revision, by_serving| {
            let listed = said.get(revision);
            by_serving.retain(|serving, count| {
                let is_listed = listed.is_some_and(|listed| listed.contains_key(serving));
                if !is_listed {
                    let mean = mean_seconds(source, revision, serving).max(0.0);
                    let lasts = Duration::try_from_secs_f64(mean * 2.0).unwrap_or(LONGEST_LEAVING).min(LONGEST_LEAVING);
                    leaving.push(Leaving {
                        revision: revision.clone(),
                        serving: serving.clone(),
                        began: now,
                        looked: now,
                        all: *count,
                        left: *count,
                        lasts,
                    });
                }
                is_listed
            });
            !by_serving.is_empty()
        });
    }

    /// Ends requests on removed endpoints by the time passed.
    pub(super) fn end_leaving(&mut self, now: Instant) -> Vec<EndedLeaving> {
        let mut all = Vec::new();
        self.leaving.retain_mut(|leaving| {
            let passed = now.saturating_duration_since(leaving.began).as_secs_f64();
            let lasts = leaving.lasts.as_secs_f64();
            let share = if passed < lasts { 1.0 - passed / lasts } else { 0.0 };
            // Between 0 and the initial count.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let left = ((as_f64(leaving.all) * share).ceil() as u64).min(leaving.left);
            let since = now.saturating_duration_since(leaving.looked).as_secs_f64();
            let ended = leaving.left - left;
            let busy_seconds = since * (as_f64(leaving.left) + as_f64(left)) / 2.0;
            (leaving.left, leaving.looked) = (left, now);
            if ended > 0 || busy_seconds > 0.0 {
                let (revision, serving) = (leaving.revision.clone(), leaving.serving.clone());
                all.push(EndedLeaving { revision, serving, ended, busy_seconds });
            }
            left > 0
        });
        all
    }

    /// Calls `each` with the requests in flight of `revision`, by serving node; more than once per
    /// node if some are on removed endpoints.
    pub(super) fn each_in_flight(&self, revision: &ObjectName, mut each: impl FnMut(&str, u64)) {
        for (serving, count) in self.in_flight.get(revision).into_iter().flatten() {
            each(serving, *count);
        }
        for leaving in self.leaving.iter().filter(|leaving| leaving.revision == *revision) {
            each(&leaving.serving, leaving.left);
        }
    }

    pub(super) fn is_busy(&self, revision: &ObjectName) -> bool {
        self.in_flight.contains_key(revision) || self.leaving.iter().any(|leaving| leaving.revision == *revision)
    }

    pub(super) fn busy_revisions(&self) -> BTreeSet<ObjectName> {
        self.in_flight.keys().chain(self.leaving.iter().map(|leaving| &leaving.revision)).cloned().collect()
    }
}
