//! Spill: if a revision has a concurrency limit and the planned nodes of a source node are full,
//! the other requests go where there is room. Pure.
//!
//! A full pod does not refuse requests: its queue-proxy queues them while pods elsewhere are idle.
//! Retrying elsewhere is not possible either, because an application's own 503 must not be retried.
//! So the shares are moved, several times a second, by the reported requests in flight.

use std::collections::BTreeMap;

use gateway_link::demand::ByServing;

/// Shares add up to about this.
const WHOLE: f64 = 100.0;

/// The shares of the source nodes with more requests in flight than their planned nodes accept;
/// other source nodes are omitted.
///
/// `planned` is the planned row of a source node, `slots` the concurrency of all pods of a serving
/// node, `loads` the requests in flight. A planned node gets its planned share of the requests in
/// flight, up to the slots that other sources leave it, less its queue, so that the queue drains.
/// The rest goes to other nodes in proportion to their room, computed in the same way. Without room
/// anywhere it goes to all nodes in proportion to their slots.
///
/// ```
/// use std::collections::BTreeMap;
/// use gateway_link::demand::Load;
/// use locality_ingress::endpoints::move_shares;
///
/// let slots = BTreeMap::from([("near".to_owned(), 4), ("far".to_owned(), 20)]);
/// let in_flight = |count| Load { in_flight: count, ..Load::default() };
/// let loads = BTreeMap::from([(
///     "near".to_owned(),
///     BTreeMap::from([("near".to_owned(), in_flight(4)), ("far".to_owned(), in_flight(12))]),
/// )]);
/// let near_only = |_: &str| BTreeMap::from([("near".to_owned(), 100)]);
/// let moved = move_shares(near_only, &slots, &loads);
/// assert_eq!(moved["near"], BTreeMap::from([("near".to_owned(), 25), ("far".to_owned(), 75)]));
/// ```
#[must_use]
pub fn move_shares(
    planned: impl Fn(&str) -> BTreeMap<String, u32>,
    slots: &BTreeMap<String, u32>,
    loads: &BTreeMap<String, ByServing>,
) -> BTreeMap<String, BTreeMap<String, u32>> {
    let in_flight = |source: &str, serving: &str| -> f64 {
        // Requests in flight are exact in an f64.
        #[allow(clippy::cast_precision_loss)]
        loads.get(source).and_then(|to| to.get(serving)).map_or(0.0, |load| load.in_flight as f64)
    };
    let mut moved = BTreeMap::new();
    for source in loads.keys() {
        let row: Vec<(String, f64)> = planned(source)
            .into_iter()
            .filter(|(node, _)| slots.contains_key(node))
            .map(|(node, share)| (node, f64::from(share)))
            .collect();
        let whole: f64 = row.iter().map(|(_, share)| share).sum();
        let total: f64 = slots.keys().map(|node| in_flight(source, node)).sum();
        if whole <= 0.0 || total <= 0.0 {
            continue;
        }
        let open = |node: &str| -> f64 {
            let others: f64 = loads.keys().filter(|other| *other != source).map(|other| in_flight(other, node)).sum();
            (f64::from(slots.get(node).copied().unwrap_or(0)) - others).max(0.0)
        };
        let wanted: Vec<(&str, f64)> = row.iter().map(|(node, share)| (node.as_str(), total * share / whole)).collect();
        if wanted.iter().all(|(node, wanted)| *wanted <= open(node)) {
            continue;
        }
        // The requests that should be in flight from here to a node: its open slots, corrected by
        // the present excess or shortage.
        let target = |node: &str| (2.0 * open(node) - in_flight(source, node)).max(0.0);
        let mut given: BTreeMap<&str, f64> = wanted.iter().map(|(node, wanted)| (*node, wanted.min(target(node)))).collect();
        let rest = total - given.values().sum::<f64>();
        let room: BTreeMap<&str, f64> =
            slots.keys().map(|node| (node.as_str(), target(node) - given.get(node.as_str()).copied().unwrap_or(0.0))).collect();
        share_out(&mut given, rest, &room, slots);
        let shares = given.into_iter().filter_map(|(node, given)| {
            // Between 0 and 100.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let share = (given / total * WHOLE).round() as u32;
            (share > 0).then(|| (node.to_owned(), share))
        });
        let shares: BTreeMap<_, _> = shares.collect();
        if !shares.is_empty() {
            moved.insert(source.clone(), shares);
        }
    }
    moved
}

