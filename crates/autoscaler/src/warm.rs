//! Where the next request is likely to come from, by the demand of earlier days.
//!
//! Per half hour of the day (UTC, which is as good as any: a day is as long everywhere) the
//! requests of the sources that sent most are kept, and count a fifth less with every day that
//! passes. If requests arrive at random, the share of a source in the rate of all is the
//! probability that it asks first.

use std::collections::BTreeMap;

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use crate::kpa::SourceDemand;

/// Half hours of a day.
const SLOTS: u64 = 48;
/// Length of one, seconds.
const SLOT_SECONDS: u64 = 1800;
/// How often the likely sources are computed again without demand, seconds.
const REVIEW_SECONDS: u64 = 900;
/// Sources kept per half hour.
const SOURCES: usize = 4;
/// Factor by which a day reduces the weight of older requests.
const DAILY: f64 = 0.8;
/// Sources with fewer weighted requests are dropped.
const LEAST: f64 = 0.01;

/// What is likely to come first: a share of 1 per source node.
pub type Outlook = BTreeMap<NodeName, f64>;

/// The demand of earlier days. At most 48 half hours with four sources each.
///
/// ```
/// use std::collections::BTreeMap;
/// use autoscaler::{kpa::SourceDemand, warm::Profile};
///
/// let rate = |requests_per_second| SourceDemand { concurrency: 1.0, requests_per_second };
/// let mut profile = Profile::default();
/// let eight = 8 * 3600;
/// profile
///     .record(eight, &BTreeMap::from([("node1".into(), rate(1.0)), ("node3".into(), rate(3.0))]));
/// // The next day, shortly before eight.
/// let outlook = profile.outlook(24 * 3600 + eight - 600);
/// assert_eq!(outlook["node3"], 0.75);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    slots: BTreeMap<u64, Slot>,
}

/// One half hour of the day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// The day, counted from 1970, that the requests are weighed for.
    day: u64,
    /// Requests by source.
    requests: BTreeMap<NodeName, f64>,
}

impl Slot {
    /// Requests, weighed for `day`.
    fn faded(&self, day: u64) -> impl Iterator<Item = (&NodeName, f64)> {
        let days = i32::try_from(day.saturating_sub(self.day)).unwrap_or(i32::MAX);
        let factor = DAILY.powi(days);
        self.requests.iter().map(move |(node, requests)| (node, requests * factor)).filter(|(_, requests)| *requests >= LEAST)
    }

    /// Adds requests of one source. Where there are too many sources already, all lose as much as
    /// the one that goes: what has more than a fifth of all requests is never lost (Misra and Gries
    /// 1982).
    fn add(&mut self, node: &NodeName, requests: f64) {
        *self.requests.entry(node.clone()).or_default() += requests;
        if self.requests.len() > SOURCES {
            let least = self.requests.values().copied().fold(f64::INFINITY, f64::min);
            self.requests.retain(|_, held| {
                *held -= least;
                *held > 0.0
            });
        }
    }
}

impl Profile {
    /// Takes in the demand of one second. `wall_seconds` are counted from 1970.
    pub fn record(&mut self, wall_seconds: u64, sources: &BTreeMap<NodeName, SourceDemand>) {
        let asking = |demand: &SourceDemand| demand.requests_per_second.is_finite() && demand.requests_per_second > 0.0;
        let mut asking = sources.iter().filter(|(_, demand)| asking(demand)).peekable();
        if asking.peek().is_none() {
            return;
        }
        let (day, slot) = (wall_seconds / (SLOTS * SLOT_SECONDS), wall_seconds / SLOT_SECONDS % SLOTS);
        let slot = self.slots.entry(slot).or_default();
        if slot.day != day {
            // A clock that was set back makes nothing weigh more.
            slot.requests = slot.faded(day).map(|(node, requests)| (node.clone(), requests)).collect();
            slot.day = day;
        }
        for (node, demand) in asking {
            slot.add(node, demand.requests_per_second.min(1e9));
        }
    }

    /// The sources likely to send the next request: by this half hour and the next, weighted by how
    /// near the next one is. If both are empty, the first later half hour with data counts. Empty
    /// without data.
    #[must_use]
    pub fn outlook(&self, wall_seconds: u64) -> Outlook {
        let now = wall_seconds / SLOT_SECONDS;
        let passed = (wall_seconds % SLOT_SECONDS) as f64 / SLOT_SECONDS as f64;
        let mut weights = Outlook::new();
        let mut add = |ahead: u64, share: f64| {
            let day = (now + ahead) / SLOTS;
            if let Some(slot) = self.slots.get(&((now + ahead) % SLOTS)) {
                for (node, requests) in slot.faded(day) {
                    *weights.entry(node.clone()).or_default() += requests * share;
                }
            }
            !weights.is_empty()
        };
        add(0, 1.0 - passed);
        if !add(1, passed) {
            let _is_known = (1..SLOTS).any(|ahead| add(ahead, 1.0));
        }
        weights.retain(|_, weight| *weight > 0.0);
        let total: f64 = weights.values().sum();
        weights.values_mut().for_each(|weight| *weight /= total);
        weights
    }
}

