//! Fewer candidate nodes for large problems: a good placement rarely uses a node that is near to nobody.

use ndarray::{Array2, Axis};

use crate::instance::Instance;

/// A smaller instance and the nodes that its rows stand for.
pub(crate) struct Reduced {
    pub(crate) instance: Instance,
    pub(crate) nodes: Vec<usize>,
}

/// The costs with a row per source, which is how [`reduce`] reads them.
pub(crate) fn by_source(instance: &Instance) -> Array2<f64> {
    instance.costs.t().as_standard_layout().into_owned()
}

/// Keeps the nodes that run replicas, and the `nearest` nodes of every source, more of them for a source whose demand needs more room.
pub(crate) fn reduce(instance: &Instance, by_source: &Array2<f64>, nearest: usize) -> Reduced {
    let mut kept: Vec<bool> = (0..instance.nodes())
        .map(|node| instance.floors[node] > 0 || (instance.running[node] > 0 && instance.limits[node] > 0))
        .collect();
    let mut order: Vec<usize> = (0..instance.nodes()).filter(|node| instance.limits[*node] > 0).collect();
    for (row, supply) in by_source.rows().into_iter().zip(&instance.supplies) {
        let wanted = (nearest + (2.0 * supply / instance.replica_capacity).ceil() as usize).min(order.len());
        if wanted < order.len() {
            order.select_nth_unstable_by(wanted, |one, other| row[*one].total_cmp(&row[*other]).then(one.cmp(other)));
        }
        for node in &order[..wanted] {
            kept[*node] = true;
        }
    }
    // Room for all replicas in any case.
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
    let nodes: Vec<usize> = (0..kept.len()).filter(|node| kept[*node]).collect();
    let pick = |values: &[u32]| nodes.iter().map(|node| values[*node]).collect();
    let reduced = Instance {
        costs: instance.costs.select(Axis(0), &nodes),
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
