//! How many requests for a revision a gateway has on their way to the pods at once; activators hold
//! what is more. Pure.
//!
//! A queue-proxy lets ten times as many requests wait as its pod takes, and refuses the others in
//! the same words in which an application could answer. So nothing is sent to a pod that it could
//! refuse: what all gateways may send it, and what the activators send it for those that they hold,
//! is less than it has places for.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::plan::NodeWeights;
use crate::kubernetes::objects::Endpoint;

/// The limits that there are. Few, so that a gateway finds its own among them quickly; each is at
/// most half as much again as the one before.
pub(crate) const STEPS: [u32; 32] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288,
    16384, 24576, 32768, 49152, 65536,
];

/// How many activators hold what is too much for one revision's pods. Each may send a pod as many
/// requests as it takes at once.
pub(crate) const ACTIVATORS: usize = 3;

/// A pod's places, in multiples of what it takes at once, that are the gateways': the queue-proxy
/// has eleven, and the activators' are left out.
const PLACES: f64 = 11.0 - ACTIVATORS as f64;

/// Requests beyond those that a pod takes at once are likely to be many, compared with the latter,
/// where these are few: so many may always wait at a pod.
const LEAST_WAITING: u32 = 3;

/// How many requests each source node's gateway may have on their way to the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverflowLimits {
    by_source: BTreeMap<String, u32>,
    others: u32,
}

impl OverflowLimits {
    /// The limits of a revision whose pods at `endpoints` take `concurrency` requests each, by the
    /// plan's rows. `senders` are the source nodes that have sent requests for it.
    ///
    /// A source may fill its planned nodes' pods twice, so that requests seldom go a longer way
    /// only because they do not come evenly; but no more than its part of the pods' places. The
    /// places at a node are divided among the senders that are planned to send there, and one more
    /// that may come. A source is never without: one request of its own may be on its way.
    ///
    /// ```
    /// use std::collections::{BTreeMap, BTreeSet};
    /// use std::num::NonZeroU32;
    /// use locality_ingress::endpoints::OverflowLimits;
    /// use locality_ingress::kubernetes::Endpoint;
    ///
    /// let pod = Endpoint {
    ///     address: [10, 0, 0, 1].into(),
    ///     port: 8012,
    ///     node: Some("near".into()),
    ///     stand_in: false,
    /// };
    /// let rows = ["near", "far"]
    ///     .map(|source| (source.to_owned(), BTreeMap::from([("near".to_owned(), 100)])));
    /// let five = NonZeroU32::new(5).unwrap();
    /// let of_one = BTreeSet::from(["near".to_owned()]);
    /// let limits = OverflowLimits::new(five, &[pod.clone()], Some(&rows.clone().into()), &of_one);
    /// // Five at work and five that wait, at the next step.
    /// assert_eq!(limits.of("near"), 12);
    /// // Forty places among three.
    /// let of_both = BTreeSet::from(["near".to_owned(), "far".to_owned()]);
    /// assert_eq!(OverflowLimits::new(five, &[pod], Some(&rows.into()), &of_both).of("near"), 12);
    /// ```
    #[must_use]
    pub fn new(concurrency: NonZeroU32, endpoints: &[Endpoint], rows: Option<&NodeWeights>, senders: &BTreeSet<String>) -> Self {
        let mut pods: BTreeMap<&str, f64> = BTreeMap::new();
        for endpoint in endpoints {
            *pods.entry(endpoint.node.as_deref().unwrap_or_default()).or_default() += 1.0;
        }
        let planned = |row: &BTreeMap<String, u32>| -> Vec<(String, f64)> {
            let with_pods = row.iter().filter(|(node, weight)| **weight > 0 && pods.contains_key(node.as_str()));
            with_pods.map(|(node, weight)| (node.clone(), f64::from(*weight))).collect()
        };
        let mut rows: BTreeMap<&str, Vec<(String, f64)>> =
            rows.into_iter().flatten().map(|(source, row)| (source.as_str(), planned(row))).collect();
        // Where nothing is planned a source with pods on its own node sends to these.
        for node in pods.keys().filter(|node| !node.is_empty()) {
            let row = rows.entry(node).or_default();
            if row.is_empty() {
                row.push(((*node).to_owned(), 1.0));
            }
        }
        let mut senders_to: BTreeMap<&str, f64> = BTreeMap::new();
        for (_, row) in rows.iter().filter(|(source, _)| senders.contains(**source)) {
            for (node, _) in row {
                *senders_to.entry(node).or_default() += 1.0;
            }
        }
        // Of those that no plan speaks of it is not known which pods they send to.
        let unplanned = senders.iter().filter(|sender| rows.get(sender.as_str()).is_none_or(Vec::is_empty)).count();
        let at_once = f64::from(concurrency.get());
        let wanted = f64::from(concurrency.get().saturating_add(concurrency.get().max(LEAST_WAITING)));
        let safe = |node: &str| {
            let among = senders_to.get(node).copied().unwrap_or(0.0) + as_f64(unplanned);
            PLACES * at_once / (among + 1.0)
        };
        let limit = |row: &[(String, f64)]| {
            let whole: f64 = row.iter().map(|(_, weight)| weight).sum();
            let least = |of: &dyn Fn(&str) -> f64| {
                let each =
                    row.iter().map(|(node, weight)| of(node) * pods.get(node.as_str()).copied().unwrap_or(0.0) * whole / weight);
                each.fold(f64::INFINITY, f64::min)
            };
            step(least(&|_| wanted), least(&safe))
        };
        let by_source = rows.iter().filter(|(_, row)| !row.is_empty());
        let by_source = by_source.map(|(source, row)| ((*source).to_owned(), limit(row))).collect();
        Self { by_source, others: step(wanted, PLACES * at_once / (as_f64(senders.len()) + 1.0)) }
    }

