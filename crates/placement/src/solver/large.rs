//! Problems of very many nodes, without a matrix of all pairs.
//!
//! Costs are looked at by source: once to learn which nodes are near to some demand, and once, with
//! the prices that the search over these has found, for a bound that holds for all.

mod rows;
mod sites;

use std::sync::Arc;

use ndarray::Array2;

use crate::latency::{Columns, Costs, NodeName};
use crate::plan::Plan;
use crate::problem::{CostModel, NodeCapacity, Problem};
use crate::solver::bound::relax_offers;
use crate::solver::instance::Instance;
use crate::solver::posed::{MANY_NODES, Posed, Reach, Sources, own_limits};
use crate::solver::reduce::Nearest;
use crate::solver::search::{Budget, Found, Hint, search_part};
use crate::solver::solve::{Routed, finish};
use crate::solver::tie::Seed;
use rows::Minima;
use sites::Sites;

/// A problem of which only the nodes that matter are posed.
pub(crate) struct Large<'a> {
    pub(crate) posed: Posed<'a>,
    problem: &'a Problem,
    /// All nodes, without costs.
    whole: Instance,
    names: Vec<&'a NodeName>,
    columns: Arc<Columns>,
    near: Near<'a>,
    /// Which nodes may have replicas by themselves.
    open: Vec<bool>,
    /// What the costs come to per node, where every source can reach some open node.
    means: Option<Arc<Reach>>,
}

/// What is known of the surroundings of the sources.
enum Near<'a> {
    Rows(Arc<Minima>),
    Sites(Sites<'a>),
}

/// What is known of the surroundings of a problem's sources, for one that differs in what the
/// sources ask for, what runs, and how many replicas there shall be.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    costs: Costs,
    names: Vec<NodeName>,
    sources: Vec<NodeName>,
    /// Which nodes may have replicas.
    open: Vec<bool>,
    columns: Arc<Columns>,
    minima: Arc<Minima>,
    means: Arc<Reach>,
}

/// The candidates of a problem in the order of their names.
struct Candidates<'a> {
    all: Vec<(&'a NodeName, &'a NodeCapacity)>,
    names: Vec<&'a NodeName>,
    running: Vec<u32>,
    limits: Vec<u32>,
}

impl<'a> Candidates<'a> {
    /// Those of a large problem of a kind that can be posed in part.
    fn of(problem: &'a Problem) -> Option<Self> {
        let plain = problem.model == CostModel::LocalFirst && problem.least_zones == 0;
        if !plain || problem.capacities.len() <= MANY_NODES {
            return None;
        }
        let all: Vec<(&NodeName, &NodeCapacity)> = problem.capacities.iter().collect();
        let names: Vec<&NodeName> = all.iter().map(|(node, _)| *node).collect();
        let mut running = vec![0; names.len()];
        for (node, count) in &problem.running {
            if let Ok(at) = names.binary_search(&node) {
                running[at] = *count;
            }
        }
        let limits = own_limits(&all, &running);
        Some(Self { all, names, running, limits })
    }

    fn open(&self) -> Vec<bool> {
        self.limits.iter().map(|limit| *limit > 0).collect()
    }

    /// Marks nodes that must be looked at: those that run or shall run replicas, and these.
    fn marked<'n>(&self, also: impl Iterator<Item = &'n NodeName>) -> Vec<bool> {
        let due = self.all.iter().zip(&self.running);
        let mut kept: Vec<bool> = due.map(|((_, capacity), running)| *running > 0 || capacity.min_replicas > 0).collect();
        for node in also {
            if let Ok(at) = self.names.binary_search(&node) {
                kept[at] = true;
            }
        }
        kept
    }
}

impl<'a> Large<'a> {
    /// The problem, if it is large and of a kind that can be posed in part; the nodes that `also`
    /// names are among the part.
    pub(crate) fn new(problem: &'a Problem, also: &[&NodeName]) -> Option<Self> {
        let candidates = Candidates::of(problem)?;
        let mut kept = candidates.marked(also.iter().copied());
        let open = candidates.open();
        let Candidates { all, names, running, limits } = candidates;
        let sources = Sources::new(problem);
        let columns = Arc::new(problem.costs.columns(&names));
        let seed = Seed::new(&problem.service);
        let hashes: Vec<u64> = names.iter().map(|node| seed.hash(node.as_str())).collect();

        let mut nearest = Nearest::new(sources.names.len(), MANY_NODES);
        let (near, reach) = match Sites::new(&problem.costs, &columns, &sources.names, &limits) {
            Some(sites) => {
                for (at, supply) in sources.supplies.iter().enumerate() {
                    sites.survey(at, &mut nearest, &limits, &hashes, extra(problem, *supply));
                }
                let reach = sites.reach(&columns, &sources, &limits);
                (Near::Sites(sites), reach)
            }
            None => {
                let mut reach = Reach::new(names.len(), sources.idle);
                let mut minima = Minima::new(sources.names.len(), names.len());
                let mut row = Vec::new();
                let open = limits.iter().any(|limit| *limit > 0);
                for (at, (source, supply)) in sources.names.iter().zip(&sources.supplies).enumerate() {
                    let row = problem.costs.row(source, &columns, || names.binary_search(source).ok(), &mut row);
                    let most = minima.add(row);
                    reach.add(row, most, *supply, &limits, open);
                    nearest.add(minima.groups(at, row, &limits), &hashes, extra(problem, *supply));
                }
                (Near::Rows(Arc::new(minima)), reach)
            }
        };
        let means = reach.means(&sources);
        let whole = Posed::outline(problem, &all, sources, (running, limits), reach);
        nearest.keep(&mut kept, &whole.instance);
        let mut members: Vec<usize> = (0..names.len()).filter(|node| kept[*node]).collect();
        members.sort_by_key(|node| hashes[*node]);
        let posed = part(problem, &whole, &columns, &members);
        Some(Self { posed, problem, whole: whole.instance, names, columns, near, open, means })
    }

