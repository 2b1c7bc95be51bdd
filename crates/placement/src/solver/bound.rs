//! A lower bound on every placement: Lagrangian relaxation of "each source is served exactly once".
//!
//! Given what a served unit of each source is worth (`worth`), every node can be looked at alone:
//! with `x` replicas it serves the sources that are worth more than they cost, best first, up to
//! its capacity. That profit is concave in `x`, so the best `replicas` replicas overall are those
//! with the greatest marginal profits. Demand x worth minus these profits is at most the objective
//! of any placement.
//!
//! Source: Beasley 1993 (Lagrangian heuristics for location problems); Held, Wolfe, Crowder 1974
//! (subgradient steps).

use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::instance::Instance;

/// The bound for one vector of worths.
#[derive(Clone, Debug)]
pub(crate) struct Relaxed {
    /// No placement has a smaller objective.
    pub(crate) bound: f64,
    /// The placement that the relaxation prefers.
    pub(crate) placement: Vec<u32>,
    /// Marginal profit of each further replica, per node; never increasing.
    pub(crate) marginals: Vec<Vec<f64>>,
    /// How much of each source the relaxation serves in excess of its demand (negative: too
    /// little).
    pub(crate) excess: Vec<f64>,
}

/// How much of a step lives on in the next.
const DEFLECTION: f64 = 0.6;
/// How much shorter steps become that have not led to a better bound for a while.
const SHORTER: f64 = 0.7;

/// Evaluates the relaxation.
pub(crate) fn relax(instance: &Instance, worth: &[f64]) -> Relaxed {
    let wanted = Wanted::new(instance, worth);
    let marginals = wanted.marginals(instance);
    let placement = choose(instance, &marginals);
    wanted.relaxed(instance, worth, marginals, placement)
}

/// Evaluates the relaxation for those placements among which `choose` finds the most profitable
/// one; `None` if there is no such placement.
pub(crate) fn relax_by(
    instance: &Instance,
    worth: &[f64],
    choose: impl FnOnce(&[Vec<f64>]) -> Option<Vec<u32>>,
) -> Option<Relaxed> {
    let wanted = Wanted::new(instance, worth);
    let marginals = wanted.marginals(instance);
    let placement = choose(&marginals)?;
    Some(wanted.relaxed(instance, worth, marginals, placement))
}

/// A source that is worth more than it costs from a node, and by how much.
pub(crate) struct Offer {
    pub(crate) node: u32,
    pub(crate) source: u32,
    pub(crate) gain: f64,
}

/// The bound of the relaxation where only the offers that are above 0 are known. Replicas beyond
/// floors that would gain nothing count as if they cost nothing.
pub(crate) fn relax_offers(instance: &Instance, worth: &[f64], offers: Vec<Offer>) -> f64 {
    let mut ends = vec![0_usize; instance.nodes()];
    for offer in &offers {
        ends[offer.node as usize] += 1;
    }
    let mut end = 0;
    for count in &mut ends {
        (*count, end) = (end, end + *count);
    }
    let mut entries = vec![(0.0, 0); offers.len()];
    for Offer { node, source, gain } in offers {
        let place = &mut ends[node as usize];
        entries[*place] = (gain, source as usize);
        *place += 1;
    }
    let mut start = 0;
    for end in &ends {
        sort_by_gain(&mut entries[start..*end]);
        start = *end;
    }
    let wanted = Wanted { entries, ends };
    let worthwhile = |node: usize| instance.floors[node] > 0 || !wanted.by(node).is_empty();
    let marginals: Vec<Vec<f64>> = (0..instance.nodes())
        .map(|node| if worthwhile(node) { profits(instance, node, wanted.by(node)) } else { Vec::new() })
        .collect();
    let base: f64 = worth.iter().zip(&instance.supplies).map(|(worth, supply)| worth * supply).sum();
    let placement = choose(instance, &marginals);
    let gained = |(node, count): (usize, &u32)| {
        let floor = instance.floors[node] as usize;
        let chosen = marginals[node].iter().take(*count as usize).enumerate();
        chosen.map(|(rank, profit)| if rank < floor { *profit } else { profit.max(0.0) }).sum::<f64>()
    };
    base - placement.iter().enumerate().map(gained).sum::<f64>()
}

/// For every node, the sources that are worth more than they cost from there and by how much, most
/// profitable first.
struct Wanted {
    entries: Vec<(f64, usize)>,
    /// Where each node's entries end.
    ends: Vec<usize>,
}

