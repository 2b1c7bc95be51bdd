//! A lower bound on every placement by linear programming, with a solver that shares nothing with
//! the library.
//!
//! Replicas may be split: `x[n]` of them on node `n`, at most `limit`, `sum x = replicas`;
//! `g[s][n]` is the share of source `s` that is served on `n`, at most `x[n]`;
//! `sum_n g[s][n] + u[s] = 1`; `sum_s demand[s] g[s][n] <= capacity x[n]`. Pairs beyond a source's
//! reach are left out; not to serve a source (`u`) costs as much as its reach, so that its price
//! cannot want a pair that was left out. The solver's prices of the sources then give a bound that
//! holds for all pairs and however exact the solver was (the program's Lagrangian dual): demand x
//! price minus the most that `replicas` replicas can earn at these prices. Sources that are not
//! served reach twice as far in the next program.

use anyhow::{Context, Result};
use good_lp::constraint::{eq, leq};
use good_lp::{DualValues, Expression, ProblemVariables, SolutionWithDual, SolverModel, Variable, clarabel, variable};
use ndarray::Array2;

use crate::report::note;

/// Programs that are solved at most.
const ROUNDS: usize = 4;
/// Solvers like numbers near one: the objective is in demand x milliseconds.
const SCALE: f64 = 1e3;
/// A first reach is so many times the price that is guessed, and at least half the mean one.
const REACH: f64 = 1.3;
/// A share that counts as not served.
const SOME: f64 = 1e-4;

/// What is placed.
pub(crate) struct Program<'a> {
    /// `costs[(node, source)]`, seconds.
    pub(crate) costs: &'a Array2<f64>,
    /// Demand per source.
    pub(crate) demand: &'a [f64],
    pub(crate) replicas: u32,
    /// Most replicas on a node.
    pub(crate) limit: u32,
    /// Demand that a replica serves.
    pub(crate) capacity: f64,
}

/// The bound: demand x seconds of network time that no placement stays below.
pub(crate) struct Bound {
    pub(crate) value: f64,
    /// What the last program itself says; the bound is the more the nearer to it.
    pub(crate) program: f64,
    pub(crate) pairs: usize,
}

struct Solved {
    value: f64,
    prices: Vec<f64>,
    /// Share of each source.
    unserved: Vec<f64>,
    pairs: usize,
}

