//! A better lower bound, and often a proof: branch and bound over how many replicas the regions
//! have.
//!
//! The relaxation (see [`super::bound`]) may give a region two replicas and a half. Either the best
//! placement has at most two there or at least three: both cases are bounded again, and the weaker
//! of the two bounds holds for all placements. Whole regions decide far more than single nodes,
//! whose replicas a neighbour can have instead. Regions are nested, so the relaxation stays as easy
//! to solve as before: the best replicas of a region are the best of its parts, as many as it may
//! and must have.
//!
//! Source: Land and Doig 1960; for the choice of the region, Achterberg, Koch, Martin 2005 (both
//! cases of the most promising are tried for a few steps).

use crate::solver::bound::{Relaxed, Steps, ascend, relax_by};
use crate::solver::instance::Instance;
use crate::solver::regions::Regions;

/// Regions whose cases are tried before one is chosen.
const TRIED: usize = 8;
/// Steps of the bound for a case that is tried, and for one that is chosen.
const TRIAL: Steps = Steps { count: 60, pace: 0.15, patience: 8, enough: 0.0 };
const CHOSEN: Steps = Steps { count: 400, pace: 0.15, patience: 8, enough: 0.0 };
/// A region is worth trying when its replicas are at least so far from a whole number.
const WHOLE: f64 = 0.03;
/// How fast the mean of the relaxation's placements forgets.
const FORGET: f64 = 0.02;

/// Placements with a limited number of replicas in some regions.
#[derive(Clone)]
struct Case {
    /// What the relaxation gives for them.
    bound: f64,
    worth: Vec<f64>,
    /// Per region.
    least: Vec<u32>,
    most: Vec<u32>,
    /// The replicas on each node, on average over the last steps of the bound.
    mean: Vec<f64>,
}

/// What became of the proof.
pub(crate) struct Proved {
    /// The best placement known and its objective: the one given, or a better one that was met on
    /// the way.
    pub(crate) best: (Vec<u32>, f64),
    /// No placement has a smaller objective.
    pub(crate) bound: f64,
}

/// Raises the bound that `worth` gives, up to the objective of the best placement, in at most so
/// many branchings.
pub(crate) fn prove(instance: &Instance, best: (Vec<u32>, f64), worth: &[f64], branchings: usize) -> Proved {
    let regions = Regions::new(instance);
    let count = regions.len();
    let mut tree = Tree { instance, regions, best, gains: vec![[(0.0, 0); 2]; count] };
    let mut whole = Case {
        bound: f64::NEG_INFINITY,
        worth: worth.to_vec(),
        least: vec![0; count],
        most: vec![u32::MAX; count],
        mean: vec![0.0; instance.nodes()],
    };
    tree.raise(&mut whole, CHOSEN);
    let mut cases = vec![whole];
    for _ in 0..branchings {
        let goal = tree.goal();
        cases.retain(|case| case.bound < goal);
        let weakest = (0..cases.len()).min_by(|one, other| cases[*one].bound.total_cmp(&cases[*other].bound));
        let Some(weakest) = weakest else { break };
        let case = cases.swap_remove(weakest);
        match tree.split(&case) {
            Some(parts) => cases.extend(parts),
            None => {
                // Whole everywhere: nothing is left to branch on.
                cases.push(case);
                break;
            }
        }
    }
    let bound = cases.iter().map(|case| case.bound).fold(tree.best.1, f64::min);
    Proved { bound, best: tree.best }
}

struct Tree<'a> {
    instance: &'a Instance,
    regions: Regions,
    best: (Vec<u32>, f64),
    /// Per region and side: how much a branching has raised the bound so far, in all, and how often
    /// there was one.
    gains: Vec<[(f64, u32); 2]>,
}