impl Wanted {
    fn new(instance: &Instance, worth: &[f64]) -> Self {
        let mut entries = Vec::new();
        let mut ends = Vec::with_capacity(instance.nodes());
        let mut end = |entries: &mut Vec<(f64, usize)>| {
            let start = ends.last().copied().unwrap_or(0);
            sort_by_gain(&mut entries[start..]);
            ends.push(entries.len());
        };
        if instance.costs.is_standard_layout() {
            for node in 0..instance.nodes() {
                gainful(instance, node, worth, &mut entries);
                end(&mut entries);
            }
        } else {
            // Costs that lie in memory by source are read by source.
            let mut nodes: Vec<Vec<(f64, usize)>> = vec![Vec::new(); instance.nodes()];
            for (source, (costs, worth)) in instance.costs.columns().into_iter().zip(worth).enumerate() {
                for (cost, node) in costs.iter().zip(&mut nodes) {
                    if cost < worth {
                        node.push((worth - cost, source));
                    }
                }
            }
            for node in nodes {
                entries.extend(node);
                end(&mut entries);
            }
        }
        Self { entries, ends }
    }

    fn marginals(&self, instance: &Instance) -> Vec<Vec<f64>> {
        (0..instance.nodes()).map(|node| profits(instance, node, self.by(node))).collect()
    }

    fn relaxed(&self, instance: &Instance, worth: &[f64], marginals: Vec<Vec<f64>>, placement: Vec<u32>) -> Relaxed {
        let mut bound: f64 = worth.iter().zip(&instance.supplies).map(|(worth, supply)| worth * supply).sum();
        let mut excess: Vec<f64> = instance.supplies.iter().map(|supply| -supply).collect();
        for (node, count) in placement.iter().enumerate().filter(|(_, count)| **count > 0) {
            bound -= marginals[node][..*count as usize].iter().sum::<f64>();
            serve(instance, self.by(node), f64::from(*count), |source, amount| excess[source] += amount);
        }
        Relaxed { bound, placement, marginals, excess }
    }

    fn by(&self, node: usize) -> &[(f64, usize)] {
        let start = if node == 0 { 0 } else { self.ends[node - 1] };
        &self.entries[start..self.ends[node]]
    }
}

/// Costs that are compared side by side: most are too great.
const CHUNK: usize = 8;

/// Adds the sources that are worth more than they cost from a node.
fn gainful(instance: &Instance, node: usize, worth: &[f64], found: &mut Vec<(f64, usize)>) {
    let row = instance.costs.row(node);
    let Some(costs) = row.as_slice() else {
        let pairs = row.iter().zip(worth).enumerate().filter(|(_, (cost, worth))| cost < worth);
        found.extend(pairs.map(|(source, (cost, worth))| (worth - cost, source)));
        return;
    };
    for (chunk, (costs, worth)) in costs.chunks(CHUNK).zip(worth.chunks(CHUNK)).enumerate() {
        let is_any = costs.iter().zip(worth).fold(false, |any, (cost, worth)| any | (cost < worth));
        if is_any {
            let pairs = costs.iter().zip(worth).enumerate().filter(|(_, (cost, worth))| cost < worth);
            found.extend(pairs.map(|(place, (cost, worth))| (worth - cost, chunk * CHUNK + place)));
        }
    }
}

fn sort_by_gain(wanted: &mut [(f64, usize)]) {
    // Equal gains in the order of their sources: what an unstable sort does with equals differs
    // from one standard library to the next.
    wanted.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
}

/// Serves the wanted sources with `replicas` replicas as long as it pays; returns the profit
/// without what the replicas cost by themselves.
fn serve(instance: &Instance, wanted: &[(f64, usize)], replicas: f64, take: impl FnMut(usize, f64)) -> f64 {
    serve_in_order(instance, wanted.iter().copied(), replicas, take)
}

fn serve_in_order(
    instance: &Instance,
    mut sources: impl Iterator<Item = (f64, usize)>,
    replicas: f64,
    mut take: impl FnMut(usize, f64),
) -> f64 {
    let mut profit = 0.0;
    let mut source = sources.next();
    let mut left = source.map_or(0.0, |(_, source)| instance.supplies[source]);
    for segment in &instance.segments {
        let mut room = segment.width * replicas * instance.replica_capacity;
        while let Some((gain, index)) = source {
            if gain <= segment.marginal_seconds {
                return profit;
            }
            let amount = room.min(left);
            profit += amount * (gain - segment.marginal_seconds);
            take(index, amount);
            room -= amount;
            left -= amount;
            if left > 0.0 {
                break;
            }
            source = sources.next();
            left = source.map_or(0.0, |(_, source)| instance.supplies[source]);
        }
    }
    profit
}

