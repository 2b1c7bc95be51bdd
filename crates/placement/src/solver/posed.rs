//! A problem as the solvers see it: in numbers, with ties in the order of a hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::Array2;

use crate::plan::UnplacedReason;
use crate::problem::NodeCapacity;
use crate::problem::Segment;
use crate::problem::{Effort, Problem, TIE_SECONDS};
use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::instance::Instance;
use crate::solver::search::Budget;
use crate::solver::tie::stable_hash;
use latency_matrix::NodeName;

/// With more nodes than this, only some are candidates.
pub(crate) const MANY_NODES: usize = 512;
/// Most sources of a problem without demand: nodes that are evenly chosen by name.
const IDLE_SOURCES: usize = 64;
/// Limits on replicas placed and on room considered, so that plans take bounded time and memory.
const MOST_REPLICAS: u32 = 100_000;
const MOST_ROOM: u64 = 2_000_000;
/// Pairs of nodes and sources that are routed over and over again, at most.
const ROUTED: usize = 10_000_000;
/// Pairs of candidates and sources that a search among many nodes looks at, and the share of the
/// objective that is not searched for there.
const MANY_PAIRS: usize = 4_000_000;
const ENOUGH: f64 = 0.005;
/// More sources than this are worth a longer search.
const FEW_SOURCES: usize = 64;
/// Replicas too many that a search may begin with.
const MANY_DROPS: u32 = 500;
/// More replicas than this are not looked at one by one.
const MANY_REPLICAS: u32 = 10_000;
/// No request in a replica counts more than this, so that leaving it unserved is always dearer.
const LONGEST_SERVING_SECONDS: f64 = UNSERVED_SECONDS / 2.0;

/// A problem in numbers, with the names that its rows and columns stand for.
#[derive(Clone, Debug)]
pub(crate) struct Posed<'a> {
    pub(crate) nodes: Vec<&'a NodeName>,
    pub(crate) sources: Vec<&'a NodeName>,
    pub(crate) instance: Instance,
    /// Whether there is no demand: the sources are stand-ins.
    pub(crate) idle: bool,
    /// Nodes that no source with demand can reach.
    pub(crate) unreachable: Vec<bool>,
    /// Demand of the sources that can reach some node that may have replicas.
    pub(crate) reached: f64,
    /// Fewest and most replicas per node if nothing had to stay: within the instance's own floors
    /// and limits.
    pub(crate) least: Vec<u32>,
    pub(crate) most: Vec<u32>,
    /// Replicas that each node shall have in any case, whether or not it can.
    pub(crate) minima: Vec<u32>,
    /// Whether there is so much room that only a part of it is looked at.
    pub(crate) cut: bool,
    /// Candidate nodes of the problem, of which `nodes` may be a part.
    pub(crate) size: usize,
}

/// The sources of a problem and what each asks for.
pub(crate) struct Sources<'a> {
    pub(crate) names: Vec<&'a NodeName>,
    pub(crate) supplies: Vec<f64>,
    /// Whether there is no demand: the sources are stand-ins.
    pub(crate) idle: bool,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        if problem.demand.is_zero() {
            // They ask for half a replica together.
            let names = everybody(problem);
            let supply = problem.replica_concurrency / (2.0 * names.len().max(1) as f64);
            return Self { supplies: vec![supply; names.len()], names, idle: true };
        }
        let (names, supplies) = problem.demand.iter().unzip();
        Self { names, supplies, idle: false }
    }
}

/// What the costs of all pairs come to per node.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Nodes that no source with demand can reach.
    pub(crate) unreachable: Vec<bool>,
    /// Sum of supply x seconds; what cannot be reached counts [`UNSERVED_SECONDS`].
    pub(crate) sums: Vec<f64>,
    /// Demand of the sources that can reach some node that may have replicas.
    pub(crate) reached: f64,
    /// Whether the costs of some source are all finite.
    is_whole: bool,
}

impl Reach {
    pub(crate) fn new(nodes: usize, idle: bool) -> Self {
        Self { unreachable: vec![!idle; nodes], sums: vec![0.0; nodes], reached: 0.0, is_whole: false }
    }

    /// What is known of all pairs at once.
    pub(crate) fn known(unreachable: Vec<bool>, sums: Vec<f64>, reached: f64) -> Self {
        Self { unreachable, sums, reached, is_whole: false }
    }

