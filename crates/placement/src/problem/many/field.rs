//! What many services share: the nodes and what is left of their resources, and which of the nodes
//! are worth looking at for a service.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::{Claim, ResourceAmounts};
use crate::latency::Costs;
use crate::problem::CostModel;
use crate::problem::NodeCapacity;
use crate::solver::posed::everybody;
use latency_matrix::NodeName;

/// More nodes than this, and only those near the sources are looked at.
const FEW_NODES: usize = 48;
/// Nodes that are remembered as the nearest of a source, so that services with the same sources
/// need not look for them again.
const NEAR_NODES: usize = 32;
/// What stands for a resource that a node does not list.
const UNLISTED: u64 = u64::MAX;

/// What is left of each resource on each node.
#[derive(Clone)]
pub(super) struct Stock {
    kinds: usize,
    amounts: Vec<u64>,
}

impl Stock {
    pub(super) fn of(&self, node: usize) -> &[u64] {
        &self.amounts[node * self.kinds..(node + 1) * self.kinds]
    }

    pub(super) fn of_mut(&mut self, node: usize) -> &mut [u64] {
        &mut self.amounts[node * self.kinds..(node + 1) * self.kinds]
    }
}

/// The nodes, where they are in each claim's costs, and what a replica of each claim needs.
pub(super) struct Field<'a> {
    pub(super) names: &'a [&'a NodeName],
    /// Per claim: which of `columns` holds.
    matrix: Vec<usize>,
    /// Per distinct matrix of costs: the positions of the nodes in it.
    columns: Vec<Vec<Option<usize>>>,
    /// The resources that anybody needs, and `pods`; what stands for them below is their place in
    /// this list.
    kinds: Vec<&'a str>,
    /// Per claim: resource and amount.
    needs: Vec<Vec<(usize, u64)>>,
    /// Per claim: the resource `pods`, which each replica needs one of unless `needs` names it.
    implied: Vec<Option<usize>>,
    /// Per matrix and row of a source: the nodes nearest to it, nearest first.
    near: HashMap<(usize, usize), Vec<usize>>,
}

/// A node by position, with the capacity that a claim states for it and how many replicas fit at
/// most.
pub(super) type Room<'a> = Vec<(usize, &'a NodeCapacity, u32)>;

impl<'a> Field<'a> {
    pub(super) fn new(claims: &'a [Claim], names: &'a [&'a NodeName]) -> Self {
        let mut distinct: Vec<&Costs> = Vec::new();
        let mut matrix = Vec::with_capacity(claims.len());
        for claim in claims {
            let costs = &claim.problem.costs;
            let known = distinct.iter().position(|known| known.is_same(costs));
            matrix.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(costs);
            }
        }
        let columns = distinct.iter().map(|costs| names.iter().map(|node| costs.position(node)).collect()).collect();
        let mut kinds: Vec<&str> =
            claims.iter().flat_map(|claim| claim.needs.keys()).map(String::as_str).chain(["pods"]).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let kind = |name: &str| kinds.binary_search(&name).ok();
        let needs = claims.iter().map(|claim| {
            let some = claim.needs.iter().filter(|(_, need)| **need > 0);
            some.filter_map(|(name, need)| Some((kind(name)?, *need))).collect()
        });
        let implied = claims.iter().map(|claim| if claim.needs.contains_key("pods") { None } else { kind("pods") });
        let (needs, implied) = (needs.collect(), implied.collect());
        Self { names, matrix, columns, needs, implied, kinds, near: HashMap::new() }
    }

