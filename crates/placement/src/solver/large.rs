//! Problems of very many nodes, without a matrix of all pairs.
//!
//! Costs are read by source, a row at a time: once to learn which nodes are near to some demand,
//! and once, with the prices that the search over these has found, for a bound that holds for all.

use ndarray::Array2;

use crate::latency::{Columns, NodeName};
use crate::plan::Plan;
use crate::problem::{CostModel, NodeCapacity, Problem};
use crate::solver::bound::{Offer, relax_offers};
use crate::solver::instance::Instance;
use crate::solver::posed::{MANY_NODES, Posed, Reach, Sources, own_limits};
use crate::solver::reduce::Nearest;
use crate::solver::search::{Budget, Found, Hint, search_part};
use crate::solver::solve::finish;
use crate::solver::tie::Seed;

/// A problem of which only the nodes that matter are posed.
pub(crate) struct Large<'a> {
    pub(crate) posed: Posed<'a>,
    problem: &'a Problem,
    /// All nodes, without costs.
    whole: Instance,
    names: Vec<&'a NodeName>,
    columns: Columns,
}

impl<'a> Large<'a> {
    /// The problem, if it is large and of a kind that can be posed in part; the nodes that `also`
    /// names are among the part.
    pub(crate) fn new(problem: &'a Problem, also: &[&NodeName]) -> Option<Self> {
        let plain = problem.model == CostModel::LocalFirst && problem.least_zones == 0;
        if !plain || problem.capacities.len() <= MANY_NODES {
            return None;
        }
        let candidates: Vec<(&NodeName, &NodeCapacity)> = problem.capacities.iter().collect();
        let names: Vec<&NodeName> = candidates.iter().map(|(node, _)| *node).collect();
        let sources = Sources::new(problem);
        let mut running = vec![0; names.len()];
        for (node, count) in &problem.running {
            if let Ok(at) = names.binary_search(&node) {
                running[at] = *count;
            }
        }
        let limits = own_limits(&candidates, &running);
        let columns = problem.costs.columns(&names);
        let seed = Seed::new(&problem.service);
        let hashes: Vec<u64> = names.iter().map(|node| seed.hash(node.as_str())).collect();

        let mut reach = Reach::new(names.len(), sources.idle);
        let mut nearest = Nearest::new(sources.names.len(), MANY_NODES);
        let mut row = Vec::new();
        let open = limits.iter().any(|limit| *limit > 0);
        for (source, supply) in sources.names.iter().zip(&sources.supplies) {
            let row = problem.costs.row(source, &columns, || names.binary_search(source).ok(), &mut row);
            reach.add(row, *supply, &limits, open);
            nearest.add(row, &limits, &hashes, extra(problem, *supply));
        }
        let mut kept: Vec<bool> =
            (candidates.iter().zip(&running)).map(|((_, capacity), running)| *running > 0 || capacity.min_replicas > 0).collect();
        for node in also {
            if let Ok(at) = names.binary_search(node) {
                kept[at] = true;
            }
        }
        let whole = Posed::outline(problem, &candidates, sources, (running, limits), reach);
        nearest.keep(&mut kept, &whole.instance);
        let mut members: Vec<usize> = (0..names.len()).filter(|node| kept[*node]).collect();
        members.sort_by_key(|node| hashes[*node]);
        let posed = part(problem, &whole, &columns, &members);
        Some(Self { posed, problem, whole: whole.instance, names, columns })
    }

    /// The best placement of the posed nodes, and what a served request of each source is worth.
    pub(crate) fn search(&self, hint: Option<&Hint>) -> (Found, Vec<f64>) {
        let budget = Budget { routings: 0, ..self.posed.budget(self.problem) };
        let (mut found, worth) = search_part(&self.posed.instance, budget, hint, |worth| self.bound(worth));
        if self.posed.cut {
            (found.lower_bound, found.proven) = (0.0, false);
        }
        (found, worth)
    }

    /// The plan that a placement makes; none where replicas found no place: what each of all nodes
    /// lacks is known to the whole problem only.
    pub(crate) fn finish(&self, found: &Found) -> Option<Plan> {
        let placed: u32 = found.placement.iter().sum();
        (placed == self.problem.replicas).then(|| finish(self.problem, &self.posed, found))
    }

