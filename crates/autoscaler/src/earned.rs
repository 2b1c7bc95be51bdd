//! Replicas that a source node earns because its requests lose time on the wire.
//!
//! The KPA's total follows from load alone: two nodes with a light load each come to one pod, and
//! every request of one of them crosses the network. A second pod costs memory and saves that time.
//! The rule: a source node earns a local replica when
//! - it has had demand in at least [`Policy::steady_share`] of the seconds of the last
//!   [`Policy::gain_window`] (a stray request earns nothing), and
//! - a replica there would save at least [`Policy::saved_seconds_per_second`] of network time: its
//!   requests per second times the round trip to the nearest node that has a replica anyway. An
//!   unknown round trip is no reason: unknown is not slow either.
//!
//! A source that has earned one replica and needs more (its requests in flight, over what one
//! replica should carry) gets them under the same condition: the requests that would overflow to
//! another node have to lose as much time there.
//!
//! A replica so earned is kept while the node has had demand in at least [`Policy::keep_share`] of
//! the stable window's seconds; so pods come quickly and go slowly. The total is the greater of the
//! KPA's and what was earned, within max-scale; the locality never adds to what the load already
//! asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use latency_matrix::NodeName;

/// When a replica is earned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Over how long a source must have been steady.
    pub gain_window: Duration,
    /// In what share of those seconds it must have had demand.
    pub steady_share: f64,
    /// In what share of the stable window's seconds it must have had demand to keep what it earned.
    pub keep_share: f64,
    /// Network time saved per second that is worth a replica; 0.002 is two requests a second over a
    /// link of one millisecond, or one request every 25 seconds over one of fifty.
    pub saved_seconds_per_second: f64,
    /// Each request must save at least so much; at a tenth of a millisecond, many small savings are
    /// no reason for a pod on every node.
    pub saved_seconds_per_request: f64,
}

impl Policy {
    fn is_worth(&self, requests_per_second: f64, saved_seconds: f64) -> bool {
        saved_seconds >= self.saved_seconds_per_request && requests_per_second * saved_seconds >= self.saved_seconds_per_second
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            gain_window: Duration::from_secs(3),
            steady_share: 0.6,
            keep_share: 0.2,
            saved_seconds_per_second: 0.002,
            saved_seconds_per_request: 0.0005,
        }
    }
}

/// One source node, as far as this rule looks at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarningSource {
    /// Requests per second that enter here, over the gain window.
    pub requests_per_second: f64,
    /// Demand that enters here, divided by the target of one replica.
    pub replicas_worth: f64,
    /// Share of the gain window's seconds with demand.
    pub recent_share: f64,
    /// Share of the stable window's seconds with demand.
    pub stable_share: f64,
    /// How many replicas the node can host at all.
    pub most: u32,
}

/// The source nodes that have earned replicas and how many, given which had earned one before.
///
/// `network_seconds` is the round trip between two sources where it is known, by their positions in
/// name order. Sources are taken in the order of their request rate: the busiest is served by the
/// replica there is anyway, and each further one is measured against the nodes chosen so far.
#[must_use]
pub fn earned(
    sources: &BTreeMap<NodeName, EarningSource>,
    held: &BTreeSet<NodeName>,
    policy: &Policy,
    network_seconds: impl Fn(usize, usize) -> Option<f64>,
) -> BTreeMap<NodeName, u32> {
    let mut steady: Vec<Steady<'_>> = sources
        .iter()
        .enumerate()
        .map(|(position, (node, source))| Steady { position, node, source, is_held: held.contains(node) })
        .filter(|Steady { source, is_held, .. }| {
            let is_steady = source.recent_share >= policy.steady_share || *is_held && source.stable_share >= policy.keep_share;
            // A node without room would earn a replica that runs on another node.
            is_steady && source.most > 0
        })
        .collect();
    steady.sort_by(|one, other| {
        let held_first = other.is_held.cmp(&one.is_held);
        let busier_first = || other.source.requests_per_second.total_cmp(&one.source.requests_per_second);
        held_first.then_with(busier_first).then(one.position.cmp(&other.position))
    });
    let nearest = |from: &Steady<'_>, among: &[Steady<'_>]| {
        let others = among.iter().filter(|other| other.position != from.position);
        others.filter_map(|other| network_seconds(from.position, other.position)).min_by(f64::total_cmp)
    };
    let mut chosen: Vec<Steady<'_>> = Vec::with_capacity(steady.len());
    for one in steady {
        let is_worth = |seconds| policy.is_worth(one.source.requests_per_second, seconds);
        if chosen.is_empty() || one.is_held || nearest(&one, &chosen).is_some_and(is_worth) {
            chosen.push(one);
        }
    }
    let count = |one: &Steady<'_>| {
        let source = one.source;
        // Whole replicas, and a last one for the rest where sending that elsewhere would cost
        // enough.
        let whole = source.replicas_worth.max(0.0).floor();
        let rest = source.replicas_worth.max(0.0) - whole;
        let overflow_per_second = source.requests_per_second * rest / source.replicas_worth.max(f64::MIN_POSITIVE);
        let last = nearest(one, &chosen).is_some_and(|seconds| policy.is_worth(overflow_per_second, seconds));
        // A number of pods: whole, not negative, far below what u32 holds.
        (whole as u32).saturating_add(u32::from(last)).max(1).min(source.most)
    };
    chosen.iter().map(|one| (one.node.clone(), count(one))).collect()
}