    /// What there is at first; one that a node does not list stands out.
    pub(super) fn stock(&self, free: &BTreeMap<NodeName, ResourceAmounts>) -> Stock {
        let row = |resources: &'_ ResourceAmounts| -> Vec<u64> {
            // As much as can be counted is nevertheless there.
            let amount = |kind: &&str| resources.get(*kind).map_or(UNLISTED, |amount| (*amount).min(UNLISTED - 1));
            self.kinds.iter().map(amount).collect()
        };
        Stock { kinds: self.kinds.len(), amounts: free.values().flat_map(row).collect() }
    }

    /// How many replicas fit, and the resource that limits them.
    fn fits(&self, claim: usize, resources: &[u64]) -> (u32, Option<&'a str>) {
        let mut least = (u32::MAX, None);
        for (kind, need) in &self.needs[claim] {
            let amount = if resources[*kind] == UNLISTED { 0 } else { resources[*kind] };
            let count = u32::try_from(amount / need).unwrap_or(u32::MAX);
            if count < least.0 {
                least = (count, Some(self.kinds[*kind]));
            }
        }
        if let Some(pods) = self.implied[claim] {
            let count = u32::try_from(resources[pods]).unwrap_or(u32::MAX);
            if count < least.0 {
                least = (count, Some(self.kinds[pods]));
            }
        }
        least
    }

    /// Takes what these replicas of a claim need.
    pub(super) fn take_all(&self, claim: usize, left: &mut Stock, replicas: &BTreeMap<NodeName, u32>) {
        self.change(claim, left, replicas, u64::saturating_sub);
    }

    /// Gives back what was taken for them.
    pub(super) fn give_back(&self, claim: usize, left: &mut Stock, replicas: &BTreeMap<NodeName, u32>) {
        self.change(claim, left, replicas, u64::saturating_add);
    }

    fn change(&self, claim: usize, left: &mut Stock, replicas: &BTreeMap<NodeName, u32>, changed: impl Fn(u64, u64) -> u64) {
        let implied = self.implied[claim].map(|pods| (pods, 1));
        for (node, count) in replicas {
            let Ok(at) = self.names.binary_search(&node) else { continue };
            let resources = left.of_mut(at);
            for (kind, need) in self.needs[claim].iter().copied().chain(implied) {
                if resources[kind] != UNLISTED {
                    resources[kind] = changed(resources[kind], need.saturating_mul(u64::from(*count)));
                }
            }
        }
    }

    /// The resource for want of which not even one replica fits.
    pub(super) fn binding(&self, claim: usize, resources: Option<&[u64]>) -> Option<&'a str> {
        let nothing = vec![UNLISTED; self.kinds.len()];
        let (count, name) = self.fits(claim, resources.unwrap_or(&nothing));
        name.filter(|_| count == 0)
    }

    /// All nodes that a claim names, with what is left of them.
    pub(super) fn room<'c>(&self, claim: &'c Claim, number: usize, left: &Stock) -> Room<'c> {
        // Both lists are in order of name.
        let mut at = 0;
        let mut room = Vec::with_capacity(claim.problem.capacities.len());
        for (node, capacity) in &claim.problem.capacities {
            while let Some(name) = self.names.get(at) {
                match (*name).cmp(node) {
                    Ordering::Less => at += 1,
                    Ordering::Equal => {
                        let running = || claim.problem.running.get(node).copied().unwrap_or(0);
                        let takes = capacity.schedulable && capacity.excluded.is_none();
                        let most = if takes { capacity.max_replicas } else { capacity.limit(running()) };
                        room.push((at, capacity, most.min(self.fits(number, left.of(at)).0)));
                        at += 1;
                        break;
                    }
                    Ordering::Greater => break,
                }
            }
        }
        room
    }

    /// How many replicas fit on all nodes that some source of a claim reaches.
    pub(super) fn reachable_room(&self, claim: &Claim, number: usize, left: &Stock) -> u64 {
        let problem = &claim.problem;
        let rows: Vec<Option<usize>> = problem.demand.iter().map(|(source, _)| problem.costs.position(source)).collect();
        let columns = &self.columns[self.matrix[number]];
        let reached = |at: usize| {
            // What is not known may be reached.
            let cost = |row: &Option<usize>| row.zip(columns[at]).map_or(0.0, |(row, column)| problem.costs.at(row, column));
            rows.is_empty() || rows.iter().any(|row| cost(row).is_finite())
        };
        let room = self.room(claim, number, left);
        room.iter().filter(|(at, _, most)| *most > 0 && reached(*at)).map(|(.., most)| u64::from(*most)).sum()
    }

    /// The nodes worth looking at, and whether any were left aside: those that run replicas, and
    /// those nearest to each source.
    pub(super) fn candidates<'c>(&mut self, claim: &'c Claim, number: usize, asked: u32, left: &Stock) -> (Room<'c>, bool) {
        let room = self.room(claim, number, left);
        let problem = &claim.problem;
        let anywhere = problem.model == CostModel::Uniform || problem.least_zones > 1;
        if room.len() <= FEW_NODES || anywhere {
            return (room, false);
        }
        let matrix = self.matrix[number];
        let columns = &self.columns[matrix];
        let mut kept: Vec<bool> = (room.iter())
            .map(|(at, capacity, _)| capacity.min_replicas > 0 || problem.running.contains_key(self.names[*at]))
            .collect();
        let mut entries = vec![None; self.names.len()];
        for (entry, (at, _, most)) in room.iter().enumerate() {
            entries[*at] = Some(entry).filter(|_| *most > 0);
        }
        let share = (problem.demand.total() / f64::from(asked.max(1))).max(problem.replica_concurrency);
        let idle: Vec<&NodeName> = if problem.demand.is_zero() { everybody(problem) } else { Vec::new() };
        for (source, demand) in problem.demand.iter().chain(idle.into_iter().map(|node| (node, 0.0))) {
            let Some(row) = problem.costs.position(source) else { continue };
            let cost = |at: usize| columns[at].map_or(f64::INFINITY, |column| problem.costs.at(row, column));
            let wanted = 2 + (demand / share).ceil() as usize;
            let near = self.near.entry((matrix, row)).or_insert_with(|| nearest((0..columns.len()).collect(), NEAR_NODES, cost));
            let open: Vec<usize> = near.iter().filter_map(|at| entries[*at]).take(wanted).collect();
            if open.len() == wanted {
                for entry in open {
                    kept[entry] = true;
                }
            } else {
                let open = (0..entries.len()).filter(|at| entries[*at].is_some()).collect();
                for entry in nearest(open, wanted, cost).into_iter().filter_map(|at| entries[at]) {
                    kept[entry] = true;
                }
            }
        }
        let cut: Room<'c> = room.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(entry, _)| *entry).collect();
        let enough = cut.iter().map(|(.., most)| u64::from(*most)).sum::<u64>() >= u64::from(asked);
        if enough { (cut, true) } else { (room, false) }
    }
}

/// The `count` cheapest, cheapest first.
fn nearest(nodes: Vec<usize>, wanted: usize, cost: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut near: Vec<(f64, usize)> = nodes.into_iter().map(|at| (cost(at), at)).collect();
    let order = |one: &(f64, usize), other: &(f64, usize)| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1));
    if wanted > 0 && wanted < near.len() {
        near.select_nth_unstable_by(wanted - 1, order);
    }
    near.truncate(wanted);
    near.sort_unstable_by(order);
    near.into_iter().map(|(_, at)| at).collect()
}