    /// What holds for other demand of the same sources; nothing where some of it reaches nobody.
    pub(crate) fn means(&self, sources: &Sources<'_>) -> Option<Arc<Self>> {
        let demand: f64 = sources.supplies.iter().sum();
        (self.reached >= demand * (1.0 - 1e-9)).then(|| Arc::new(self.clone()))
    }

    /// The same for other demand of the same sources. How far nodes are from demand only orders
    /// equals, so that it may be that of the demand before.
    pub(crate) fn scaled(&self, sources: &Sources<'_>) -> Self {
        Self { reached: sources.supplies.iter().sum(), ..self.clone() }
    }

    /// Adds a source with its costs to all nodes, none of which is more than `most`.
    pub(crate) fn add(&mut self, row: &[f64], most: f64, supply: f64, limits: &[u32], open: bool) {
        if most <= UNSERVED_SECONDS {
            self.sums.iter_mut().zip(row).for_each(|(sum, cost)| *sum += cost * supply);
        } else {
            self.sums.iter_mut().zip(row).for_each(|(sum, cost)| *sum += cost.min(UNSERVED_SECONDS) * supply);
        }
        if most < f64::INFINITY {
            if !self.is_whole {
                self.unreachable.iter_mut().for_each(|unreachable| *unreachable = false);
                self.is_whole = true;
            }
            self.reached += if open { supply } else { 0.0 };
            return;
        }
        let mut served = false;
        for ((unreachable, cost), limit) in self.unreachable.iter_mut().zip(row).zip(limits) {
            *unreachable &= !cost.is_finite();
            served |= cost.is_finite() && *limit > 0;
        }
        self.reached += if served { supply } else { 0.0 };
    }
}