    /// A bound on every placement on all nodes.
    fn bound(&self, worth: &[f64]) -> f64 {
        let mut offers = Vec::new();
        let mut row = Vec::new();
        for (at, (source, worth)) in self.posed.sources.iter().zip(worth).enumerate() {
            let own = || self.names.binary_search(source).ok();
            let row = self.problem.costs.row(source, &self.columns, own, &mut row);
            for (chunk, costs) in row.chunks(CHUNK).enumerate() {
                // Few nodes are near enough.
                if costs.iter().fold(f64::INFINITY, |least, cost| if *cost < least { *cost } else { least }) >= *worth {
                    continue;
                }
                for (place, cost) in costs.iter().enumerate().filter(|(_, cost)| *cost < worth) {
                    offers.push(Offer { node: (chunk * CHUNK + place) as u32, source: at as u32, gain: worth - cost });
                }
            }
        }
        relax_offers(&self.whole, worth, offers)
    }
}

/// Costs that are looked at together.
const CHUNK: usize = 16;

/// Nodes that a source's own demand needs on top of the nearest.
fn extra(problem: &Problem, supply: f64) -> usize {
    (2.0 * supply / problem.replica_concurrency).ceil() as usize
}

/// The same problem for some of its nodes.
fn part<'a>(problem: &Problem, whole: &Posed<'a>, columns: &Columns, members: &[usize]) -> Posed<'a> {
    let pick = |values: &[u32]| -> Vec<u32> { members.iter().map(|node| values[*node]).collect() };
    let mut costs = Array2::zeros((members.len(), whole.sources.len()));
    let nodes: Vec<&NodeName> = members.iter().map(|node| whole.nodes[*node]).collect();
    let near = columns.pick(members);
    let mut row = Vec::new();
    for (at, source) in whole.sources.iter().enumerate() {
        let own = || nodes.iter().position(|node| node == source);
        for (cost, known) in costs.column_mut(at).iter_mut().zip(problem.costs.row(source, &near, own, &mut row)) {
            *cost = *known;
        }
    }
    let all = &whole.instance;
    let instance = Instance {
        costs,
        supplies: all.supplies.clone(),
        floors: pick(&all.floors),
        limits: pick(&all.limits),
        running: pick(&all.running),
        start_cost: all.start_cost,
        rank_costs: members.iter().map(|node| all.rank_costs[*node]).collect(),
        replica_capacity: all.replica_capacity,
        segments: all.segments.clone(),
        replicas: all.replicas,
    };
    Posed {
        instance,
        nodes,
        sources: whole.sources.clone(),
        unreachable: members.iter().map(|node| whole.unreachable[*node]).collect(),
        least: pick(&whole.least),
        most: pick(&whole.most),
        minima: pick(&whole.minima),
        ..*whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::synthetic::{Network, Random, Shape, zipf_demand};
    use crate::latency::{CostMatrix, Costs, SiteCosts};
    use crate::problem::{Demand, ServingCurve};
    use crate::solver::search;

    #[test]
    fn a_part_of_the_nodes_is_as_good_as_all_and_its_bound_holds_for_all() {
        let network = Network::new(Shape { sites: 30, nodes_per_site: 20, ..Shape::default() }, 3);
        let size = network.nodes();
        let names: Vec<NodeName> = (0..size).map(|node| NodeName::new(format!("n{node:03}"))).collect();
        let mut random = Random::new(4);
        let mut order: Vec<usize> = (0..size).collect();
        random.shuffle(&mut order);
        let shares = zipf_demand(40, 200.0, &mut random);
        let demand: Vec<(NodeName, f64)> = order.iter().map(|node| names[*node].clone()).zip(shares).collect();
        let dense = Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to));
        let sites = SiteCosts::new(
            names.clone(),
            (0..size).map(|node| network.site(node)).collect(),
            Array2::from_shape_fn((30, 30), |(one, other)| network.site_seconds(one, other)),
            (0..size).map(|node| network.access_seconds(node)).collect(),
        );
        let mut totals = Vec::new();
        for costs in [Costs::from(CostMatrix::new(names.clone(), dense)), Costs::from(sites)] {
            let problem = Problem::new("service", costs, 30, 10.0)
                .with_demand(Demand::from_concurrency(demand.clone()).unwrap())
                .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                .with_serving(ServingCurve::flat(0.004).unwrap())
                .with_running([(names[5].clone(), 1)]);
            let large = Large::new(&problem, &[]).unwrap();
            let (found, _) = large.search(None);
            let posed = Posed::new(&problem);
            let whole = search::solve(&posed.instance, posed.budget(&problem));
            assert!(found.lower_bound <= whole.total * (1.0 + 1e-9), "{found:?} {whole:?}");
            assert!(whole.lower_bound <= found.total * (1.0 + 1e-9), "{found:?} {whole:?}");
            assert!((found.total / whole.total - 1.0).abs() < 0.02, "{} {}", found.total, whole.total);
            totals.push(found.total);
        }
        assert!((totals[0] / totals[1] - 1.0).abs() < 1e-3, "{totals:?}");
    }
}