fn share_out<'a>(given: &mut BTreeMap<&'a str, f64>, rest: f64, room: &BTreeMap<&'a str, f64>, slots: &'a BTreeMap<String, u32>) {
    let free: f64 = room.values().sum();
    let everything: f64 = slots.values().map(|slots| f64::from(*slots)).sum();
    for (node, slots) in slots {
        let part = if free > 0.0 {
            room.get(node.as_str()).copied().unwrap_or(0.0) / free
        } else if everything > 0.0 {
            f64::from(*slots) / everything
        } else {
            0.0
        };
        *given.entry(node.as_str()).or_default() += rest * part;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use gateway_link::demand::Load;

    fn loads(entries: &[(&str, &str, u64)]) -> BTreeMap<String, ByServing> {
        let mut loads: BTreeMap<String, ByServing> = BTreeMap::new();
        for (source, serving, in_flight) in entries {
            let load = Load { in_flight: *in_flight, ..Load::default() };
            loads.entry((*source).to_owned()).or_default().insert((*serving).to_owned(), load);
        }
        loads
    }

    fn slots(entries: &[(&str, u32)]) -> BTreeMap<String, u32> {
        entries.iter().map(|(node, slots)| ((*node).to_owned(), *slots)).collect()
    }

    fn own(source: &str) -> BTreeMap<String, u32> {
        BTreeMap::from([(source.to_owned(), 100)])
    }

    #[test]
    fn who_fits_where_it_is_planned_stays_there() {
        let moved = move_shares(own, &slots(&[("a", 4), ("b", 4)]), &loads(&[("a", "a", 4), ("b", "b", 1)]));
        assert!(moved.is_empty(), "{moved:?}");
    }

    #[test]
    fn a_queue_drains_before_its_node_gets_more() {
        let moved = move_shares(own, &slots(&[("a", 4), ("b", 20)]), &loads(&[("a", "a", 16)]));
        assert_eq!(moved, BTreeMap::from([("a".to_owned(), BTreeMap::from([("b".to_owned(), 100)]))]));
    }

    #[test]
    fn slots_that_others_use_are_not_there() {
        // Node b is full with its own.
        let moved =
            move_shares(own, &slots(&[("a", 4), ("b", 8), ("c", 8)]), &loads(&[("a", "a", 4), ("a", "c", 4), ("b", "b", 8)]));
        assert_eq!(moved, BTreeMap::from([("a".to_owned(), BTreeMap::from([("a".to_owned(), 50), ("c".to_owned(), 50)]))]));
    }

    #[test]
    fn with_all_full_every_node_gets_its_part() {
        let moved = move_shares(own, &slots(&[("a", 1), ("b", 3)]), &loads(&[("a", "a", 10), ("a", "b", 30)]));
        assert_eq!(moved["a"], BTreeMap::from([("a".to_owned(), 25), ("b".to_owned(), 75)]));
    }

    /// Sixteen clients that each ask again as soon as they have their answer, and pods that take
    /// 100 ms for a request: how many requests a second are answered when shares move with every
    /// report, 50 ms apart.
    #[test]
    fn clients_get_nearly_what_the_pods_can_do() {
        const CLIENTS: u64 = 16;
        let slots = slots(&[("a", 4), ("b", 8), ("c", 8)]);
        let nodes: Vec<&String> = slots.keys().collect();
        // Per node, the moments in ms at which requests in service end; and how many wait.
        let mut serving: Vec<Vec<u64>> = vec![Vec::new(); nodes.len()];
        let mut waiting = vec![0_u64; nodes.len()];
        let mut row = own("a");
        let mut credit: BTreeMap<String, f64> = BTreeMap::new();
        let mut free = CLIENTS;
        let mut answered = 0_u64;
        for now in 0..20_000_u64 {
            for (at, node) in nodes.iter().enumerate() {
                let before = serving[at].len();
                serving[at].retain(|end| *end > now);
                let ended = u64::try_from(before - serving[at].len()).unwrap();
                free += ended;
                answered += ended;
                while waiting[at] > 0 && serving[at].len() < usize::try_from(slots[*node]).unwrap() {
                    waiting[at] -= 1;
                    serving[at].push(now + 100);
                }
            }
            while free > 0 {
                // Weighted round robin, as Envoy's.
                for (node, share) in &row {
                    *credit.entry(node.clone()).or_default() += f64::from(*share);
                }
                let chosen = row.keys().max_by(|one, other| credit[*one].total_cmp(&credit[*other])).unwrap().clone();
                *credit.get_mut(&chosen).unwrap() -= 100.0;
                let at = nodes.iter().position(|node| **node == chosen).unwrap();
                waiting[at] += 1;
                free -= 1;
            }
            if now % 50 == 0 {
                let counts: Vec<_> = nodes
                    .iter()
                    .enumerate()
                    .map(|(at, node)| ("a", node.as_str(), waiting[at] + u64::try_from(serving[at].len()).unwrap()))
                    .collect();
                row = move_shares(own, &slots, &loads(&counts)).remove("a").unwrap_or_else(|| own("a"));
            }
        }
        let ideal = CLIENTS * 10 * 20;
        assert!(answered * 100 >= ideal * 90, "{answered} of {ideal}");
    }

    proptest! {
        #[test]
        fn shares_are_shares_and_only_of_nodes_with_pods(
            slots in prop::collection::btree_map("[a-d]", 1_u32..20, 1..4),
            entries in prop::collection::vec(("[a-d]", "[a-e]", 0_u64..50), 0..12),
            plan in prop::collection::btree_map("[a-e]", 1_u32..100, 0..4),
        ) {
            let mut all: BTreeMap<String, ByServing> = BTreeMap::new();
            for (source, serving, in_flight) in entries {
                all.entry(source).or_default().insert(serving, Load { in_flight, ..Load::default() });
            }
            for (_, row) in move_shares(|_| plan.clone(), &slots, &all) {
                prop_assert!(row.iter().all(|(node, share)| *share > 0 && slots.contains_key(node)), "{row:?}");
                let sum: u32 = row.values().sum();
                prop_assert!((96..=104).contains(&sum), "{row:?}");
            }
        }
    }
}