/// Changes when the likely sources must be computed again, even if no input changed.
#[must_use]
pub fn review(wall_seconds: u64) -> u64 {
    wall_seconds / REVIEW_SECONDS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn rates(pairs: &[(&str, f64)]) -> BTreeMap<NodeName, SourceDemand> {
        let demand = |requests_per_second| SourceDemand { concurrency: 0.0, requests_per_second };
        pairs.iter().map(|&(node, rate)| (node.into(), demand(rate))).collect()
    }

    fn likeliest(outlook: &Outlook) -> Option<&str> {
        outlook.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(node, _)| node.as_str())
    }

    #[test]
    fn mornings_and_evenings_are_told_apart() {
        let mut profile = Profile::default();
        profile.record(8 * HOUR, &rates(&[("office", 5.0), ("home", 1.0)]));
        profile.record(20 * HOUR, &rates(&[("home", 4.0)]));
        assert_eq!(likeliest(&profile.outlook(DAY + 8 * HOUR)), Some("office"));
        assert_eq!(likeliest(&profile.outlook(DAY + 20 * HOUR)), Some("home"));
        // At noon the evening comes first, at night the morning.
        assert_eq!(likeliest(&profile.outlook(DAY + 12 * HOUR)), Some("home"));
        assert_eq!(likeliest(&profile.outlook(DAY + 23 * HOUR)), Some("office"));
    }

    #[test]
    fn later_days_weigh_more_and_old_ones_are_forgotten() {
        let mut profile = Profile::default();
        for day in 0..4 {
            profile.record(day * DAY, &rates(&[("old", 1.0)]));
        }
        for day in 4..8 {
            profile.record(day * DAY, &rates(&[("new", 1.0)]));
        }
        let outlook = profile.outlook(8 * DAY);
        assert_eq!(likeliest(&outlook), Some("new"));
        assert!(outlook["old"] > 0.2, "{outlook:?}");
        assert_eq!(profile.outlook(100 * DAY), Outlook::new());
    }

    #[test]
    fn nothing_is_made_up() {
        let mut profile = Profile::default();
        assert_eq!(profile.outlook(0), Outlook::new());
        profile.record(0, &rates(&[("node1", 0.0), ("node2", f64::NAN), ("node3", f64::INFINITY)]));
        assert_eq!((profile.outlook(0), &profile), (Outlook::new(), &Profile::default()));
    }

    proptest! {
        /// However many sources ask at whatever times, memory is bounded and shares are shares.
        #[test]
        fn memory_is_bounded_and_shares_sum_to_one(
            seconds in prop::collection::vec((0_u64..10 * DAY, 0_u8..30, 0.0_f64..1e12), 0..300),
            at in 0_u64..20 * DAY,
        ) {
            let mut profile = Profile::default();
            for (second, node, rate) in seconds {
                profile.record(second, &rates(&[(&format!("node{node}"), rate)]));
            }
            prop_assert!(profile.slots.len() <= SLOTS as usize);
            prop_assert!(profile.slots.values().all(|slot| slot.requests.len() <= SOURCES));
            let outlook = profile.outlook(at);
            let sum: f64 = outlook.values().sum();
            prop_assert!(outlook.is_empty() || (sum - 1.0).abs() < 1e-9, "{outlook:?}");
            prop_assert!(outlook.values().all(|share| *share > 0.0 && *share <= 1.0), "{outlook:?}");
        }

        /// A source of more than a fifth of a half hour's requests is kept, however they are mixed.
        #[test]
        fn who_asks_most_is_never_lost(mut nodes in prop::collection::vec(1_u8..200, 0..150).prop_map(|mut others| {
            let own = others.len() / 4 + 1;
            others.extend(std::iter::repeat_n(0, own));
            others
        }).prop_shuffle()) {
            let mut profile = Profile::default();
            for node in nodes.drain(..) {
                profile.record(0, &rates(&[(&format!("node{node}"), 1.0)]));
            }
            prop_assert!(profile.outlook(0).contains_key("node0"), "{profile:?}");
        }
    }
}