    /// The same where a survey still holds: only nodes that run or shall run replicas, and those
    /// that `also` names, are posed. Nothing where the survey is of another problem.
    pub(crate) fn again<'n>(problem: &'a Problem, survey: &Survey, also: impl Iterator<Item = &'n NodeName>) -> Option<Self> {
        if !problem.costs.is_same(&survey.costs) {
            return None;
        }
        let candidates = Candidates::of(problem)?;
        let sources = Sources::new(problem);
        let is_same = candidates.names.iter().copied().eq(&survey.names)
            && sources.names.iter().copied().eq(&survey.sources)
            && candidates.open() == survey.open;
        if !is_same || sources.idle {
            return None;
        }
        let kept = candidates.marked(also);
        let open = candidates.open();
        let Candidates { all, names, running, limits } = candidates;
        let reach = survey.means.scaled(&sources);
        let whole = Posed::outline(problem, &all, sources, (running, limits), reach);
        let seed = Seed::new(&problem.service);
        let mut members: Vec<usize> = (0..names.len()).filter(|node| kept[*node]).collect();
        members.sort_by_cached_key(|node| seed.hash(names[*node].as_str()));
        let columns = survey.columns.clone();
        let posed = part(problem, &whole, &columns, &members);
        let near = Near::Rows(survey.minima.clone());
        Some(Self { posed, problem, whole: whole.instance, names, columns, near, open, means: Some(survey.means.clone()) })
    }

    /// What the next problem may be posed with.
    pub(crate) fn survey(&self) -> Option<Survey> {
        let (Near::Rows(minima), Some(means)) = (&self.near, &self.means) else { return None };
        Some(Survey {
            costs: self.problem.costs.clone(),
            names: self.names.iter().copied().cloned().collect(),
            sources: self.posed.sources.iter().copied().cloned().collect(),
            open: self.open.clone(),
            columns: self.columns.clone(),
            minima: minima.clone(),
            means: means.clone(),
        })
    }

    /// A placement as it is, if it is one of this problem, with its routing.
    pub(crate) fn placed(&self, hint: &Hint) -> Option<(Found, Routed)> {
        let instance = &self.posed.instance;
        let limits = instance.floors.iter().zip(&instance.limits);
        let fits = hint.placement.iter().zip(limits).all(|(count, (floor, limit))| (*floor..=*limit).contains(count));
        let placed: u32 = hint.placement.iter().sum();
        if !fits || placed != instance.replicas || placed != self.problem.replicas || self.posed.cut {
            return None;
        }
        let (servers, routing) = instance.route(&hint.placement);
        let total = routing.total() + instance.openings(&hint.placement);
        let lower_bound = self.bound(&hint.worth).min(total);
        let proven = lower_bound >= total - instance.tolerance(total);
        Some((Found { placement: hint.placement.clone(), total, lower_bound, proven }, Routed::new(&servers, routing)))
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
            match &self.near {
                Near::Sites(sites) => sites.offers(at, *worth, &self.whole.limits, &mut offers),
                Near::Rows(minima) => {
                    let own = || self.names.binary_search(source).ok();
                    let row = self.problem.costs.row(source, &self.columns, own, &mut row);
                    minima.offers(at, row, *worth, &mut offers);
                }
            }
        }
        relax_offers(&self.whole, worth, offers)
    }
}

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
    use crate::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
    use crate::latency::{CostMatrix, Costs, SiteCosts};
    use crate::problem::{Demand, ServingCurve};
    use crate::solver::search;

    #[test]
    fn a_part_of_the_nodes_is_as_good_as_all_and_its_bound_holds_for_all() {
        let network = SyntheticNetwork::new(Shape { sites: 30, nodes_per_site: 20, ..Shape::default() }, 3);
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
