//! Replicas in several zones, so that the loss of one does not take all.

use std::collections::BTreeSet;

use crate::posed::Posed;
use crate::problem::Problem;
use crate::search::Found;
use crate::uniform::mean_costs;

/// Solves, and as long as the result is in too few zones, holds a replica in each zone that it is in and one more on the node nearest to the demand in
/// another. Zones that hold nothing for want of room or replicas are not forced. The lower bound of the problem without zones holds with them.
pub(crate) fn spread(posed: &mut Posed<'_>, problem: &Problem, solve: impl Fn(&Posed<'_>) -> Found) -> Found {
    let mut found = solve(posed);
    let unbound = (found.lower_bound, found.total);
    let wanted = problem.least_zones.min(posed.instance.replicas) as usize;
    if wanted < 2 {
        return found;
    }
    let zones: Vec<Option<&String>> = posed.nodes.iter().map(|node| problem.zones.get(*node)).collect();
    let means = mean_costs(&posed.instance);
    loop {
        let mut used = BTreeSet::new();
        let mut held: Vec<usize> = (0..zones.len()).filter(|node| found.placement[*node] > 0).collect();
        held.sort_by_key(|node| std::cmp::Reverse(found.placement[*node]));
        let holders: Vec<usize> = held.into_iter().filter(|node| zones[*node].is_some_and(|zone| used.insert(zone))).collect();
        if used.len() >= wanted {
            break;
        }
        let open = (0..zones.len())
            .filter(|node| posed.instance.limits[*node] > 0 && zones[*node].is_some_and(|zone| !used.contains(zone)));
        let Some(next) = open.min_by(|one, other| means[*one].total_cmp(&means[*other]).then(one.cmp(other))) else { break };
        for node in holders.into_iter().chain([next]) {
            posed.instance.floors[node] = posed.instance.floors[node].max(1);
        }
        if posed.instance.floors.iter().map(|floor| u64::from(*floor)).sum::<u64>() > u64::from(posed.instance.replicas) {
            // What must stay leaves no replica for another zone.
            posed.instance.floors[next] = 0;
            break;
        }
        found = solve(posed);
    }
    found.lower_bound = unbound.0.min(found.total);
    found.proven &= found.total <= unbound.1;
    found
}

/// In how many zones a placement is.
pub(crate) fn in_use(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> usize {
    let used = posed.nodes.iter().zip(placement).filter(|(_, count)| **count > 0);
    used.filter_map(|(node, _)| problem.zones.get(*node)).collect::<BTreeSet<_>>().len()
}

/// Whether a placement is in as many zones as asked for, or at least as many as another one.
pub(crate) fn allows(posed: &Posed<'_>, problem: &Problem, placement: &[u32], other: &[u32]) -> bool {
    problem.least_zones < 2 || {
        let used = in_use(posed, problem, placement);
        used >= problem.least_zones as usize || used >= in_use(posed, problem, other)
    }
}
