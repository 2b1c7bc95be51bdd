//! Replicas in several zones, so that the loss of one does not take all.
//!
//! A first plan in enough zones comes from holding one replica in each zone in use and one more in
//! another, again and again. Where there are few nodes, the best one follows by branching: when the
//! best placement is in too few zones, every placement in enough of them has a replica on some node
//! of a zone that it leaves out, so that holding one on each of these nodes in turn, and none on
//! those before it, covers them all.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{ZoneReason, ZonesMissing};
use crate::problem::Problem;
use crate::solver::posed::Posed;
use crate::solver::search::Found;
use crate::solver::uniform::mean_costs;

/// With more nodes than this, only the first plan in enough zones is made.
const FEW_NODES: usize = 16;
/// Placements that branching may look for.
const SOLVES: usize = 300;

/// Solves in the required number of zones, as far as so many have room and minima leave
/// replicas for them. What runs and would else stay makes way.
pub(crate) fn spread(posed: &mut Posed<'_>, problem: &Problem, solve: impl Fn(&Posed<'_>) -> Found) -> Found {
    let wanted = reachable(posed, problem);
    let made = make_way(posed, problem, wanted);
    let found = within(posed, problem, wanted, solve);
    // Which of those that run makes way is a good guess.
    if made { Found { lower_bound: 0.0, proven: false, ..found } } else { found }
}

/// Solves in `least` zones, which floors and limits leave room for.
fn within(posed: &mut Posed<'_>, problem: &Problem, wanted: usize, solve: impl Fn(&Posed<'_>) -> Found) -> Found {
    let unbound = solve(posed);
    if in_use(posed, problem, &unbound.placement) >= wanted {
        return unbound;
    }
    let (floors, limits) = (posed.instance.floors.clone(), posed.instance.limits.clone());
    let mut found = held(posed, problem, unbound.clone(), wanted, &solve);
    posed.instance.floors.clone_from(&floors);
    found.lower_bound = unbound.lower_bound.min(found.total);
    found.proven = false;
    if posed.nodes.len() <= FEW_NODES {
        let mut branching = Branching { problem, wanted, solves: SOLVES, best: found, open: f64::INFINITY, solve };
        branching.split(posed, &unbound);
        found = branching.best;
        found.lower_bound = branching.open.max(unbound.lower_bound).min(found.total);
        found.proven = found.lower_bound >= found.total - posed.instance.tolerance(found.total);
        posed.instance.floors = floors;
        posed.instance.limits = limits;
    }
    found
}

/// The most zones, up to the required number, in which there can be replicas.
pub(crate) fn reachable(posed: &Posed<'_>, problem: &Problem) -> usize {
    if problem.least_zones == 0 {
        return 0;
    }
    let with_room = in_use(posed, problem, &posed.most);
    with_room.min(attainable(posed, problem, &posed.least)).min(problem.least_zones as usize)
}

/// Zones that these floors leave replicas for, if there is room.
fn attainable(posed: &Posed<'_>, problem: &Problem, floors: &[u32]) -> usize {
    in_use(posed, problem, floors).saturating_add(posed.instance.replicas.saturating_sub(floors.iter().sum()) as usize)
}

/// Lets so many zones be reached where what runs would stay: one replica less is held where a zone
/// holds several or none, and one more node is open in zones where nothing runs. False where
/// nothing had to be done.
fn make_way(posed: &mut Posed<'_>, problem: &Problem, wanted: usize) -> bool {
    if wanted == 0 {
        return false;
    }
    let closed = in_use(posed, problem, &posed.instance.limits) < wanted;
    if !closed && attainable(posed, problem, &posed.instance.floors) >= wanted {
        return false;
    }
    let zones: Vec<Option<&String>> = posed.nodes.iter().map(|node| problem.zones.get(*node)).collect();
    let means = mean_costs(&posed.instance);
    while in_use(posed, problem, &posed.instance.limits) < wanted {
        let limits = &posed.instance.limits;
        let open: BTreeSet<&String> = (0..zones.len()).filter(|node| limits[*node] > 0).filter_map(|node| zones[node]).collect();
        let new = (0..zones.len()).filter(|node| posed.most[*node] > 0 && zones[*node].is_some_and(|zone| !open.contains(zone)));
        let Some(node) = new.min_by(|one, other| means[*one].total_cmp(&means[*other]).then(one.cmp(other))) else { return true };
        posed.instance.limits[node] = 1;
    }
    while attainable(posed, problem, &posed.instance.floors) < wanted {
        let floors = &posed.instance.floors;
        let mut held: BTreeMap<&String, u32> = BTreeMap::new();
        for (zone, floor) in zones.iter().zip(floors) {
            if let Some(zone) = zone {
                *held.entry(zone).or_default() += floor;
            }
        }
        let spare = |node: &usize| floors[*node] > posed.least[*node] && zones[*node].is_none_or(|zone| held[zone] > 1);
        let farther = |one: &usize, other: &usize| {
            means[*one].total_cmp(&means[*other]).then(floors[*one].cmp(&floors[*other])).then(other.cmp(one))
        };
        let Some(node) = (0..zones.len()).filter(spare).max_by(farther) else { break };
        posed.instance.floors[node] -= 1;
    }
    true
}