impl<'a> Posed<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        // Whatever the solvers meet first among equals is thereby neither the first by name nor the
        // same for every service.
        let mut candidates: Vec<(u64, (&NodeName, &NodeCapacity))> =
            problem.capacities.iter().map(|entry| (stable_hash(&problem.service, entry.0.as_str()), entry)).collect();
        candidates.sort_by_key(|(hash, _)| *hash);
        let candidates: Vec<(&NodeName, &NodeCapacity)> = candidates.into_iter().map(|(_, entry)| entry).collect();
        let nodes: Vec<&NodeName> = candidates.iter().map(|(node, _)| *node).collect();
        let sources = Sources::new(problem);
        let running: Vec<u32> = nodes.iter().map(|node| problem.running.get(*node).copied().unwrap_or(0)).collect();
        let limits = own_limits(&candidates, &running);
        let mut costs = problem.costs.select(&sources.names, &nodes);
        let mut reach = Reach::new(nodes.len(), sources.idle);
        let open = limits.iter().any(|limit| *limit > 0);
        for (row, supply) in costs.rows().into_iter().zip(&sources.supplies) {
            let row = row.to_slice().unwrap_or_default();
            let most = row.iter().copied().fold(0.0, f64::max);
            reach.add(row, most, *supply, &limits, open);
        }
        costs = costs.reversed_axes();
        if nodes.len() <= MANY_NODES {
            costs = costs.as_standard_layout().into_owned();
        }
        let mut posed = Self::outline(problem, &candidates, sources, (running, limits), reach);
        posed.instance.costs = costs;
        posed
    }

    /// All but the costs. `counts` are the running replicas and the nodes' own limits.
    pub(crate) fn outline(
        problem: &Problem,
        candidates: &[(&'a NodeName, &'a NodeCapacity)],
        sources: Sources<'a>,
        counts: (Vec<u32>, Vec<u32>),
        reach: Reach,
    ) -> Self {
        let nodes: Vec<&NodeName> = candidates.iter().map(|(node, _)| *node).collect();
        let Sources { names: sources, supplies, idle } = sources;
        let (running, mut limits) = counts;
        let Reach { unreachable, sums, reached, .. } = reach;

        let most_each = most_each(problem, problem.replicas);
        for (limit, unreachable) in limits.iter_mut().zip(&unreachable) {
            *limit = if *unreachable { 0 } else { (*limit).min(most_each) };
        }
        let cut = cut(&mut limits, &running);
        let replicas = u32::try_from(sum(&limits)).unwrap_or(u32::MAX).min(problem.replicas).min(MOST_REPLICAS);

        // What shall run in any case comes first, then what runs.
        let mut floors = vec![0; nodes.len()];
        let mut spare = replicas;
        let minima: Vec<u32> = candidates.iter().map(|(_, capacity)| capacity.min_replicas).collect();
        for ((floor, limit), least) in floors.iter_mut().zip(&limits).zip(&minima) {
            *floor = (*least).min(*limit).min(spare);
            spare -= *floor;
        }
        let (least, most) = (floors.clone(), limits.clone());
        if idle || problem.keep_running {
            // Without demand nothing is gained by moving: only what is to be added or lost is
            // decided.
            let kept = running.iter().zip(&limits).zip(&floors);
            let kept: Vec<u32> = kept.map(|((running, limit), floor)| (*running).min(*limit).max(*floor)).collect();
            if sum(&kept) <= u64::from(replicas) {
                floors = kept;
            } else {
                limits = kept;
            }
        }

        let share = reached / f64::from(replicas.max(1));
        // When there is more demand than capacity, every replica takes its share of the excess.
        let replica_capacity = problem.replica_concurrency.max(share * (1.0 + 1e-9));
        // "Never move" costs no more than leaving demand unserved, so that sums stay finite.
        let start_cost = problem.move_seconds.min(UNSERVED_SECONDS) * share;
        let shorter =
            |segment: &Segment| Segment { marginal_seconds: segment.marginal_seconds.min(LONGEST_SERVING_SECONDS), ..*segment };
        let demand: f64 = supplies.iter().sum();
        let mean = |sum: &f64| if demand > 0.0 { sum / demand } else { 0.0 };
        let worst = sums.iter().map(mean).fold(0.0, f64::max).min(UNSERVED_SECONDS);
        let tie = start_cost.min(TIE_SECONDS * share) / 2.0;
        let rank = |sum: &f64| if worst > 0.0 { tie * mean(sum) / worst } else { 0.0 };
        let instance = Instance {
            costs: Array2::zeros((0, 0)),
            supplies,
            floors,
            limits,
            running,
            start_cost,
            rank_costs: sums.iter().map(rank).collect(),
            replica_capacity,
            segments: problem.serving.segments().iter().map(shorter).collect(),
            replicas,
        };
        let size = nodes.len();
        Self { nodes, sources, instance, idle, unreachable, reached, least, most, minima, cut, size }
    }

    /// Why a node takes no further replica.
    pub(crate) fn block(&self, problem: &Problem, node: usize) -> UnplacedReason {
        let capacity = &problem.capacities[self.nodes[node]];
        match &capacity.excluded {
            Some(exclusion) => UnplacedReason::Excluded(exclusion.clone()),
            None if self.unreachable[node] => UnplacedReason::Unreachable,
            None if !capacity.schedulable => UnplacedReason::Cordoned,
            None => UnplacedReason::Full { max_replicas: self.most[node] },
        }
    }

    /// What nodes lack of the replicas that they shall have in any case.
    pub(crate) fn below_minimum(&self, placement: &[u32]) -> BTreeMap<NodeName, u32> {
        let lacks = self.nodes.iter().zip(&self.minima).zip(placement).filter_map(|((node, least), count)| {
            let lacking = least.saturating_sub(*count);
            (lacking > 0).then(|| ((*node).clone(), lacking))
        });
        lacks.collect()
    }

    /// How hard to search: small problems are proven, large ones answered fast.
    pub(crate) fn budget(&self, problem: &Problem) -> Budget {
        // Few nodes may serve very many sources: what is worked out over and over again is bounded
        // by how long it takes.
        let affordable = |most: usize| most.min(100 + ROUTED / (self.size * self.sources.len()).max(1));
        let exhaustive = Budget {
            steps: 200,
            patience: 10,
            enough: 0.0,
            width: 16,
            tries: affordable(10_000),
            drops: 0,
            restarts: 4,
            anneals: 0,
            branchings: 0,
            routings: affordable(20_000),
            candidates: 512,
        };
        let budget = match self.size {
            _ if self.instance.replicas > MANY_REPLICAS => {
                Budget { steps: 4, width: 4, tries: 50, restarts: 0, routings: 0, ..exhaustive }
            }
            33.. if problem.effort == Effort::Quick => {
                Budget { steps: 0, width: 4, tries: 8, restarts: 0, routings: 0, ..exhaustive }
            }
            17.. if problem.effort == Effort::Thorough => Budget {
                steps: 2_000,
                patience: 30,
                enough: 0.0,
                width: 48,
                tries: 600,
                drops: MANY_DROPS,
                restarts: 2,
                anneals: (800 * self.instance.replicas as usize).clamp(10_000, 200_000),
                branchings: 60,
                routings: 0,
                candidates: 1024,
            },
            0..=16 => exhaustive,
            17..=64 => Budget { steps: 100, tries: affordable(1_000), routings: affordable(1_000), ..exhaustive },
            65..=512 => {
                // Few sources are soon served as well as can be.
                let is_hard = self.sources.len() > FEW_SOURCES;
                let (steps, drops, anneals) = if is_hard { (150, MANY_DROPS, 300) } else { (40, 0, 0) };
                Budget { steps, width: 32, tries: 150, drops, restarts: 2, anneals, routings: 0, ..exhaustive }
            }
            _ => {
                // Easy ones need little; of the others, work is bounded by the pairs that a step
                // looks at.
                let pairs = MANY_NODES * self.sources.len().max(1);
                Budget {
                    steps: (2 * MANY_PAIRS / pairs).clamp(4, 150),
                    enough: ENOUGH,
                    width: (MANY_PAIRS / 4 / pairs).clamp(8, 16),
                    tries: (MANY_PAIRS / pairs).clamp(12, 60),
                    drops: if pairs <= MANY_PAIRS / 16 { MANY_DROPS } else { 0 },
                    restarts: usize::from(pairs <= MANY_PAIRS / 16),
                    routings: 0,
                    ..exhaustive
                }
            }
        };
        let most = problem.most_steps.map_or(usize::MAX, |most| most as usize);
        Budget {
            steps: budget.steps.min(most),
            tries: budget.tries.min(most),
            drops: budget.drops.min(u32::try_from(most).unwrap_or(u32::MAX)),
            restarts: budget.restarts.min(most),
            anneals: budget.anneals.min(most),
            branchings: budget.branchings.min(most),
            routings: budget.routings.min(most),
            ..budget
        }
    }
}

