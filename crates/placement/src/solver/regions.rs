//! Regions: nodes that are near to the same sources, in a tree of ever larger ones.
//!
//! How many replicas one of several neighbours gets says little about a placement; how many all of
//! them get together says much. The tree comes from complete-linkage clustering: again and again
//! the two regions are joined whose farthest nodes are nearest to each other.
//!
//! Source: Sørensen 1948 (complete linkage).

use ndarray::Array2;

use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::instance::Instance;

/// A tree of regions. Each node is one of its own, by its position; the joined ones follow, parts
/// before wholes.
pub(crate) struct Regions {
    nodes: usize,
    /// The two parts of each joined region.
    joined: Vec<(usize, usize)>,
}

impl Regions {
    pub(crate) fn new(instance: &Instance) -> Self {
        let nodes = instance.nodes();
        let mut apart = distances(instance);
        // A joined region stands in the place of its first part.
        let mut regions: Vec<Option<usize>> = (0..nodes).map(Some).collect();
        let mut joined = Vec::with_capacity(nodes.saturating_sub(1));
        while let Some((one, other)) = nearest(&apart, &regions) {
            let (Some(first), Some(second)) = (regions[one], regions[other].take()) else { break };
            joined.push((first, second));
            regions[one] = Some(nodes + joined.len() - 1);
            for third in 0..nodes {
                let farther = f64::max(apart[(one, third)], apart[(other, third)]);
                apart[(one, third)] = farther;
                apart[(third, one)] = farther;
            }
        }
        Self { nodes, joined }
    }

    /// Regions in all.
    pub(crate) fn len(&self) -> usize {
        self.nodes + self.joined.len()
    }

    /// The nodes of a region.
    pub(crate) fn members(&self, region: usize) -> Vec<usize> {
        let mut members = Vec::new();
        let mut left = vec![region];
        while let Some(region) = left.pop() {
            match region.checked_sub(self.nodes) {
                None => members.push(region),
                Some(joined) => left.extend([self.joined[joined].0, self.joined[joined].1]),
            }
        }
        members
    }

    /// The sum over the nodes of each region.
    pub(crate) fn sums(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = values.to_vec();
        for (one, other) in &self.joined {
            sums.push(sums[*one] + sums[*other]);
        }
        sums
    }
}

/// How far apart two nodes are, by way of the source for which that is shortest.
fn distances(instance: &Instance) -> Array2<f64> {
    let nodes = instance.nodes();
    let costs = instance.costs.mapv(|cost| cost.min(UNSERVED_SECONDS));
    let mut apart = Array2::zeros((nodes, nodes));
    for one in 0..nodes {
        for other in 0..one {
            let pairs = costs.row(one).into_iter().zip(costs.row(other));
            let shortest = pairs.map(|(one, other)| one + other).fold(f64::INFINITY, f64::min);
            apart[(one, other)] = shortest;
            apart[(other, one)] = shortest;
        }
    }
    apart
}

fn nearest(apart: &Array2<f64>, regions: &[Option<usize>]) -> Option<(usize, usize)> {
    let open: Vec<usize> = (0..regions.len()).filter(|place| regions[*place].is_some()).collect();
    let mut nearest = None;
    let mut least = f64::INFINITY;
    for (at, one) in open.iter().enumerate() {
        let row = apart.row(*one);
        for other in &open[at + 1..] {
            if row[*other] < least || nearest.is_none() {
                least = row[*other];
                nearest = Some((*one, *other));
            }
        }
    }
    nearest
}
