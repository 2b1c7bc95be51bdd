//! Demand by second and source node, and its averages over windows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

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
    fn is_none(self) -> bool {
        self.concurrency <= 0.0 && self.requests_per_second <= 0.0
    }
}

/// The demand of one revision, second by second. A second that was not sampled is missing, not zero.
#[derive(Clone, Debug, Default)]
pub struct DemandHistory {
    /// In order of time; sources without demand in a second are left out of it.
    seconds: VecDeque<(u64, BTreeMap<NodeName, SourceDemand>)>,
}

/// Longer than the longest window, by Knative's rules an hour.
const KEPT_SECONDS: u64 = 3700;
/// Without a sample for so long there is no average.
const STALE_SECONDS: u64 = 5;

impl DemandHistory {
    /// Records what was seen over the second `second` (counted from any fixed instant). An older second than the last is ignored.
    pub fn record(&mut self, second: u64, sources: BTreeMap<NodeName, SourceDemand>) {
        if self.seconds.back().is_some_and(|&(last, _)| second <= last) {
            return;
        }
        let sources = sources.into_iter().filter(|(_, demand)| !demand.is_none()).collect();
        self.seconds.push_back((second, sources));
        while self.seconds.front().is_some_and(|&(first, _)| first + KEPT_SECONDS < second) {
            self.seconds.pop_front();
        }
    }

    /// Seconds of the window that ends now and were sampled, newest first. Empty where the last sample is too old.
    fn window(&self, now_second: u64, window: Duration) -> impl Iterator<Item = &BTreeMap<NodeName, SourceDemand>> {
        let fresh = self.seconds.back().filter(|&&(last, _)| last + STALE_SECONDS >= now_second);
        let last = fresh.map_or(0, |&(last, _)| last);
        let length = window.as_secs().max(1);
        self.seconds
            .iter()
            .rev()
            .take_while(move |&&(second, _)| second + length > last)
            .take(if fresh.is_some() { usize::MAX } else { 0 })
            .map(|(_, sources)| sources)
    }

    /// The average per source over the window, or over as much of it as was sampled. `None` where nothing was: no data, no decision.
    #[must_use]
    pub fn average(
        &self,
        now_second: u64,
        window: Duration,
        aggregation: Aggregation,
    ) -> Option<BTreeMap<NodeName, SourceDemand>> {
        let samples = self.window(now_second, window).count();
        if samples == 0 {
            return None;
        }
        let weights = weights(aggregation, samples);
        let mut averages: BTreeMap<NodeName, SourceDemand> = BTreeMap::new();
        for (sources, weight) in self.window(now_second, window).zip(weights) {
            for (node, demand) in sources {
                let average = averages.entry(node.clone()).or_default();
                average.concurrency += demand.concurrency * weight;
                average.requests_per_second += demand.requests_per_second * weight;
            }
        }
        Some(averages)
    }

    /// What all sources come to together, as the KPA would see it.
    #[must_use]
    pub fn totals(&self, now_second: u64, window: Duration, aggregation: Aggregation) -> Option<SourceDemand> {
        let averages = self.average(now_second, window, aggregation)?;
        Some(averages.values().fold(SourceDemand::default(), |total, one| SourceDemand {
            concurrency: total.concurrency + one.concurrency,
            requests_per_second: total.requests_per_second + one.requests_per_second,
        }))
    }

    /// Whether no sampled second has any demand.
    #[must_use]
    pub fn is_silent(&self, _now_second: u64) -> bool {
        self.seconds.iter().all(|(_, sources)| sources.is_empty())
    }

    /// Per source node, the share of the window's seconds in which it had demand.
    #[must_use]
    pub fn active_share(&self, now_second: u64, window: Duration) -> BTreeMap<NodeName, f64> {
        let length = window.as_secs().max(1) as f64;
        let mut shares = BTreeMap::new();
        for sources in self.window(now_second, window) {
            for node in sources.keys() {
                *shares.entry(node.clone()).or_insert(0.0) += 1.0 / length;
            }
        }
        shares
    }

    /// How many seconds were sampled without a gap larger than one window allows, up to `limit`.
    #[must_use]
    pub fn sampled_seconds(&self, now_second: u64, limit: Duration) -> u64 {
        self.window(now_second, limit).count() as u64
    }
}

/// Weights, newest first, that sum to one.
fn weights(aggregation: Aggregation, samples: usize) -> Vec<f64> {
    let raw: Vec<f64> = match aggregation {
        Aggregation::Linear => vec![1.0; samples],
        Aggregation::WeightedExponential => {
            let decay = (1.0 - 0.0001_f64.powf(1.0 / samples as f64)).max(0.2);
            (0..samples).map(|age| decay * (1.0 - decay).powi(i32::try_from(age).unwrap_or(i32::MAX))).collect()
        }
    };
    let total: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(node: &str, concurrency: f64) -> BTreeMap<NodeName, SourceDemand> {
        BTreeMap::from([(NodeName::from(node), SourceDemand { concurrency, requests_per_second: concurrency })])
    }

    fn total(averages: Option<BTreeMap<NodeName, SourceDemand>>) -> Option<f64> {
        averages.map(|sources| sources.values().map(|demand| demand.concurrency).sum())
    }

    const TWELVE: Duration = Duration::from_secs(12);

    #[test]
    fn a_partial_window_averages_what_there_is() {
        let mut history = DemandHistory::default();
        assert_eq!(history.average(100, TWELVE, Aggregation::Linear), None);
        history.record(100, one("node1", 4.0));
        history.record(101, one("node3", 8.0));
        assert_eq!(total(history.average(101, TWELVE, Aggregation::Linear)), Some(6.0));
        for second in 102..=111 {
            history.record(second, BTreeMap::new());
        }
        assert_eq!(total(history.average(111, TWELVE, Aggregation::Linear)), Some(1.0));
        history.record(112, BTreeMap::new());
        assert!((total(history.average(112, TWELVE, Aggregation::Linear)).unwrap() - 8.0 / 12.0).abs() < 1e-12);
        assert_eq!(total(history.average(112, Duration::from_secs(2), Aggregation::Linear)), Some(0.0));
    }

    #[test]
    fn missing_seconds_are_not_zero_and_stale_ones_no_data() {
        let mut history = DemandHistory::default();
        history.record(100, one("node1", 4.0));
        history.record(104, one("node1", 4.0));
        assert_eq!(total(history.average(104, TWELVE, Aggregation::Linear)), Some(4.0));
        assert_eq!(history.average(110, TWELVE, Aggregation::Linear), None);
    }

    #[test]
    fn the_share_of_active_seconds_is_of_the_whole_window() {
        let mut history = DemandHistory::default();
        history.record(100, one("node1", 4.0));
        history.record(101, one("node1", 4.0));
        assert_eq!(history.active_share(101, Duration::from_secs(4))[&NodeName::from("node1")], 0.5);
    }

    #[test]
    fn exponential_weights_favour_the_newest_and_sum_to_one() {
        let weights = weights(Aggregation::WeightedExponential, 60);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(weights.windows(2).all(|pair| pair[0] > pair[1]) && weights[0] > 0.19);
    }
}