/// The sources where there is no demand: some of the candidates.
pub(crate) fn everybody(problem: &Problem) -> Vec<&NodeName> {
    let step = problem.capacities.len().div_ceil(IDLE_SOURCES).max(1);
    problem.capacities.keys().step_by(step).collect()
}

/// The most of `replicas` replicas that may be on one node.
pub(crate) fn most_each(problem: &Problem, replicas: u32) -> u32 {
    // A share that is NaN allows one.
    let share = |share: f64| ((share * f64::from(replicas) + 1e-9) as u32).max(1);
    problem.node_share.map_or(replicas, share).min(replicas)
}

/// What each node may have by itself.
pub(crate) fn own_limits(candidates: &[(&NodeName, &NodeCapacity)], running: &[u32]) -> Vec<u32> {
    candidates.iter().zip(running).map(|((_, capacity), running)| capacity.limit(*running)).collect()
}

fn sum(counts: &[u32]) -> u64 {
    counts.iter().map(|count| u64::from(*count)).sum()
}

/// Lowers the greatest limits, though not below what runs, until they allow [`MOST_ROOM`] in all;
/// true where that was needed.
fn cut(limits: &mut [u32], running: &[u32]) -> bool {
    let staying = |(limit, running): (&u32, &u32)| u64::from(*limit.min(running));
    let stays = limits.iter().zip(running).map(staying).sum::<u64>() <= MOST_ROOM / 2;
    let lowered = |most: u32| {
        let pairs = limits.iter().zip(running);
        pairs.map(move |(limit, running)| (*limit).min(if stays { most.max(*running) } else { most }))
    };
    let room = |most: u32| lowered(most).map(u64::from).sum::<u64>();
    if room(u32::MAX) <= MOST_ROOM {
        return false;
    }
    let (mut low, mut high) = (1, u32::MAX);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if room(middle) <= MOST_ROOM { low = middle } else { high = middle }
    }
    let cut: Vec<u32> = lowered(low).collect();
    limits.copy_from_slice(&cut);
    true
}
