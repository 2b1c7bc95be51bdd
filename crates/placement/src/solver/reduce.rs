//! Fewer candidate nodes for large problems: a good placement rarely uses a node that is not near
//! to any source.

use ndarray::Array2;

use crate::solver::instance::Instance;

/// A smaller instance and the nodes that its rows stand for.
pub(crate) struct Reduced {
    pub(crate) instance: Instance,
    pub(crate) nodes: Vec<usize>,
}

/// Nodes near to a source that are looked at first, and at most.
const NEAREST: (usize, usize) = (4, 64);

/// Keeps the nodes that run replicas, those that `also` has replicas on, and those nearest to each
/// source: as many for each as make about `candidates` in all, more of them for a source whose
/// demand needs more room.
pub(crate) fn reduce(instance: &Instance, candidates: usize, also: Option<&[u32]>) -> Reduced {
    let used = |node: usize| instance.running[node] > 0 || also.is_some_and(|also| also[node] > 0);
    let running: Vec<bool> =
        (0..instance.nodes()).map(|node| instance.floors[node] > 0 || (used(node) && instance.limits[node] > 0)).collect();
    let near = nearest(instance);
    let mut nearest = NEAREST.0;
    let mut kept = keep(instance, running.clone(), &near, nearest);
    while nearest < NEAREST.1 && kept.iter().filter(|kept| **kept).count() * 2 < candidates {
        nearest *= 2;
        kept = keep(instance, running.clone(), &near, nearest);
    }
    let nodes: Vec<usize> = (0..kept.len()).filter(|node| kept[*node]).collect();
    let mut costs = Array2::zeros((nodes.len(), instance.supplies.len()));
    for (mut near, far) in costs.columns_mut().into_iter().zip(instance.costs.columns()) {
        for (cost, node) in near.iter_mut().zip(&nodes) {
            *cost = far[*node];
        }
    }
    let pick = |values: &[u32]| nodes.iter().map(|node| values[*node]).collect();
    let reduced = Instance {
        costs,
        supplies: instance.supplies.clone(),
        floors: pick(&instance.floors),
        limits: pick(&instance.limits),
        running: pick(&instance.running),
        start_cost: instance.start_cost,
        rank_costs: nodes.iter().map(|node| instance.rank_costs[*node]).collect(),
        replica_capacity: instance.replica_capacity,
        segments: instance.segments.clone(),
        replicas: instance.replicas,
    };
    Reduced { instance: reduced, nodes }
}

/// The nodes nearest to each source, found in one pass over its costs.
#[derive(Clone, Debug)]
pub(crate) struct Nearest {
    /// How many to keep of each source, beside what its own demand needs.
    each: usize,
    candidates: usize,
    /// Per source nearest first, and how many of them its demand needs.
    pub(crate) found: Vec<(Vec<u32>, usize)>,
    sorted: Vec<Key>,
}

impl Nearest {
    /// For so many sources, of which about `candidates` nodes in all are wanted.
    pub(crate) fn new(sources: usize, candidates: usize) -> Self {
        let mut each = NEAREST.0;
        while each < NEAREST.1 && each * sources < 2 * candidates {
            each *= 2;
        }
        Self { each, candidates, found: Vec::with_capacity(sources), sorted: Vec::new() }
    }

    /// Adds a source by the groups of nodes that `groups` names: of each the least cost and its
    /// open nodes with their costs. Those with the least costs had better come first; a group that
    /// holds no node near enough is not looked into. Equals are ordered by `hashes`.
    pub(crate) fn add<Nodes: Iterator<Item = (f64, u32)>>(
        &mut self,
        groups: impl Iterator<Item = (f64, Nodes)>,
        hashes: &[u64],
        extra: usize,
    ) {
        let wanted = self.each + extra;
        let sorted = &mut self.sorted;
        sorted.clear();
        let mut worst = f64::INFINITY;
        for (least, nodes) in groups {
            if least > worst {
                continue;
            }
            for (cost, node) in nodes {
                if cost > worst {
                    continue;
                }
                sorted.push((cost, hashes[node as usize], node));
                if sorted.len() >= 2 * wanted {
                    shorten(sorted, wanted);
                    worst = sorted.last().map_or(f64::INFINITY, |farthest| farthest.0);
                }
            }
        }
        shorten(sorted, wanted);
        sorted.sort_unstable_by(by_cost);
        self.found.push((sorted.iter().map(|(_, _, node)| *node).collect(), extra));
    }

    /// Marks those that a search looks at: as many of each source as make about as many as wanted,
    /// and room for all replicas.
    pub(crate) fn keep(&self, kept: &mut [bool], whole: &Instance) {
        let mut each = NEAREST.0;
        loop {
            for (near, extra) in &self.found {
                near.iter().take(each + extra).for_each(|node| kept[*node as usize] = true);
            }
            if each >= self.each || kept.iter().filter(|kept| **kept).count() * 2 >= self.candidates {
                break;
            }
            each *= 2;
        }
        ensure_room(whole, kept);
    }
}

type Key = (f64, u64, u32);

fn by_cost(one: &Key, other: &Key) -> std::cmp::Ordering {
    one.0.total_cmp(&other.0).then((one.1, one.2).cmp(&(other.1, other.2)))
}

/// Leaves the `wanted` nearest, the farthest of them last.
fn shorten(list: &mut Vec<Key>, wanted: usize) {
    if wanted > 0 && wanted < list.len() {
        list.select_nth_unstable_by(wanted - 1, by_cost);
    }
    list.truncate(wanted);
}

/// Nodes that a source's own demand needs on top of the nearest.
fn extra(instance: &Instance, source: usize) -> usize {
    (2.0 * instance.supplies[source] / instance.replica_capacity).ceil() as usize
}

/// Per source the nodes that may have replicas, nearest first, as many as [`reduce`] keeps.
fn nearest(instance: &Instance) -> Vec<Vec<u32>> {
    let open: Vec<u32> = (0..instance.nodes() as u32).filter(|node| instance.limits[*node as usize] > 0).collect();
    let mut keys: Vec<u64> = Vec::with_capacity(open.len());
    let columns = instance.costs.columns().into_iter().enumerate();
    columns
        .map(|(source, costs)| {
            // Costs are not negative, so that their bits are ordered as they are; single precision
            // and the node in one number are fast to compare.
            keys.clear();
            keys.extend(open.iter().map(|node| (u64::from((costs[*node as usize] as f32).to_bits()) << 32) | u64::from(*node)));
            let wanted = (NEAREST.1 + extra(instance, source)).min(keys.len());
            if wanted > 0 && wanted < keys.len() {
                keys.select_nth_unstable(wanted - 1);
            }
            keys[..wanted].sort_unstable();
            keys[..wanted].iter().map(|key| *key as u32).collect()
        })
        .collect()
}

fn keep(instance: &Instance, mut kept: Vec<bool>, near: &[Vec<u32>], nearest: usize) -> Vec<bool> {
    for (source, near) in near.iter().enumerate() {
        for node in near.iter().take(nearest + extra(instance, source)) {
            kept[*node as usize] = true;
        }
    }
    ensure_room(instance, &mut kept);
    kept
}

/// Keeps more nodes until there is room for all replicas.
fn ensure_room(instance: &Instance, kept: &mut [bool]) {
    let mut room: u64 = (0..kept.len()).filter(|node| kept[*node]).map(|node| u64::from(instance.limits[node])).sum();
    for (node, kept) in kept.iter_mut().enumerate() {
        if room >= u64::from(instance.replicas) {
            break;
        }
        if !*kept {
            *kept = true;
            room += u64::from(instance.limits[node]);
        }
    }
}
