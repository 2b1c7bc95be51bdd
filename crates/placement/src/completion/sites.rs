//! Sites for nodes that carry no label: who is near to whom.

use std::collections::BTreeMap;

use petgraph::unionfind::UnionFind;

/// Two nodes that measured less than this are in one place.
const NEAR_SECONDS: f64 = 0.000_5;

/// The point that each node belongs to, from 0 on. Nodes with the same label share one; a node without a label belongs with the nearest
/// labelled node that is near at all; the rest join whoever is near, in chains, or stay alone.
pub(super) fn points(labels: &[Option<u32>], measured: &BTreeMap<(usize, usize), f64>) -> Vec<usize> {
    let near = || {
        measured.iter().filter(|(_, seconds)| **seconds < NEAR_SECONDS).map(|((one, other), seconds)| (*one, *other, *seconds))
    };
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

    #[test]
    fn nodes_near_each_other_share_a_point_and_labels_are_never_joined() {
        let measured = BTreeMap::from([((0, 1), 0.0002), ((1, 2), 0.0003), ((3, 4), 0.0001), ((4, 5), 0.0001), ((2, 6), 0.02)]);
        assert_eq!(points(&[None; 7], &measured), [0, 0, 0, 1, 1, 1, 2]);
        // Node 4 is near to both labelled ones: it belongs to the nearer, and they stay apart.
        let labels = [None, None, None, Some(7), None, Some(8), None];
        let measured = BTreeMap::from([((3, 4), 0.0001), ((4, 5), 0.0002)]);
        assert_eq!(points(&labels, &measured), [0, 1, 2, 3, 3, 4, 5]);
    }
}
