//! Demand by second and source node, and its averages over windows, in the numbers of Knative's own
//! autoscaler.
//!
//! # As stock
//! Stock (knative/serving 1.15, `pkg/autoscaler/aggregation`) keeps one bucket per second and a
//! running sum per window. [`DemandHistory::totals`] does the same sums in the same order, so it
//! equals stock to the last digit, rounding included: a linear average is cut to six decimal places
//! (releases since knative/serving#15940 round to the nearest instead, which differs by a millionth
//! at most); a weighted-exponential one is neither rounded nor made up for seconds that are not
//! there yet.
//!
//! For a revision without pods and requests nothing reports, so stock gets no buckets at all. Where
//! such a revision's seconds are not recorded here either, its next request is averaged as stock
//! averages it: gaps shorter than a window are zeros, a longer one restarts the window.
//!
//! # Unlike stock
//! Stock takes a second without a report for zero. Here a second that is missing between seconds
//! with demand is *unknown*: what serves must not be taken away because a gateway could not be
//! read. Time that is unknown does not pass: averages are over the last known seconds. When as much
//! is unknown as is kept, all is forgotten.

mod source;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use self::source::SourceHistory;
use super::smoothing;
use crate::settings::Aggregation;

/// Demand that enters at one source node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceDemand {
    /// Requests in flight.
    pub concurrency: f64,
    /// Requests per second.
    pub requests_per_second: f64,
}

impl SourceDemand {
    const NONE: Self = Self { concurrency: 0.0, requests_per_second: 0.0 };

    fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Without what is no demand: negative, not a number, or more than there can be.
    fn sound(self) -> Self {
        self.map(|value| if value.is_finite() { value.clamp(0.0, MOST) } else { 0.0 })
    }

    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self { concurrency: change(self.concurrency), requests_per_second: change(self.requests_per_second) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            concurrency: self.concurrency + other.concurrency,
            requests_per_second: self.requests_per_second + other.requests_per_second,
        }
    }

    fn minus(self, other: Self) -> Self {
        self.plus(other.map(|value| -value))
    }
}

/// The demand of one revision, second by second.
///
/// It keeps as many seconds as [`Self::set_windows`] says; a revision without demand takes no
/// memory beyond this struct.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemandHistory {
    /// The second of the newest sample.
    last: Option<u64>,
    /// How many seconds are known by now, the clock of everything below.
    known: u64,
    /// What `known` was at the first sample.
    first: u64,
    /// Seconds that are kept.
    kept: u64,
    /// The stable and the panic window.
    windows: [Window; 2],
    /// Sum over the sources per known second, newest last. Empty without demand.
    totals: VecDeque<SourceDemand>,
    /// How many of them are not zero.
    busy: usize,
    /// In name order, each as long as `totals`.
    sources: Vec<SourceHistory>,
}

/// The running sum over the newest seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Window {
    length: u64,
    /// What `known` was at the first sample since the window was last empty.
    first: u64,
    sum: SourceDemand,
}

/// More demand than anything has.
const MOST: f64 = 1e12;
/// The longest window that Knative allows.
const LONGEST_SECONDS: u64 = 3600;
/// Without a sample for this long there is no average.
const STALE_SECONDS: u64 = 5;
/// Knative's default windows.
const STABLE_SECONDS: u64 = 60;
const PANIC_SECONDS: u64 = 6;

impl Default for DemandHistory {
    /// With Knative's default windows, and room for the longest one.
    fn default() -> Self {
        let window = |length| Window { length, first: 0, sum: SourceDemand::NONE };
        Self {
            last: None,
            known: 0,
            first: 0,
            kept: LONGEST_SECONDS,
            windows: [window(STABLE_SECONDS), window(PANIC_SECONDS)],
            totals: VecDeque::new(),
            busy: 0,
            sources: Vec::new(),
        }
    }
}