impl Tree<'_> {
    /// A case with this bound holds nothing better.
    fn goal(&self) -> f64 {
        self.best.1 - self.instance.tolerance(self.best.1)
    }

    /// Raises the bound of a case; false if no placement is left in it.
    fn raise(&mut self, case: &mut Case, steps: Steps) -> bool {
        let limits = Limits::new(&self.regions, case);
        let relax = |worth: &[f64]| relax_by(self.instance, worth, |marginals| limits.choose(self.instance, marginals));
        let Some(start) = relax(&case.worth) else { return false };
        let mut seen = 0.0;
        let mean = &mut case.mean;
        let (worth, Relaxed { bound, placement, .. }) =
            ascend(self.instance, (case.worth.clone(), start), self.best.1, steps, relax, |placement| {
                seen += 1.0;
                let share = f64::max(1.0 / seen, FORGET);
                for (mean, count) in mean.iter_mut().zip(placement) {
                    *mean += share * (f64::from(*count) - *mean);
                }
            });
        case.worth = worth;
        case.bound = case.bound.max(bound);
        let total = self.instance.total(&placement);
        if total < self.goal() {
            self.best = (placement, total);
        }
        true
    }

    /// The cases that a case falls into, without those that hold nothing better; none if it cannot
    /// be split.
    fn split(&mut self, case: &Case) -> Option<Vec<Case>> {
        let sums = self.regions.sums(&case.mean);
        let room = (self.goal() - case.bound).max(0.0);
        let mut regions: Vec<(f64, usize, u32)> = Vec::new();
        for (region, sum) in sums.iter().enumerate() {
            let below = sum.floor();
            let off = (sum - below).min(1.0 - (sum - below));
            let below = below as u32;
            if off > WHOLE && below < case.most[region] && below + 1 > case.least[region] {
                let [less, more] = self.gains[region].map(|(sum, count)| if count > 0 { sum / f64::from(count) } else { 0.0 });
                // What is not known yet is worth trying.
                let unknown = if self.gains[region][0].1 == 0 { 0.3 } else { 0.03 };
                regions.push((promise(less, more, room) + unknown * off, region, below));
            }
        }
        regions.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        regions.truncate(TRIED);
        let mut chosen: Option<(f64, Vec<Case>)> = None;
        for (_, region, below) in regions {
            let mut parts = Vec::with_capacity(2);
            let mut raised = [room; 2];
            for (side, raised) in raised.iter_mut().enumerate() {
                let mut part = case.clone();
                if side == 0 {
                    part.most[region] = below;
                } else {
                    part.least[region] = below + 1;
                }
                if self.raise(&mut part, TRIAL) {
                    *raised = part.bound - case.bound;
                    if part.bound < self.goal() {
                        parts.push(part);
                    }
                }
                let gain = &mut self.gains[region][side];
                *gain = (gain.0 + *raised, gain.1 + 1);
            }
            let promise = promise(raised[0], raised[1], room);
            let decided = parts.len() < 2;
            if chosen.as_ref().is_none_or(|chosen| promise > chosen.0 || decided) {
                chosen = Some((promise, parts));
            }
            if decided {
                break;
            }
        }
        let (_, mut parts) = chosen?;
        for part in &mut parts {
            self.raise(part, CHOSEN);
        }
        Some(parts)
    }
}

/// How good a branching is that raises the bound so much on its two sides, where no more than
/// `room` counts: above all, it shall do so on both.
fn promise(less: f64, more: f64, room: f64) -> f64 {
    let share = |raised: f64| if room > 0.0 { (raised / room).clamp(0.0, 1.0) } else { 1.0 };
    let (less, more) = (share(less), share(more));
    5.0 * less.min(more) + less.max(more)
}

/// The limits of a case, in a form that is quick to apply: the limited regions with their nodes,
/// parts before wholes.
struct Limits {
    regions: Vec<(Vec<usize>, usize, usize)>,
}

/// One more replica on a node.
#[derive(Clone, Copy)]
struct Offer {
    /// It must be taken.
    due: bool,
    profit: f64,
    node: usize,
}

impl Offer {
    fn order(one: &Self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&one.due).then(other.profit.total_cmp(&one.profit)).then(one.node.cmp(&other.node))
    }
}

impl Limits {
    fn new(regions: &Regions, case: &Case) -> Self {
        let limited = (0..regions.len()).filter(|region| case.least[*region] > 0 || case.most[*region] < u32::MAX);
        let limits = |region| (regions.members(region), case.least[region] as usize, case.most[region] as usize);
        Self { regions: limited.map(limits).collect() }
    }

