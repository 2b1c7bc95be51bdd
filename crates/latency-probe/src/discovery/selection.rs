//! Which peers to probe: all of them up to a limit, above it a fixed number. Pure.
//!
//! The selected peers are spread over the zones by rendezvous hashing, so that a node that comes or
//! goes changes at most one choice of each prober. Draws are renewed slowly, each candidate's at
//! its own time, so that all pairs are seen over the days without all series changing at once.
//! Pinned nodes (those that serve or send) are always selected.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use latency_matrix::NodeName;

use crate::peers::{Peer, PeerSet};

/// Limits of the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectionLimits {
    /// Largest fleet (including this node) in which all pairs are probed. A fleet that was larger
    /// must fall below nine tenths of it, so that one node that comes and goes does not change the
    /// peers of all others.
    pub all_up_to: usize,
    /// Number of peers in a larger fleet.
    pub peers: usize,
    /// Time within which each choice is renewed once.
    pub renewal: Duration,
}

/// The peers to probe.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PeerSelection {
    /// The peers.
    pub peers: PeerSet,
    /// Number of nodes in the fleet, including this one.
    pub fleet: usize,
    /// Whether the peers are a choice, not all of the fleet.
    pub is_choice: bool,
}

/// Selects among `known` at `unix_seconds` of the wall clock. `was_choice` is
/// [`PeerSelection::is_choice`] of the previous selection.
#[must_use]
pub(crate) fn select(
    own: &NodeName,
    known: &PeerSet,
    pinned: &BTreeSet<NodeName>,
    limits: SelectionLimits,
    was_choice: bool,
    unix_seconds: u64,
) -> PeerSelection {
    let others = || known.iter().filter(|(node, _)| *node != own);
    let fleet = others().count() + 1;
    let all_up_to = if was_choice { limits.all_up_to * 9 / 10 } else { limits.all_up_to };
    if fleet <= all_up_to {
        return PeerSelection { peers: others().map(owned).collect(), fleet, is_choice: false };
    }
    let mut zones: BTreeMap<Option<&str>, Vec<(u64, &NodeName, &Peer)>> = BTreeMap::new();
    for (node, peer) in others() {
        zones.entry(peer.zone.as_deref()).or_default().push((draw(own, node, limits.renewal, unix_seconds), node, peer));
    }
    for candidates in zones.values_mut() {
        // Best draw last, for `pop`.
        candidates.sort_unstable_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)));
    }
    let mut peers: PeerSet = others().filter(|(node, _)| pinned.contains(*node)).map(owned).collect();
    let wanted = (peers.len() + limits.peers).min(fleet - 1);
    // One of each zone in turn. This node's zone is first, because most requests stay in it; the
    // order of the others differs from prober to prober.
    let own_zone = known.get(own).map(|peer| peer.zone.as_deref());
    let order = |zone| (Some(zone) != own_zone, hash(&(own, zone)));
    let mut turn: Vec<_> = zones.into_iter().map(|(zone, candidates)| (order(zone), candidates)).collect();
    turn.sort_unstable_by_key(|(order, _)| *order);
    while peers.len() < wanted {
        for (_, candidates) in &mut turn {
            let next = std::iter::from_fn(|| candidates.pop()).find(|(_, node, _)| !peers.contains_key(*node));
            if let Some((_, node, peer)) = next.filter(|_| peers.len() < wanted) {
                peers.insert(node.clone(), peer.clone());
            }
        }
    }
    PeerSelection { peers, fleet, is_choice: true }
}

fn owned((node, peer): (&NodeName, &Peer)) -> (NodeName, Peer) {
    (node.clone(), peer.clone())
}

