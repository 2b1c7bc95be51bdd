//! Nodes filled to different degrees: one that is near to many may be filled to the brim, one that
//! has to answer from afar only a little, and one may take what is allowed to be late.

use ndarray::Array2;

use super::{Candidate, ServiceLevel, TOO_LONG_SECONDS};
use crate::problem::Problem;
use crate::problem::Segment;
use crate::solver::flow::{Routing, Server, route};
use crate::solver::posed::Posed;
use crate::solver::search::{self, Found};
use crate::solver::solve::Routed;
use crate::solver::zones;

/// Placements of a number of replicas that are tried one by one; where there are more, only some
/// that look good are.
const PLACEMENTS: usize = 500;
/// Fillings of one placement that are tried one by one; where there are more, those that single
/// changes lead to are.
const FILLINGS: usize = 12_000;
/// Good-looking placements that are tried where not all are.
const GUESSES: usize = 4;

/// What does not change while placements and fillings are tried.
pub(super) struct Filling<'a> {
    /// The problem for a number of replicas.
    pub(super) problem: &'a Problem,
    pub(super) base: Posed<'a>,
    pub(super) level: ServiceLevel,
    /// Utilisations to choose from, highest first.
    pub(super) choices: &'a [f64],
}

impl Filling<'_> {
    /// A placement in which each node, filled as suits it, meets the level; none if none was found.
    pub(super) fn meet(&self) -> Option<Candidate> {
        self.placements().into_iter().find_map(|placement| self.fill(&placement))
    }

    fn placements(&self) -> Vec<Vec<u32>> {
        let instance = &self.base.instance;
        let mut all = Vec::new();
        if each(&instance.floors, &instance.limits, instance.replicas, &mut Vec::new(), &mut all) {
            let wanted = zones::reachable(&self.base, self.problem);
            all.retain(|placement| zones::in_use(&self.base, self.problem, placement) >= wanted);
            return all;
        }
        let step = self.choices.len().div_ceil(GUESSES).max(1);
        let mut guesses: Vec<Vec<u32>> = (self.choices.iter().step_by(step))
            .map(|utilisation| {
                let mut judged = self.base.clone();
                judged.instance.replica_capacity = self.problem.replica_concurrency;
                judged.instance.segments = vec![Segment { width: 1.0, marginal_seconds: 0.0 }];
                let serving = self.problem.serving.mean_seconds(*utilisation);
                judged.instance.costs.mapv_inplace(|cost| self.judged(cost, serving));
                let effort = self.base.budget(self.problem);
                zones::spread(&mut judged, self.problem, |posed| search::solve(&posed.instance, effort)).placement
            })
            .collect();
        guesses.dedup();
        guesses
    }

    /// What a way costs if serving takes so long: more where that is too long in all.
    fn judged(&self, cost: f64, serving: f64) -> f64 {
        if cost + serving > self.level.seconds + 1e-12 { cost + TOO_LONG_SECONDS } else { cost }
    }

    /// Fills the nodes of a placement so that the level is met.
    fn fill(&self, placement: &[u32]) -> Option<Candidate> {
        let used: Vec<usize> = (0..placement.len()).filter(|node| placement[*node] > 0).collect();
        // If not even full nodes that answer as fast as idle ones do, nothing does.
        let idle = self.problem.serving.mean_seconds(0.0);
        let best = self.route(&used, placement, &vec![1.0; used.len()], |_| idle);
        if !self.meets(&self.candidate(&used, placement, &best, &[], |_| idle)) {
            return None;
        }
        let serving = |utilisation: f64| self.problem.serving.mean_seconds(utilisation);
        let judged = |fill: &[f64]| {
            let routing = self.route(&used, placement, fill, serving);
            Some(self.candidate(&used, placement, &routing, fill, |node| serving(fill[node]))).filter(|found| self.meets(found))
        };
        let ways = u32::try_from(used.len()).ok().and_then(|used| self.choices.len().checked_pow(used));
        if let Some(ways) = ways.filter(|ways| *ways <= FILLINGS) {
            // Every filling: the digits of a number.
            let fill = |way: usize| -> Vec<f64> {
                let mut rest = way;
                let digits = used.iter().map(|_| {
                    let digit = rest % self.choices.len();
                    rest /= self.choices.len();
                    self.choices[digit]
                });
                digits.collect()
            };
            return (0..ways).find_map(|way| judged(&fill(way)));
        }
        self.choices.iter().find_map(|choice| judged(&self.varied(&used, placement, vec![*choice; used.len()])))
    }

    /// Changes one node's filling at a time as long as that helps.
    fn varied(&self, used: &[usize], placement: &[u32], mut fill: Vec<f64>) -> Vec<f64> {
        let total = |fill: &[f64]| {
            let routing = self.route(used, placement, fill, |utilisation| self.problem.serving.mean_seconds(utilisation));
            routing.total()
        };
        let mut least = total(&fill);
        let mut changed = true;
        while changed {
            changed = false;
            for node in 0..used.len() {
                for choice in self.choices {
                    let before = std::mem::replace(&mut fill[node], *choice);
                    let now = total(&fill);
                    if now < least - 1e-9 * (1.0 + least) {
                        (least, changed) = (now, true);
                    } else {
                        fill[node] = before;
                    }
                }
            }
        }
        fill
    }

    fn meets(&self, candidate: &Candidate) -> bool {
        super::meets(candidate, self.level)
    }

    /// The best routing if node by node of `used` is filled to `fill` at most and then serves in
    /// `serving` seconds.
    fn route(&self, used: &[usize], placement: &[u32], fill: &[f64], serving: impl Fn(f64) -> f64) -> Routing {
        let instance = &self.base.instance;
        let times: Vec<f64> = fill.iter().map(|fill| serving(*fill)).collect();
        let costs = Array2::from_shape_fn((used.len(), instance.supplies.len()), |(row, source)| {
            self.judged(instance.costs[(used[row], source)], times[row])
        });
        let servers: Vec<Server> = (used.iter().zip(fill).enumerate())
            .map(|(row, (node, fill))| Server {
                row,
                capacity: f64::from(placement[*node]) * self.problem.replica_concurrency * fill,
            })
            .collect();
        route(&costs, &instance.supplies, &servers, &[Segment { width: 1.0, marginal_seconds: 0.0 }])
    }

    fn candidate(
        &self,
        used: &[usize],
        placement: &[u32],
        routing: &Routing,
        fill: &[f64],
        serving: impl Fn(usize) -> f64,
    ) -> Candidate {
        let instance = &self.base.instance;
        let mut routed = Routed { unserved: routing.unserved.clone(), ..Routed::default() };
        let mut within = 0.0;
        for (row, (node, tenants)) in used.iter().zip(&routing.tenants).enumerate() {
            let load: f64 = tenants.iter().map(|(_, amount)| amount).sum();
            let full = f64::from(placement[*node]) * self.problem.replica_concurrency;
            routed.serving += load * self.problem.serving.mean_seconds(load / full);
            for (source, amount) in tenants {
                let cost = instance.costs[(*node, *source)];
                routed.flows.push((*source, *node, *amount));
                routed.network += amount * cost;
                if self.judged(cost, serving(row)) < TOO_LONG_SECONDS {
                    within += amount;
                }
            }
        }
        let total = routed.network + routed.serving + instance.openings(placement);
        let found = Found { placement: placement.to_vec(), total, lower_bound: 0.0, proven: false };
        let capacity = fill.iter().copied().fold(1.0, f64::min) * self.problem.replica_concurrency;
        Candidate { found, routed, replicas: instance.replicas, within: within / instance.demand(), capacity }
    }
}

/// Every way of placing `left` replicas between floors and limits; false if there are too many.
fn each(floors: &[u32], limits: &[u32], left: u32, begun: &mut Vec<u32>, all: &mut Vec<Vec<u32>>) -> bool {
    let node = begun.len();
    if node == limits.len() {
        if left == 0 {
            all.push(begun.clone());
        }
        return all.len() <= PLACEMENTS;
    }
    let rest: u64 = limits[node + 1..].iter().map(|limit| u64::from(*limit)).sum();
    for here in floors[node]..=left.min(limits[node]) {
        if u64::from(left - here) > rest {
            continue;
        }
        begun.push(here);
        let few = each(floors, limits, left - here, begun, all);
        begun.pop();
        if !few {
            return false;
        }
    }
    true
}
