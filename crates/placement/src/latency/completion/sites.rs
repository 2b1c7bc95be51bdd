//! Sites for nodes that carry no label: who is near to whom.

use std::collections::BTreeMap;

use petgraph::unionfind::UnionFind;

use super::RttSample;

/// Two nodes that measured less than this are in one place.
const NEAR_SECONDS: f64 = 0.000_5;
/// Two nodes in one place do not differ by more than this in how far they are from a third, as a
/// share of it and in seconds.
const ALIKE: (f64, f64) = (0.3, 0.001);

/// The point that each node belongs to, from 0 on. Nodes with the same label share one; a node
/// without a label belongs with the nearest labelled node that is near at all; the rest join
/// whoever is near, in chains, or stay alone. Nodes that most of their common peers, or the
/// measurement in the other direction, say to be in different places are not near.
pub(super) fn points(labels: &[Option<u32>], measured: &BTreeMap<(usize, usize), RttSample>) -> Vec<usize> {
    let mut peers: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); labels.len()];
    for ((one, other), RttSample { seconds, .. }) in measured {
        for (node, peer) in [(*one, *other), (*other, *one)] {
            let known = peers[node].entry(peer).or_insert(*seconds);
            *known = known.max(*seconds);
        }
    }
    let together = |one: usize, other: usize| {
        let common = peers[one].iter().filter_map(|(peer, seconds)| Some((*seconds, *peers[other].get(peer)?)));
        let alike = |(one, other): (f64, f64)| (one - other).abs() <= (ALIKE.0 * one.min(other)).max(ALIKE.1);
        let (mut for_it, mut against) = (0, 0);
        for pair in common {
            if alike(pair) { for_it += 1 } else { against += 1 }
        }
        for_it >= against
    };
    let near: Vec<(usize, usize, f64)> = (measured.iter())
        .map(|((one, other), sample)| (*one, *other, sample.seconds))
        .filter(|(one, other, seconds)| {
            *seconds < NEAR_SECONDS && peers[*one].get(other).is_some_and(|most| *most < NEAR_SECONDS)
        })
        .filter(|(one, other, _)| (labels[*one].is_some() && labels[*other].is_some()) || together(*one, *other))
        .collect();
    let near = || near.iter().copied();
    let mut nearest: Vec<Option<(f64, u32)>> = vec![None; labels.len()];
    for (one, other, seconds) in near() {
        for (node, peer) in [(one, other), (other, one)] {
            if let (None, Some(label)) = (labels[node], labels[peer])
                && nearest[node].is_none_or(|best| (seconds, label) < best)
            {
                nearest[node] = Some((seconds, label));
            }
        }
    }
    let joined: Vec<Option<u32>> = labels.iter().zip(&nearest).map(|(label, near)| label.or(near.map(|near| near.1))).collect();
    let mut together = UnionFind::<usize>::new(labels.len());
    let mut first: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, label) in joined.iter().enumerate() {
        if let Some(label) = label {
            together.union(node, *first.entry(*label).or_insert(node));
        }
    }
    for (one, other, _) in near().filter(|(one, other, _)| joined[*one].is_none() && joined[*other].is_none()) {
        together.union(one, other);
    }
    let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
    (0..labels.len())
        .map(|node| {
            let next = numbers.len();
            *numbers.entry(together.find(node)).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(measured: &[(usize, usize, f64)]) -> BTreeMap<(usize, usize), RttSample> {
        measured.iter().map(|(one, other, seconds)| ((*one, *other), RttSample { seconds: *seconds, stale: false })).collect()
    }

    #[test]
    fn one_short_way_joins_no_places_that_others_tell_apart() {
        let far = [(0, 2, 0.03), (1, 2, 0.0003), (0, 3, 0.03), (1, 3, 0.0003), (2, 3, 0.0003), (0, 1, 0.00001)];
        assert_eq!(points(&[None; 4], &samples(&far)), [0, 1, 1, 1]);
        assert_eq!(points(&[None; 2], &samples(&[(0, 1, 0.00001), (1, 0, 0.03)])), [0, 1]);
    }

    #[test]
    fn nodes_near_each_other_share_a_point_and_labels_are_never_joined() {
        let measured = samples(&[(0, 1, 0.0002), (1, 2, 0.0003), (3, 4, 0.0001), (4, 5, 0.0001), (2, 6, 0.02)]);
        assert_eq!(points(&[None; 7], &measured), [0, 0, 0, 1, 1, 1, 2]);
        // Node 4 is near to both labelled ones: it belongs to the nearer, and they stay apart.
        let labels = [None, None, None, Some(7), None, Some(8), None];
        let measured = samples(&[(3, 4, 0.0001), (4, 5, 0.0002)]);
        assert_eq!(points(&labels, &measured), [0, 1, 2, 3, 3, 4, 5]);
    }
}