impl DemandHistory {
    /// Keeps no more than the longest of these windows, and running sums for the first two. To be
    /// called whenever settings may have changed; cheap where they did not.
    ///
    /// Averages over other windows can be asked for as well, up to `longest`.
    pub fn set_windows(&mut self, stable: Duration, panic: Duration, longest: Duration) {
        let lengths = [buckets(stable), buckets(panic)];
        let kept = lengths[0].max(lengths[1]).max(buckets(longest));
        self.first = self.first.max(self.known.saturating_sub(self.kept));
        self.kept = kept;
        while self.totals.len() as u64 > kept {
            self.forget_oldest();
        }
        self.compact();
        for (at, length) in lengths.into_iter().enumerate() {
            if self.windows[at].length != length {
                self.windows[at] = Window { length, first: self.first, sum: self.sum(length) };
                for source in &mut self.sources {
                    source.resize(at, length);
                }
            }
        }
    }

    /// Records what was seen over the second `second` (counted from any fixed instant). A second
    /// that is not newer than the last is ignored; one that is not known is not to be recorded.
    pub fn record(&mut self, second: u64, mut sources: BTreeMap<NodeName, SourceDemand>) {
        if let Some(last) = self.last {
            if second <= last {
                return;
            }
            self.pass(second - last);
        }
        sources.retain(|_, demand| {
            *demand = demand.sound();
            !demand.is_none()
        });
        let total = sources.values().fold(SourceDemand::NONE, |sum, demand| sum.plus(*demand));
        for window in &mut self.windows {
            let leaving = (self.totals.len() as u64).checked_sub(window.length);
            let leaving = leaving.and_then(|at| self.totals.get(at as usize).copied()).unwrap_or_default();
            // Both steps in this order give the rounding errors of stock.
            window.sum = window.sum.minus(leaving).plus(total);
        }
        self.last = Some(second);
        self.known += 1;
        if self.busy > 0 || !total.is_none() {
            self.keep(total, &sources);
        }
    }

    /// `seconds` after the last sample the next one is about to be recorded.
    fn pass(&mut self, seconds: u64) {
        if self.busy > 0 {
            if seconds >= self.kept {
                self.forget();
            }
            return;
        }
        self.known += seconds - 1;
        for window in &mut self.windows {
            if seconds >= window.length {
                (window.first, window.sum) = (self.known, SourceDemand::NONE);
            }
        }
        if seconds >= self.kept {
            self.first = self.known;
        }
    }

    fn keep(&mut self, total: SourceDemand, sources: &BTreeMap<NodeName, SourceDemand>) {
        let length = self.totals.len();
        let windows = self.windows.map(|window| window.length);
        for name in sources.keys() {
            if let Err(at) = self.sources.binary_search_by(|source| source.name().cmp(name)) {
                self.sources.insert(at, SourceHistory::new(name.clone(), length));
            }
        }
        self.totals.push_back(total);
        self.busy += usize::from(!total.is_none());
        for source in &mut self.sources {
            source.push(sources.get(source.name()).copied().unwrap_or_default(), windows);
        }
        while self.totals.len() as u64 > self.kept {
            self.forget_oldest();
        }
        self.compact();
    }

    fn forget_oldest(&mut self) {
        if let Some(total) = self.totals.pop_front() {
            self.busy -= usize::from(!total.is_none());
            for source in &mut self.sources {
                source.pop();
            }
        }
    }

    /// Gives back the memory of what holds zeros only.
    fn compact(&mut self) {
        if self.busy == 0 {
            self.totals = VecDeque::new();
            self.sources = Vec::new();
        } else {
            self.sources.retain(|source| !source.is_silent());
        }
    }

    fn forget(&mut self) {
        *self = Self {
            kept: self.kept,
            windows: self.windows.map(|window| Window { first: 0, sum: SourceDemand::NONE, ..window }),
            ..Self::default()
        };
    }

    /// Whether no kept second has demand. Also true without kept seconds, or if they are older than
    /// the longest window. A silent revision without pods needs no decision; for one with pods
    /// silence means nothing.
    #[must_use]
    pub fn is_silent(&self, now_second: u64) -> bool {
        self.busy == 0 || self.last.is_some_and(|last| now_second.saturating_sub(last) >= self.kept)
    }