/// Sources by gain, of which only those are put in order that are looked at: a replica or two serve
/// a few of hundreds.
#[derive(Default)]
struct Ranked {
    /// Best first.
    ranked: Vec<(f64, usize)>,
    /// A heap: no entry is better than the one at half its position.
    rest: Vec<(f64, usize)>,
}

impl Ranked {
    fn fill(&mut self, add: impl FnOnce(&mut Vec<(f64, usize)>)) {
        self.ranked.clear();
        self.rest.clear();
        add(&mut self.rest);
        for parent in (0..self.rest.len() / 2).rev() {
            self.sink(parent);
        }
    }

    fn better(one: (f64, usize), other: (f64, usize)) -> bool {
        other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)).is_lt()
    }

    fn sink(&mut self, mut parent: usize) {
        loop {
            let mut child = 2 * parent + 1;
            if child + 1 < self.rest.len() && Self::better(self.rest[child + 1], self.rest[child]) {
                child += 1;
            }
            if child >= self.rest.len() || !Self::better(self.rest[child], self.rest[parent]) {
                return;
            }
            self.rest.swap(parent, child);
            parent = child;
        }
    }

    fn get(&mut self, rank: usize) -> Option<(f64, usize)> {
        while self.ranked.len() <= rank {
            let first = *self.rest.first()?;
            self.rest.swap_remove(0);
            self.sink(0);
            self.ranked.push(first);
        }
        Some(self.ranked[rank])
    }

    /// The profit of `replicas` replicas that serve the best sources.
    fn profit(&mut self, instance: &Instance, replicas: u32) -> f64 {
        let mut rank = 0;
        let next = || {
            rank += 1;
            self.get(rank - 1)
        };
        if replicas == 0 { 0.0 } else { serve_in_order(instance, std::iter::from_fn(next), f64::from(replicas), |_, _| {}) }
    }
}

/// What each further replica on a node gains.
fn profits(instance: &Instance, node: usize, wanted: &[(f64, usize)]) -> Vec<f64> {
    let most = instance.limits[node].min(instance.replicas);
    if let [segment] = instance.segments[..] {
        return flat_profits(instance, node, wanted, most, segment.marginal_seconds);
    }
    let mut before = 0.0;
    let mut last = f64::INFINITY;
    (1..=most)
        .map(|count| {
            let profit = if last > 0.0 { serve(instance, wanted, f64::from(count), |_, _| {}) } else { before };
            last = profit - before;
            before = profit;
            last - instance.opening(node, count)
        })
        .collect()
}

/// The same where serving always takes the same time, so that each replica goes on where the one
/// before is full.
fn flat_profits(instance: &Instance, node: usize, wanted: &[(f64, usize)], most: u32, seconds: f64) -> Vec<f64> {
    let mut wanted = wanted.iter().take_while(|(gain, _)| *gain > seconds);
    let mut next = wanted.next().map(|(gain, source)| (gain - seconds, instance.supplies[*source]));
    (1..=most)
        .map(|count| {
            let (mut room, mut profit) = (instance.replica_capacity, 0.0);
            while let Some((gain, left)) = &mut next {
                let amount = room.min(*left);
                profit += amount * *gain;
                room -= amount;
                *left -= amount;
                if *left > 0.0 {
                    break;
                }
                next = wanted.next().map(|(gain, source)| (gain - seconds, instance.supplies[*source]));
            }
            profit - instance.opening(node, count)
        })
        .collect()
}

/// For every node what one more replica than in `placement` would gain at most, and what one fewer
/// would lose at least, if `worth` are the optimal prices of the placement's routing; minus
/// infinity and infinity where there is no room or nothing to lose.
pub(crate) fn gains(instance: &Instance, worth: &[f64], placement: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let mut more = vec![f64::NEG_INFINITY; instance.nodes()];
    let mut fewer = vec![f64::INFINITY; instance.nodes()];
    let mut wanted = Ranked::default();
    for (node, count) in placement.iter().enumerate() {
        let grows = *count < instance.limits[node];
        let shrinks = *count > instance.floors[node];
        if !grows && !shrinks {
            continue;
        }
        wanted.fill(|found| gainful(instance, node, worth, found));
        let now = wanted.profit(instance, *count);
        if grows {
            more[node] = wanted.profit(instance, count + 1) - now - instance.opening(node, count + 1);
        }
        if shrinks {
            fewer[node] = now - wanted.profit(instance, count - 1) - instance.opening(node, *count);
        }
    }
    (more, fewer)
}