/// A source whose demand is steady.
struct Steady<'a> {
    /// In name order.
    position: usize,
    node: &'a NodeName,
    source: &'a EarningSource,
    is_held: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn source(requests_per_second: f64, recent_share: f64, stable_share: f64) -> EarningSource {
        EarningSource { requests_per_second, replicas_worth: 0.1, recent_share, stable_share, most: 10 }
    }

    fn loaded(replicas_worth: f64) -> EarningSource {
        EarningSource { replicas_worth, ..source(100.0, 1.0, 1.0) }
    }

    /// node1 and node2 one millisecond apart, node3 fifty from both, nothing known of node4.
    fn network(from: &NodeName, to: &NodeName) -> Option<f64> {
        match (from.as_str(), to.as_str()) {
            ("node4", _) | (_, "node4") => None,
            (one, other) if one == other => Some(0.0),
            ("node3", _) | (_, "node3") => Some(0.050),
            _ => Some(0.001),
        }
    }

    fn between(sources: &BTreeMap<NodeName, EarningSource>) -> impl Fn(usize, usize) -> Option<f64> {
        let names: Vec<NodeName> = sources.keys().cloned().collect();
        move |from, to| network(&names[from], &names[to])
    }

    #[rstest]
    #[case::steady_over_a_slow_link(&[("node1", source(10.0, 1.0, 1.0)), ("node3", source(5.0, 1.0, 0.5))], &[], &[("node1", 1), ("node3", 1)])]
    #[case::a_stray_request(&[("node1", source(10.0, 1.0, 1.0)), ("node3", source(0.3, 0.3, 0.1))], &[], &[("node1", 1)])]
    #[case::too_little_over_a_fast_link(&[("node1", source(10.0, 1.0, 1.0)), ("node2", source(1.0, 1.0, 1.0))], &[], &[("node1", 1)])]
    #[case::enough_over_a_fast_link(&[("node1", source(10.0, 1.0, 1.0)), ("node2", source(5.0, 1.0, 1.0))], &[], &[("node1", 1), ("node2", 1)])]
    #[case::unknown_is_no_reason(&[("node1", source(10.0, 1.0, 1.0)), ("node4", source(9.0, 1.0, 1.0))], &[], &[("node1", 1)])]
    #[case::kept_through_a_pause(&[("node1", source(10.0, 1.0, 1.0)), ("node3", source(0.0, 0.0, 0.3))], &["node3"], &[("node1", 1), ("node3", 1)])]
    #[case::lost_after_a_window(&[("node1", source(10.0, 1.0, 1.0)), ("node3", source(0.0, 0.0, 0.1))], &["node3"], &[("node1", 1)])]
    #[case::overflow_over_a_slow_link(&[("node1", loaded(1.2)), ("node3", loaded(1.1))], &[], &[("node1", 2), ("node3", 2)])]
    #[case::overflow_of_one_source_alone_has_nowhere_to_go(&[("node1", loaded(2.9))], &[], &[("node1", 2)])]
    #[case::nobody(&[], &["node3"], &[])]
    fn worked_examples(#[case] sources: &[(&str, EarningSource)], #[case] held: &[&str], #[case] expected: &[(&str, u32)]) {
        let sources = sources.iter().map(|&(node, source)| (node.into(), source)).collect();
        let held = held.iter().map(|&node| node.into()).collect();
        let expected: BTreeMap<NodeName, u32> = expected.iter().map(|&(node, count)| (node.into(), count)).collect();
        assert_eq!(earned(&sources, &held, &Policy::default(), between(&sources)), expected);
    }

    proptest! {
        /// Only sources earn, the busiest steady one always does, and never more than one beyond
        /// what the load is worth.
        #[test]
        fn earns_little_more_than_the_load_is_worth(rates in prop::collection::btree_map("node[1-6]", (0.1..1e4, 0.0..9.0), 1..6)) {
            let sources: BTreeMap<NodeName, EarningSource> = rates
                .into_iter()
                .map(|(node, (rate, worth))| (NodeName::from(node), EarningSource { replicas_worth: worth, ..source(rate, 1.0, 1.0) }))
                .collect();
            let chosen = earned(&sources, &BTreeSet::new(), &Policy::default(), between(&sources));
            prop_assert!(!chosen.is_empty());
            for (node, &count) in &chosen {
                prop_assert!(count >= 1 && f64::from(count) <= (sources[node].replicas_worth + 1.0).max(1.0));
            }
        }
    }
}
