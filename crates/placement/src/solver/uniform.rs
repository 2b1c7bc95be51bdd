//! The best placement for gateways that spread every request evenly over all replicas.

use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::instance::Instance;

/// The mean cost of a request to each node over all demand, seconds; what cannot be reached counts
/// [`UNSERVED_SECONDS`].
pub(crate) fn mean_costs(instance: &Instance) -> Vec<f64> {
    let demand = instance.demand();
    let mut means = vec![0.0; instance.nodes()];
    if demand <= 0.0 {
        return means;
    }
    if instance.costs.is_standard_layout() {
        for (mean, costs) in means.iter_mut().zip(instance.costs.rows()) {
            *mean = costs.iter().zip(&instance.supplies).map(|(cost, supply)| cost.min(UNSERVED_SECONDS) * supply).sum();
        }
    } else {
        for (costs, supply) in instance.costs.columns().into_iter().zip(&instance.supplies) {
            for (mean, cost) in means.iter_mut().zip(costs) {
                *mean += cost.min(UNSERVED_SECONDS) * supply;
            }
        }
    }
    means.iter_mut().for_each(|mean| *mean /= demand);
    means
}

/// Each replica serves the same share of every source, so the objective is a sum over replicas and
/// taking the cheapest one at a time is exact. Returns the placement and its objective.
pub(crate) fn solve(instance: &Instance) -> (Vec<u32>, f64) {
    let share = instance.demand() / f64::from(instance.replicas.max(1));
    let means = mean_costs(instance);
    let mut placement = instance.floors.clone();
    let price = |node: usize, count: u32| share * means[node] + instance.opening(node, count);
    let mut candidates: Vec<(f64, u32, usize)> = (0..instance.nodes())
        .flat_map(|node| {
            let most = instance.limits[node].min(instance.replicas);
            (instance.floors[node] + 1..=most).map(move |count| (node, count))
        })
        .map(|(node, count)| (price(node, count), count, node))
        .collect();
    candidates.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)).then(one.2.cmp(&other.2)));
    let placed: u32 = placement.iter().sum();
    for (_, _, node) in candidates.iter().take(instance.replicas.saturating_sub(placed) as usize) {
        placement[*node] += 1;
    }
    let total = total(instance, &placement);
    (placement, total)
}

/// The objective of a placement.
pub(crate) fn total(instance: &Instance, placement: &[u32]) -> f64 {
    let share = instance.demand() / f64::from(placement.iter().sum::<u32>().max(1));
    let means = mean_costs(instance);
    let network: f64 = placement.iter().enumerate().map(|(node, count)| f64::from(*count) * share * means[node]).sum();
    network + instance.openings(placement)
}