    /// The most profitable placement within the limits; `None` if no placement is.
    fn choose(&self, instance: &Instance, marginals: &[Vec<f64>]) -> Option<Vec<u32>> {
        let offers = |node: usize| {
            let profits = marginals[node].iter().enumerate();
            profits.map(move |(rank, profit)| Offer { due: rank < instance.floors[node] as usize, profit: *profit, node })
        };
        // The offers of each limited region that no larger one holds so far, and where those of
        // each node are.
        let mut lists: Vec<Vec<Offer>> = Vec::with_capacity(self.regions.len());
        let mut list_of: Vec<Option<usize>> = vec![None; marginals.len()];
        for (members, least, most) in &self.regions {
            let mut list = Vec::new();
            for node in members {
                match list_of[*node].replace(lists.len()) {
                    // A part's list is taken over whole with the first of its nodes.
                    Some(part) => list.append(&mut lists[part]),
                    None => list.extend(offers(*node)),
                }
            }
            list.sort_unstable_by(Offer::order);
            let due = list.iter().filter(|offer| offer.due).count();
            if due > *most || list.len() < *least {
                return None;
            }
            list.iter_mut().take(*least).for_each(|offer| offer.due = true);
            list.truncate(*most);
            lists.push(list);
        }
        let mut all: Vec<Offer> = lists.concat();
        all.extend((0..marginals.len()).filter(|node| list_of[*node].is_none()).flat_map(offers));
        let wanted = instance.replicas as usize;
        if all.len() < wanted || all.iter().filter(|offer| offer.due).count() > wanted {
            return None;
        }
        if wanted > 0 && wanted < all.len() {
            all.select_nth_unstable_by(wanted - 1, Offer::order);
        }
        let mut placement = vec![0; marginals.len()];
        for offer in &all[..wanted] {
            placement[offer.node] += 1;
        }
        Some(placement)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Segment;
    use crate::solver::bound::relax;

    /// The least objective of all placements of what is left on the nodes from the first undecided
    /// one on.
    fn brute_force(instance: &Instance, placement: &mut Vec<u32>, left: u32) -> f64 {
        let node = placement.len();
        if node == instance.nodes() {
            return if left == 0 { instance.total(placement) } else { f64::INFINITY };
        }
        let mut least = f64::INFINITY;
        for count in instance.floors[node]..=instance.limits[node].min(left) {
            placement.push(count);
            least = least.min(brute_force(instance, placement, left - count));
            placement.pop();
        }
        least
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn the_bound_holds_for_every_placement_and_is_no_weaker_than_before(
            cells in prop::collection::vec(prop_oneof![8 => 0.0..0.1_f64, 1 => Just(f64::INFINITY)], 30),
            supplies in prop::collection::vec(0.1..4.0_f64, 6),
            floors in prop::collection::vec(prop_oneof![4 => Just(0_u32), 1 => Just(1)], 5),
            more in prop::collection::vec(0..3_u32, 5),
            share in 0.0..1.0_f64,
            busy in prop::bool::ANY,
            branchings in 0..30_usize,
        ) {
            let limits: Vec<u32> = floors.iter().zip(&more).map(|(floor, more)| floor + more).collect();
            let (least, most): (u32, u32) = (floors.iter().sum(), limits.iter().sum());
            let replicas = (least + (share * f64::from(most - least + 1)) as u32).min(most);
            prop_assume!(replicas > 0);
            let segment = |width, marginal_seconds| Segment { width, marginal_seconds };
            let demand: f64 = supplies.iter().sum();
            let instance = Instance {
                costs: Array2::from_shape_vec((5, 6), cells).unwrap(),
                supplies,
                floors,
                limits,
                running: vec![0, 1, 0, 0, 1],
                start_cost: 1e-3,
                rank_costs: vec![0.0; 5],
                replica_capacity: f64::max(2.0, 1.001 * demand / f64::from(replicas)),
                segments: if busy { vec![segment(0.5, 0.004), segment(0.5, 0.05)] } else { vec![segment(1.0, 0.004)] },
                replicas,
            };
            let best = brute_force(&instance, &mut Vec::new(), replicas);
            let some = relax(&instance, &[0.0; 6]).placement;
            let total = instance.total(&some);
            let worth = instance.route(&some).1.source_prices;
            let before = relax(&instance, &worth).bound;
            let proved = prove(&instance, (some, total), &worth, branchings);
            let rounding = 1e-9 * best.max(1.0);
            prop_assert!(proved.bound <= best + rounding, "{} above {best}", proved.bound);
            prop_assert!(proved.best.1 >= best - rounding);
            prop_assert!((instance.total(&proved.best.0) - proved.best.1).abs() <= rounding);
            prop_assert!(proved.bound >= before.min(proved.best.1) - rounding);
        }
    }
}
