//! A problem as the solvers see it: in numbers, with ties in the order of a hash.

use crate::capacity::NodeCapacity;
use crate::flow::UNSERVED_SECONDS;
use crate::instance::Instance;
use crate::node::NodeName;
use crate::plan::UnplacedReason;
use crate::problem::{Diligence, Problem, TIE_SECONDS};
use crate::search::Effort;
use crate::tie::stable_hash;

/// With more nodes than this, only some are candidates.
const MANY_NODES: usize = 512;

/// A problem in numbers, with the names that its rows and columns stand for.
#[derive(Clone, Debug)]
pub(crate) struct Posed<'a> {
    pub(crate) nodes: Vec<&'a NodeName>,
    pub(crate) sources: Vec<&'a NodeName>,
    pub(crate) instance: Instance,
    /// Whether the sources stand for nobody: there is no demand.
    pub(crate) idle: bool,
    /// Nodes that no source with demand can reach.
    pub(crate) unreachable: Vec<bool>,
}

impl<'a> Posed<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        // Whatever the solvers meet first among equals is thereby neither the first by name nor the same for every service.
        let mut candidates: Vec<(u64, (&NodeName, &NodeCapacity))> =
            problem.capacities.iter().map(|entry| (stable_hash(&problem.service, entry.0.as_str()), entry)).collect();
        candidates.sort_by_key(|(hash, _)| *hash);
        let nodes: Vec<&NodeName> = candidates.iter().map(|(_, (node, _))| *node).collect();
        let idle = problem.demand.is_zero();
        let (sources, supplies): (Vec<&NodeName>, Vec<f64>) = if idle {
            let share = problem.replica_concurrency / (2.0 * nodes.len().max(1) as f64);
            problem.capacities.keys().map(|node| (node, share)).unzip()
        } else {
            problem.demand.iter().unzip()
        };
        let mut costs = problem.costs.select(&sources, &nodes);
        let mut unreachable = vec![true; nodes.len()];
        for row in costs.rows() {
            for (unreachable, cost) in unreachable.iter_mut().zip(row) {
                *unreachable &= cost.is_infinite();
            }
        }
        costs = costs.reversed_axes();
        if nodes.len() <= MANY_NODES {
            costs = costs.as_standard_layout().into_owned();
        }

        let running: Vec<u32> = nodes.iter().map(|node| problem.running.get(*node).copied().unwrap_or(0)).collect();
        let mut limits: Vec<u32> = (candidates.iter().zip(&running).zip(&unreachable))
            .map(|(((_, (_, capacity)), running), unreachable)| if *unreachable { 0 } else { capacity.limit(*running) })
            .collect();
        if let Some(share) = problem.node_share {
            // A share that is NaN allows one.
            let most = ((share * f64::from(problem.replicas) + 1e-9) as u32).max(1);
            limits.iter_mut().for_each(|limit| *limit = (*limit).min(most));
        }
        let room: u64 = limits.iter().map(|limit| u64::from(*limit)).sum();
        let replicas = u32::try_from(room).unwrap_or(u32::MAX).min(problem.replicas);
        let mut floors = vec![0; nodes.len()];
        if idle || problem.keep_running {
            // Without demand nothing is gained by moving: only what is to be added or lost is decided.
            let kept: Vec<u32> = running.iter().zip(&limits).map(|(running, limit)| *running.min(limit)).collect();
            if kept.iter().map(|kept| u64::from(*kept)).sum::<u64>() <= u64::from(replicas) {
                floors = kept;
            } else {
                limits = kept;
            }
        }

        let mut spare = u64::from(replicas) - floors.iter().map(|floor| u64::from(*floor)).sum::<u64>();
        for ((floor, limit), (_, (_, capacity))) in floors.iter_mut().zip(&limits).zip(&candidates) {
            let more = capacity.min_replicas.min(*limit).saturating_sub(*floor);
            let more = more.min(u32::try_from(spare).unwrap_or(u32::MAX));
            *floor += more;
            spare -= u64::from(more);
        }

        let demand: f64 = supplies.iter().sum();
        let share = demand / f64::from(replicas.max(1));
        // When there is more demand than capacity, every replica takes its share of the excess.
        let replica_capacity = problem.replica_concurrency.max(share * (1.0 + 1e-9));
        let start_cost = problem.move_seconds * share;
        let mut instance = Instance {
            costs,
            supplies,
            floors,
            limits,
            running,
            start_cost,
            rank_costs: vec![0.0; nodes.len()],
            replica_capacity,
            segments: problem.serving.segments().to_vec(),
            replicas,
        };
        let means = crate::uniform::mean_costs(&instance);
        let worst = means.iter().copied().fold(0.0, f64::max).min(UNSERVED_SECONDS);
        if worst > 0.0 {
            let tie = start_cost.min(TIE_SECONDS * share) / 2.0;
            instance.rank_costs = means.iter().map(|mean| tie * mean / worst).collect();
        }
        Self { nodes, sources, instance, idle, unreachable }
    }

    /// Why a node takes no further replica.
    pub(crate) fn block(&self, problem: &Problem, node: usize) -> UnplacedReason {
        let capacity = &problem.capacities[self.nodes[node]];
        match &capacity.excluded {
            Some(exclusion) => UnplacedReason::Excluded(exclusion.clone()),
            None if self.unreachable[node] => UnplacedReason::Unreachable,
            None if !capacity.schedulable => UnplacedReason::Cordoned,
            None => UnplacedReason::Full { max_replicas: self.instance.limits[node].min(capacity.max_replicas) },
        }
    }

    /// How hard to search: small problems are proven, large ones answered fast.
    pub(crate) fn effort(&self, diligence: Diligence) -> Effort {
        let exhaustive = Effort {
            steps: 200,
            patience: 10,
            width: 16,
            tries: 10_000,
            restarts: 4,
            anneals: 0,
            branchings: 0,
            routings: 20_000,
            candidates: 512,
        };
        match self.nodes.len() {
            33.. if diligence == Diligence::Quick => {
                Effort { steps: 0, width: 4, tries: 8, restarts: 0, routings: 0, ..exhaustive }
            }
            17.. if diligence == Diligence::Thorough => Effort {
                steps: 2_000,
                patience: 30,
                width: 48,
                tries: 600,
                restarts: 2,
                anneals: (800 * self.instance.replicas as usize).clamp(10_000, 200_000),
                branchings: 60,
                routings: 0,
                candidates: 1024,
            },
            0..=16 => exhaustive,
            17..=64 => Effort { steps: 100, tries: 1_000, routings: 1_000, ..exhaustive },
            65..=512 => Effort { steps: 40, width: 32, tries: 150, restarts: 2, routings: 0, ..exhaustive },
            _ => Effort { steps: 4, width: 8, tries: 12, restarts: 0, routings: 0, ..exhaustive },
        }
    }
}