/// A candidate's draw; the lowest win. Each candidate's draw is renewed at its own time.
fn draw(own: &NodeName, node: &NodeName, renewal: Duration, unix_seconds: u64) -> u64 {
    let period = renewal.as_secs().max(1);
    let phase = hash(&(own, node)) % period;
    hash(&(own, node, (unix_seconds + phase) / period))
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    // The hash need not be stable across builds: only this prober uses it.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Factor by which the interval grows with the fleet: 1 up to the limit, then plus the logarithm of
/// the fleet's size over the limit. With a limit of 64 and an interval of 1 s: 2.4 s at 256 nodes,
/// 3.7 s at 1,000, 5.4 s at 5,000.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
pub(crate) fn stretch(fleet: usize, all_up_to: usize) -> f64 {
    1.0 + (fleet.max(1) as f64 / all_up_to.max(1) as f64).ln().max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SelectionLimits = SelectionLimits { all_up_to: 64, peers: 32, renewal: Duration::from_secs(3_600) };

    fn fleet(nodes: u32, zones: u32) -> PeerSet {
        let peer = |n: u32| Peer { zone: Some(format!("zone{}", n % zones).into()), ..Peer::at((n.to_be_bytes(), 9799).into()) };
        (0..nodes).map(|n| (NodeName::from(format!("node{n}")), peer(n))).collect()
    }

    fn chosen(own: &str, known: &PeerSet, at: u64) -> BTreeSet<NodeName> {
        select(&own.into(), known, &BTreeSet::new(), LIMITS, false, at).peers.into_keys().collect()
    }

    #[test]
    fn pins_are_probed_beside_the_chosen_ones() {
        let limits = SelectionLimits { peers: 8, ..LIMITS };
        let chosen = select(&"node0".into(), &fleet(100, 1), &["node7".into()].into(), limits, false, 0);
        assert_eq!((chosen.peers.len(), chosen.fleet), (9, 100));
        assert!(chosen.peers.contains_key("node7") && !chosen.peers.contains_key("node0"));
    }

    #[test]
    fn the_interval_grows_with_the_logarithm_of_the_fleet() {
        assert_eq!((stretch(1, 64), stretch(64, 64)), (1.0, 1.0));
        assert!((stretch(5_000, 64) - 5.36).abs() < 0.01);
    }

    #[test]
    fn a_small_fleet_is_probed_whole() {
        assert_eq!(chosen("node0", &fleet(64, 3), 0).len(), 63);
        assert_eq!(chosen("elsewhere", &fleet(63, 3), 0).len(), 63);
        assert_eq!(chosen("node0", &fleet(65, 3), 0).len(), 32);
    }

    #[test]
    fn a_node_that_comes_and_goes_changes_no_peers_of_the_others() {
        let select = |nodes, was_choice| select(&"node0".into(), &fleet(nodes, 3), &BTreeSet::new(), LIMITS, was_choice, 0);
        let grown = select(65, false);
        assert!(grown.is_choice && !select(64, false).is_choice);
        let shrunk = select(64, grown.is_choice);
        assert!(shrunk.is_choice && shrunk.peers.keys().filter(|node| grown.peers.contains_key(*node)).count() >= 31);
        assert!(select(58, true).is_choice && !select(57, true).is_choice);
    }

    #[test]
    fn the_own_zone_is_never_left_out() {
        let known = fleet(1_000, 100);
        for own in ["node7", "node42", "node99"] {
            let own_zone = &known[own].zone;
            assert!(chosen(own, &known, 0).iter().any(|node| known[node].zone == *own_zone), "{own}");
        }
    }

    #[test]
    fn zones_get_equal_shares_however_large_they_are() {
        let mut known = fleet(1_010, 1);
        for (_, peer) in known.iter_mut().take(10) {
            peer.zone = Some("small".into());
        }
        let small = chosen("elsewhere", &known, 0).iter().filter(|node| known[*node].zone.as_deref() == Some("small")).count();
        assert_eq!(small, 10, "all ten of the small zone, because its share would be sixteen");
    }

    #[test]
    fn who_comes_or_goes_changes_one_choice() {
        let before = fleet(1_000, 7);
        let mut after = before.clone();
        after.remove("node500");
        after.insert("new".into(), before["node500"].clone());
        for prober in 0..50 {
            let own = format!("node{prober}");
            let changed = chosen(&own, &before, 0).difference(&chosen(&own, &after, 0)).count();
            assert!(changed <= 2, "{changed}");
        }
    }

    #[test]
    fn choices_are_renewed_slowly_and_in_the_end_reach_everybody() {
        let known = fleet(200, 4);
        let (mut seen, mut before) = (chosen("node0", &known, 0), chosen("node0", &known, 0));
        for minute in 1..60 * 48 {
            let now = chosen("node0", &known, minute * 60);
            let changed = before.difference(&now).count();
            assert!(changed <= 12, "{changed} of 32 within a minute");
            seen.extend(now.iter().cloned());
            before = now;
        }
        assert!(seen.len() >= 190, "{} of 199 in two days", seen.len());
    }

    #[test]
    fn every_node_is_probed_by_about_as_many() {
        let known = fleet(300, 3);
        let mut probed: BTreeMap<NodeName, u32> = BTreeMap::new();
        for prober in known.keys() {
            for node in chosen(prober.as_str(), &known, 0) {
                *probed.entry(node).or_default() += 1;
            }
        }
        assert_eq!(probed.len(), 300);
        assert!(probed.values().all(|count| (10..=60).contains(count)), "{probed:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_allowed_and_never_itself(nodes in 0_u32..300, zones in 1_u32..40, pins in proptest::collection::btree_set(0_u32..300, 0..20), at in any::<u32>()) {
            let known = fleet(nodes, zones);
            let pinned: BTreeSet<NodeName> = pins.iter().map(|n| NodeName::from(format!("node{n}"))).collect();
            let own = NodeName::from("node0");
            let selection = select(&own, &known, &pinned, LIMITS, false, u64::from(at));
            let others = known.keys().filter(|node| **node != own).count();
            let pinned_here = pinned.iter().filter(|node| **node != own && known.contains_key(*node)).count();
            prop_assert_eq!(selection.peers.len(), if others < 64 { others } else { (32 + pinned_here).min(others) });
            prop_assert!(!selection.peers.contains_key(&own));
            prop_assert!(pinned.iter().all(|node| *node == own || !known.contains_key(node) || selection.peers.contains_key(node)));
            prop_assert_eq!(selection, select(&own, &known, &pinned, LIMITS, false, u64::from(at)));
        }
    }
}