/// What one more replica than `count` on a node would gain at most, if `worth` are the optimal
/// prices of a placement's routing.
pub(crate) fn growth(instance: &Instance, worth: &[f64], node: usize, count: u32) -> f64 {
    let mut wanted = Ranked::default();
    wanted.fill(|found| gainful(instance, node, worth, found));
    wanted.profit(instance, count + 1) - wanted.profit(instance, count) - instance.opening(node, count + 1)
}

/// The floors, then the greatest marginals.
fn choose(instance: &Instance, marginals: &[Vec<f64>]) -> Vec<u32> {
    let mut placement: Vec<u32> =
        instance.floors.iter().zip(marginals).map(|(floor, node)| (*floor).min(node.len() as u32)).collect();
    let placed: u32 = placement.iter().sum();
    let mut candidates: Vec<(f64, usize, usize)> = Vec::new();
    for (node, profits) in marginals.iter().enumerate() {
        candidates.extend(profits.iter().enumerate().skip(placement[node] as usize).map(|(rank, profit)| (*profit, node, rank)));
    }
    let wanted = (instance.replicas.saturating_sub(placed) as usize).min(candidates.len());
    if wanted > 0 && wanted < candidates.len() {
        candidates.select_nth_unstable_by(wanted - 1, |one, other| {
            other.0.total_cmp(&one.0).then(one.2.cmp(&other.2)).then(one.1.cmp(&other.1))
        });
    }
    for (_, node, _) in &candidates[..wanted] {
        placement[*node] += 1;
    }
    placement
}

/// How far to raise a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    /// Steps at most.
    pub(crate) count: usize,
    /// How long the first are: 1 for worths that are a guess, less for those of a like problem.
    pub(crate) pace: f64,
    /// Steps without a better bound after which they become shorter.
    pub(crate) patience: usize,
    /// A bound that is below the target by no more than this share of it is good enough.
    pub(crate) enough: f64,
}

/// Raises the bound by subgradient steps from worths and their relaxation toward `target` (the
/// objective of a known placement); returns the best worths and their relaxation. `visit` sees
/// the placement of every step.
pub(crate) fn ascend(
    instance: &Instance,
    start: (Vec<f64>, Relaxed),
    target: f64,
    steps: Steps,
    relax: impl Fn(&[f64]) -> Option<Relaxed>,
    mut visit: impl FnMut(&[u32]),
) -> (Vec<f64>, Relaxed) {
    let (mut worth, mut relaxed) = start.clone();
    let mut best = start;
    let mut direction = vec![0.0; worth.len()];
    let mut pace = steps.pace;
    let mut idle = 0;
    let tolerance = instance.tolerance(target).max(steps.enough * target.abs());
    for _ in 0..steps.count {
        visit(&relaxed.placement);
        // Demands differ by orders of magnitude: what counts is the excess relative to a source's
        // demand. Steps that remember the ones before zigzag less (Camerini, Fratta, Maffioli
        // 1975).
        for ((direction, excess), supply) in direction.iter_mut().zip(&relaxed.excess).zip(&instance.supplies) {
            *direction = DEFLECTION * *direction + excess / supply;
        }
        let norm: f64 = direction.iter().zip(&instance.supplies).map(|(direction, supply)| direction * direction * supply).sum();
        if norm <= 0.0 || best.1.bound >= target - tolerance || pace < 1e-6 {
            break;
        }
        let step = pace * (target - relaxed.bound).max(1e-9 * target.abs()) / norm;
        for (worth, direction) in worth.iter_mut().zip(&direction) {
            // Over-served sources are worth less, under-served ones more; none more than what
            // leaving it unserved costs.
            *worth = (*worth - step * direction).clamp(0.0, UNSERVED_SECONDS);
        }
        let Some(next) = relax(&worth) else { break };
        relaxed = next;
        if relaxed.bound > best.1.bound {
            best = (worth.clone(), relaxed.clone());
            idle = 0;
        } else {
            idle += 1;
            if idle >= steps.patience {
                idle = 0;
                pace *= SHORTER;
                worth.clone_from(&best.0);
                relaxed = best.1.clone();
                direction.fill(0.0);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_those_of_a_whole_sort(mut wanted in prop::collection::vec((prop_oneof![0.0..1.0_f64, Just(0.5)], 0..40_usize), 0..40)) {
            let mut ranked = Ranked::default();
            ranked.fill(|found| found.push((9.0, 9)));
            ranked.fill(|found| found.extend(wanted.iter().copied()));
            sort_by_gain(&mut wanted);
            let found: Vec<(f64, usize)> = (0..).map_while(|rank| ranked.get(rank)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