    /// The limit of the gateway on `source`.
    #[must_use]
    pub fn of(&self, source: &str) -> u32 {
        self.by_source.get(source).copied().unwrap_or(self.others)
    }

    /// Each limit that any gateway has.
    #[must_use]
    pub fn all(&self) -> BTreeSet<u32> {
        self.by_source.values().copied().chain([self.others]).collect()
    }
}

/// The first step that is `wanted`, or else the last that is `safe`; at least one.
fn step(wanted: f64, safe: f64) -> u32 {
    let enough = STEPS.into_iter().find(|step| f64::from(*step) >= wanted).unwrap_or(u32::MAX);
    let most = STEPS.into_iter().rev().find(|step| f64::from(*step) <= safe).unwrap_or(1);
    enough.min(most)
}

/// The activators that hold what is too much for the pods of a revision called `name`: few of them,
/// not the same for each revision.
#[must_use]
pub(crate) fn holders(name: &str, mut activators: Vec<Endpoint>) -> Vec<Endpoint> {
    if activators.len() > ACTIVATORS {
        activators.sort_by_cached_key(|activator| fnv(name, &activator.address.to_string()));
        activators.truncate(ACTIVATORS);
        activators.sort_unstable();
    }
    activators
}

/// The same in every replica and after every restart.
fn fnv(name: &str, address: &str) -> u64 {
    let bytes = name.bytes().chain([b'/']).chain(address.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

// Counts of nodes.
#[allow(clippy::cast_precision_loss)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(node: &str, last: u8) -> Endpoint {
        Endpoint { address: [10, 0, 0, last].into(), port: 8012, node: Some(node.to_owned()), stand_in: false }
    }

    fn row(weights: &[(&str, u32)]) -> BTreeMap<String, u32> {
        weights.iter().map(|(node, weight)| ((*node).to_owned(), *weight)).collect()
    }

    fn limits(concurrency: u32, pods: &[(&str, u8)], rows: &[(&str, &[(&str, u32)])], senders: &[&str]) -> OverflowLimits {
        let endpoints: Vec<_> = pods.iter().flat_map(|(node, count)| (0..*count).map(|last| on(node, last))).collect();
        let rows: NodeWeights = rows.iter().map(|(source, weights)| ((*source).to_owned(), row(weights))).collect();
        let senders = senders.iter().map(|sender| (*sender).to_owned()).collect();
        OverflowLimits::new(NonZeroU32::new(concurrency).unwrap(), &endpoints, Some(&rows), &senders)
    }

    #[test]
    fn a_source_fills_its_pods_twice_and_no_node_of_its_row_more_than_that() {
        let all: &[(&str, u32)] = &[("a", 50), ("b", 25), ("c", 25)];
        let limits = limits(5, &[("a", 4), ("b", 2), ("c", 2)], &[("a", all)], &["a"]);
        assert_eq!(limits.of("a"), 96, "eight pods with ten each");
        let skewed: &[(&str, u32)] = &[("a", 90), ("b", 10)];
        let limits = super::tests::limits(5, &[("a", 1), ("b", 7)], &[("a", skewed)], &["a"]);
        assert_eq!(limits.of("a"), 12, "what goes to its one near pod counts");
    }

    #[test]
    fn senders_share_a_pods_places_and_who_never_sent_is_reckoned_with() {
        let to_a: &[(&str, u32)] = &[("a", 100)];
        let rows: Vec<_> = ["a", "b", "c"].map(|source| (source, to_a)).into();
        let limit = |senders: &[&str], source| limits(1, &[("a", 1)], &rows, senders).of(source);
        assert_eq!((limit(&[], "a"), limit(&["a"], "a")), (4, 4));
        assert_eq!((limit(&["a", "b"], "a"), limit(&["a", "b"], "c")), (2, 2));
        assert_eq!(limit(&["a", "b", "c"], "a"), 2);
        assert_eq!(limit(&["a"], "nobody's"), 4);
    }

    #[test]
    fn without_a_plan_there_are_the_pods_of_the_own_node_or_else_one() {
        let senders = BTreeSet::from(["a".to_owned()]);
        let limits = OverflowLimits::new(NonZeroU32::new(5).unwrap(), &[on("a", 1), on("b", 2), on("b", 3)], None, &senders);
        assert_eq!((limits.of("a"), limits.of("b"), limits.of("c")), (12, 24, 12));
    }

    #[test]
    fn holders_are_few_and_differ_by_revision() {
        let activators: Vec<_> = (0..20).map(|last| on("a", last)).collect();
        assert_eq!(holders("ns/one", activators[..2].to_vec()), activators[..2]);
        let (one, other) = (holders("ns/one", activators.clone()), holders("ns/other", activators));
        assert_eq!((one.len(), other.len()), (ACTIVATORS, ACTIVATORS));
        assert_ne!(one, other);
    }

    proptest! {
        /// Whatever the senders do at once, no pod is sent more than it has places for; but for one
        /// request of each.
        #[test]
        fn no_pod_is_sent_what_it_would_refuse(
            concurrency in 1_u32..200,
            pods in prop::collection::btree_map("[a-d]", 1_u8..6, 1..4),
            rows in prop::collection::btree_map("[a-h]", prop::collection::btree_map("[a-d]", 1_u32..100, 1..4), 1..8),
            senders in prop::collection::btree_set("[a-h]", 0..8),
            newcomer in "[a-h]",
        ) {
            let endpoints: Vec<_> = pods.iter().flat_map(|(node, count)| (0..*count).map(|last| on(node, last))).collect();
            let limits = OverflowLimits::new(NonZeroU32::new(concurrency).unwrap(), &endpoints, Some(&rows), &senders);
            for (node, count) in &pods {
                let mut sent = 0.0;
                let mut ones = 0.0;
                for source in senders.iter().chain(Some(&newcomer).filter(|newcomer| !senders.contains(*newcomer))) {
                    let own = BTreeMap::from([(source.clone(), 1)]);
                    let planned = rows.get(source).filter(|row| row.keys().any(|node| pods.contains_key(node)));
                    let Some(row) = planned.or_else(|| pods.contains_key(source).then_some(&own)) else { continue };
                    let whole: u32 = row.iter().filter(|(node, _)| pods.contains_key(*node)).map(|(_, weight)| weight).sum();
                    let share = row.get(node).map_or(0.0, |weight| f64::from(*weight) / f64::from(whole));
                    let limit = limits.of(source);
                    if limit == 1 { ones += share } else { sent += f64::from(limit) * share }
                }
                prop_assert!(sent <= PLACES * f64::from(concurrency) * f64::from(*count) + 1e-6, "{sent} and {ones} to {node}: {limits:?}");
            }
            prop_assert!(limits.all().iter().all(|limit| STEPS.contains(limit)));
        }
    }
}