impl Program<'_> {
    /// The bound; `prices` are a first guess of what a unit of demand of each source costs,
    /// seconds.
    pub(crate) fn bound(&self, prices: &[f64]) -> Bound {
        let least = prices.iter().sum::<f64>() / prices.len() as f64 / 2.0;
        let mut reach: Vec<f64> = prices.iter().map(|price| REACH * price.max(least)).collect();
        let mut best = Bound { value: self.earned(prices), program: f64::INFINITY, pairs: 0 };
        for _ in 0..ROUNDS {
            let solved = match self.solve(&reach) {
                Ok(solved) => solved,
                Err(error) => {
                    // The bound so far still holds.
                    note(&format!("{error:#}"));
                    break;
                }
            };
            best.value = best.value.max(self.earned(&solved.prices));
            best.program = solved.value;
            best.pairs = solved.pairs;
            let beyond = solved.unserved.iter().filter(|unserved| **unserved > SOME).count();
            if beyond == 0 {
                break;
            }
            for (reach, unserved) in reach.iter_mut().zip(&solved.unserved) {
                *reach *= if *unserved > SOME { 2.0 } else { 1.0 };
            }
        }
        best
    }

    /// The program over the pairs that cost at most `reach` of their source.
    fn solve(&self, reach: &[f64]) -> Result<Solved> {
        let (nodes, sources) = self.costs.dim();
        let mut variables = ProblemVariables::new();
        let replicas: Vec<Variable> = (0..nodes).map(|_| variables.add(variable().min(0.0).max(self.limit))).collect();
        let mut shares: Vec<(usize, usize, Variable)> = Vec::new();
        for (source, (reach, costs)) in reach.iter().zip(self.costs.columns()).enumerate() {
            let within = costs.into_iter().enumerate().filter(|(_, cost)| *cost <= reach);
            shares.extend(within.map(|(node, _)| (node, source, variables.add(variable().min(0.0)))));
        }
        let unserved: Vec<Variable> = (0..sources).map(|_| variables.add(variable().min(0.0))).collect();
        let costs = |source: usize, seconds: f64| SCALE * self.demand[source] * seconds;
        let to_skip: Expression =
            unserved.iter().enumerate().map(|(source, skipped)| costs(source, reach[source]) * *skipped).sum();
        let to_serve: Expression =
            shares.iter().map(|(node, source, share)| costs(*source, self.costs[(*node, *source)]) * *share).sum();
        let mut problem = variables.minimise(to_serve + to_skip).using(clarabel);
        // The bound holds however exact the program is solved.
        problem.settings().tol_gap_rel(1e-5).tol_gap_abs(1e-5).tol_feas(1e-6);
        let mut served: Vec<Vec<Variable>> = unserved.iter().map(|skipped| vec![*skipped]).collect();
        let mut loads = vec![Vec::new(); nodes];
        for (node, source, share) in &shares {
            served[*source].push(*share);
            loads[*node].push(self.demand[*source] / self.capacity * *share);
        }
        let rows: Vec<_> =
            served.into_iter().map(|served| problem.add_constraint(eq(served.into_iter().sum::<Expression>(), 1.0))).collect();
        problem.add_constraint(eq(replicas.iter().sum::<Expression>(), self.replicas));
        for (loads, replicas) in loads.into_iter().zip(&replicas) {
            problem.add_constraint(leq(loads.into_iter().sum::<Expression>() - *replicas, 0.0));
        }
        for (node, _, share) in &shares {
            problem.add_constraint(leq(*share - replicas[*node], 0.0));
        }
        let mut solution = problem.solve().context("failed to solve the linear program")?;
        let is = |variable: Variable| good_lp::Solution::value(&solution, variable);
        let served: f64 =
            shares.iter().map(|(node, source, share)| self.demand[*source] * self.costs[(*node, *source)] * is(*share)).sum();
        let unserved: Vec<f64> = unserved.into_iter().map(is).collect();
        let skipped: f64 =
            unserved.iter().zip(self.demand).zip(reach).map(|((unserved, demand), reach)| unserved * demand * reach).sum();
        let pairs = shares.len();
        let dual = solution.compute_dual();
        // An equality's price has no sign of its own; what a source costs is never less than 0.
        let prices = rows.into_iter().zip(self.demand).map(|(row, demand)| dual.dual(row).abs() / (SCALE * demand)).collect();
        Ok(Solved { value: served + skipped, prices, unserved, pairs })
    }

    /// Demand x price minus the most that the replicas can earn: below every placement, whatever
    /// the prices.
    fn earned(&self, prices: &[f64]) -> f64 {
        let mut marginals = Vec::new();
        for costs in self.costs.rows() {
            let mut wanted: Vec<(f64, f64)> =
                prices.iter().zip(costs).zip(self.demand).map(|((price, cost), demand)| (price - cost, *demand)).collect();
            wanted.retain(|(gain, _)| *gain > 0.0);
            wanted.sort_by(|one, other| other.0.total_cmp(&one.0));
            let mut wanted = wanted.into_iter();
            let mut next = wanted.next();
            for _ in 0..self.limit {
                let (mut room, mut profit) = (self.capacity, 0.0);
                while let Some((gain, demand)) = &mut next {
                    let amount = room.min(*demand);
                    profit += *gain * amount;
                    room -= amount;
                    *demand -= amount;
                    if *demand > 0.0 {
                        break;
                    }
                    next = wanted.next();
                }
                marginals.push(profit);
            }
        }
        // A node's profit grows ever more slowly, so the best replicas are the greatest marginals.
        marginals.sort_by(|one, other| other.total_cmp(one));
        let value: f64 = prices.iter().zip(self.demand).map(|(price, demand)| price * demand).sum();
        value - marginals.iter().take(self.replicas as usize).sum::<f64>()
    }
}