/// As long as the result is in too few zones, holds a replica in each zone that it is in and one
/// more on the node nearest to the demand in another.
fn held(posed: &mut Posed<'_>, problem: &Problem, mut found: Found, wanted: usize, solve: impl Fn(&Posed<'_>) -> Found) -> Found {
    let zones: Vec<Option<&String>> = posed.nodes.iter().map(|node| problem.zones.get(*node)).collect();
    let means = mean_costs(&posed.instance);
    loop {
        let mut used = BTreeSet::new();
        let mut busy: Vec<usize> = (0..zones.len()).filter(|node| found.placement[*node] > 0).collect();
        // What must stay holds its zone without taking a replica from elsewhere.
        busy.sort_by_key(|node| std::cmp::Reverse((posed.instance.floors[*node] > 0, found.placement[*node])));
        let holders: Vec<usize> = busy.into_iter().filter(|node| zones[*node].is_some_and(|zone| used.insert(zone))).collect();
        if used.len() >= wanted {
            return found;
        }
        let open = (0..zones.len())
            .filter(|node| posed.instance.limits[*node] > 0 && zones[*node].is_some_and(|zone| !used.contains(zone)));
        let Some(next) = open.min_by(|one, other| means[*one].total_cmp(&means[*other]).then(one.cmp(other))) else {
            return found;
        };
        for node in holders.into_iter().chain([next]) {
            posed.instance.floors[node] = posed.instance.floors[node].max(1);
        }
        found = solve(posed);
    }
}

struct Branching<'a, S> {
    problem: &'a Problem,
    wanted: usize,
    /// How many more may be solved.
    solves: usize,
    best: Found,
    /// The least bound of what was neither solved in enough zones nor split.
    open: f64,
    solve: S,
}

impl<S: Fn(&Posed<'_>) -> Found> Branching<'_, S> {
    /// Looks at all placements within floors and limits, of which the best is `found`, that are in
    /// enough zones. Leaves floors and limits as they were.
    fn split(&mut self, posed: &mut Posed<'_>, found: &Found) {
        let zone = |node: usize| self.problem.zones.get(posed.nodes[node]);
        let used: BTreeSet<&String> = (0..posed.nodes.len()).filter(|node| found.placement[*node] > 0).filter_map(zone).collect();
        let left_out = |node: &usize| posed.instance.limits[*node] > 0 && zone(*node).is_some_and(|zone| !used.contains(zone));
        let others: Vec<usize> = (0..posed.nodes.len()).filter(left_out).collect();
        let limits = posed.instance.limits.clone();
        for node in others {
            posed.instance.floors[node] = 1;
            self.look(posed, found.lower_bound);
            posed.instance.floors[node] = 0;
            posed.instance.limits[node] = 0;
        }
        posed.instance.limits = limits;
    }

    /// Looks at all placements within floors and limits that are in enough zones, none of which is
    /// better than `bound`.
    fn look(&mut self, posed: &mut Posed<'_>, bound: f64) {
        let sum = |counts: &[u32]| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        let replicas = u64::from(posed.instance.replicas);
        if sum(&posed.instance.floors) > replicas
            || sum(&posed.instance.limits) < replicas
            || in_use(posed, self.problem, &posed.instance.limits) < self.wanted
        {
            return;
        }
        if self.solves == 0 {
            self.open = self.open.min(bound);
            return;
        }
        self.solves -= 1;
        let found = (self.solve)(posed);
        let good_enough = self.best.total - posed.instance.tolerance(self.best.total);
        if found.lower_bound >= good_enough {
            return;
        }
        if in_use(posed, self.problem, &found.placement) >= self.wanted {
            if !found.proven {
                self.open = self.open.min(found.lower_bound);
            }
            if found.total < good_enough {
                self.best = found;
            }
        } else {
            self.split(posed, &found);
        }
    }
}

/// The required zones that a placement lacks, and why.
pub(crate) fn missing(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> Option<ZonesMissing> {
    let used: BTreeSet<&String> = (posed.nodes.iter().zip(placement))
        .filter(|(_, count)| **count > 0)
        .filter_map(|(node, _)| problem.zones.get(*node))
        .collect();
    if used.len() >= problem.least_zones as usize {
        return None;
    }
    let mut reasons = BTreeMap::new();
    for (node, name) in posed.nodes.iter().enumerate() {
        let Some(zone) = problem.zones.get(*name).filter(|zone| !used.contains(zone)) else { continue };
        let reason = reasons.entry(zone.clone()).or_insert_with(|| ZoneReason::NoRoom(BTreeMap::new()));
        match reason {
            _ if posed.instance.limits[node] > 0 => *reason = ZoneReason::NoReplica,
            ZoneReason::NoRoom(nodes) => {
                nodes.insert((*name).clone(), posed.block(problem, node));
            }
            ZoneReason::NoReplica => {}
        }
    }
    Some(ZonesMissing { used: used.len() as u32, asked: problem.least_zones, reasons })
}

/// In how many zones a placement is.
pub(crate) fn in_use(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> usize {
    let used = posed.nodes.iter().zip(placement).filter(|(_, count)| **count > 0);
    used.filter_map(|(node, _)| problem.zones.get(*node)).collect::<BTreeSet<_>>().len()
}

/// Whether a placement is in the required number of zones, or in at least as many as another one.
pub(crate) fn allows(posed: &Posed<'_>, problem: &Problem, placement: &[u32], other: &[u32]) -> bool {
    problem.least_zones < 2 || {
        let used = in_use(posed, problem, placement);
        used >= problem.least_zones as usize || used >= in_use(posed, problem, other)
    }
}