    /// The average per source over the window, or over as much of it as was sampled. `None` where
    /// nothing was, or not for some seconds: no data, no decision.
    ///
    /// The shares are not rounded: how many pods follow from [`Self::totals`], where they go from
    /// these.
    #[must_use]
    pub fn average(
        &self,
        now_second: u64,
        window: Duration,
        aggregation: Aggregation,
    ) -> Option<BTreeMap<NodeName, SourceDemand>> {
        self.shares(now_second, window, aggregation).map(|shares| shares.into_iter().collect())
    }

    /// As [`Self::average`], in name order.
    #[must_use]
    pub fn shares(&self, now_second: u64, window: Duration, aggregation: Aggregation) -> Option<Vec<(NodeName, SourceDemand)>> {
        let length = buckets(window);
        let seconds = self.seconds(now_second, length)? as f64;
        let running = self.running(length);
        let share = |source: &SourceHistory| match aggregation {
            Aggregation::Linear => source.sum(running, length).map(|sum| sum / seconds),
            Aggregation::WeightedExponential => weighted(source.newest_first(length), length),
        };
        let shares = self.sources.iter().map(|source| (source.name(), share(source)));
        Some(shares.filter(|(_, share)| !share.is_none()).map(|(name, share)| (name.clone(), share)).collect())
    }

    /// The average over all sources, as stock computes it. `None` as in [`Self::average`].
    ///
    /// Like stock's, a linear average may be off by a millionth, even below zero.
    #[must_use]
    pub fn totals(&self, now_second: u64, window: Duration, aggregation: Aggregation) -> Option<SourceDemand> {
        let length = buckets(window);
        let seconds = self.seconds(now_second, length)? as f64;
        Some(match aggregation {
            Aggregation::Linear => {
                let sum = self.running(length).map_or_else(|| self.sum(length), |at| self.windows[at].sum);
                sum.map(|sum| cut_to_six_digits(sum / seconds))
            }
            Aggregation::WeightedExponential => weighted(self.newest_first(length), length),
        })
    }

    /// Per source node, the share of the window's seconds in which it had demand.
    #[must_use]
    pub fn active_share(&self, now_second: u64, window: Duration) -> BTreeMap<NodeName, f64> {
        let length = buckets(window);
        if self.seconds(now_second, length).is_none() {
            return BTreeMap::new();
        }
        let running = self.running(length);
        let shares = self.sources.iter().map(|source| (source.name(), source.active_seconds(running, length)));
        shares.filter(|(_, active)| *active > 0).map(|(name, active)| (name.clone(), active as f64 / length as f64)).collect()
    }

    /// How many seconds were sampled, up to `limit`. None where the last sample is too old.
    #[must_use]
    pub fn sampled_seconds(&self, now_second: u64, limit: Duration) -> u64 {
        self.seconds(now_second, buckets(limit)).unwrap_or(0)
    }

    /// Seconds that a window of `length` averages over.
    fn seconds(&self, now_second: u64, length: u64) -> Option<u64> {
        self.last.filter(|last| last.saturating_add(STALE_SECONDS) >= now_second)?;
        let first = self.running(length).map_or(self.first, |at| self.windows[at].first);
        Some((self.known - first).min(length))
    }

    /// The window of this length that has running sums.
    fn running(&self, length: u64) -> Option<usize> {
        self.windows.iter().position(|window| window.length == length)
    }

    fn newest_first(&self, length: u64) -> impl Iterator<Item = SourceDemand> {
        self.totals.iter().rev().copied().take(length as usize)
    }

    fn sum(&self, length: u64) -> SourceDemand {
        self.newest_first(length).fold(SourceDemand::NONE, SourceDemand::plus)
    }
}

/// Buckets of a second that a window takes.
fn buckets(window: Duration) -> u64 {
    (window.as_secs() + u64::from(window.subsec_nanos() > 0)).max(1)
}

fn weighted(newest_first: impl Iterator<Item = SourceDemand>, length: u64) -> SourceDemand {
    let decay = smoothing::coefficient(length);
    let mut weight = decay;
    newest_first.fold(SourceDemand::NONE, |sum, demand| {
        let sum = sum.plus(demand.map(|value| value * weight));
        weight *= 1.0 - decay;
        sum
    })
}

fn cut_to_six_digits(value: f64) -> f64 {
    (value * 1e6).floor() / 1e6
}

#[cfg(test)]
mod tests;
