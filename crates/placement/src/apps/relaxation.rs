//! A lower bound on every placement: the linear relaxation, by sequential reweighted messages.
//!
//! Workloads are passed through in order, forwards and backwards, and tell their neighbours what
//! each place costs them. After every pass the least costs add up to a bound that never falls; for
//! trees it is the optimum.
//!
//! Source: Kolmogorov 2006, *Convergent tree-reweighted message passing for energy minimization*
//! (TRW-S).

use super::forest::cheapest;
use super::model::Model;

/// Messages along every edge, in both directions.
#[derive(Clone)]
pub(super) struct Messages {
    /// To the called and to the calling workload, per edge and place.
    along: Vec<[Vec<f64>; 2]>,
    /// The share of a workload's own costs that each of its edges gets.
    share: Vec<f64>,
}

impl Messages {
    pub(super) fn new(model: &Model) -> Self {
        let silent = || vec![0.0; model.places.len()];
        let share = (0..model.workloads())
            .map(|workload| {
                let later = model.incident[workload].iter().filter(|edge| model.other(**edge, workload) > workload).count();
                1.0 / later.max(model.incident[workload].len() - later).max(1) as f64
            })
            .collect();
        Self { along: model.edges.iter().map(|_| [silent(), silent()]).collect(), share }
    }

    /// One pass forwards and one backwards; returns the bound, and a placement made on the way.
    pub(super) fn pass(&mut self, model: &Model, unary: &[Vec<f64>]) -> (f64, Vec<usize>) {
        let count = model.workloads();
        let mut labels = vec![0; count];
        for workload in 0..count {
            let costs = self.costs(model, unary, workload);
            // Neighbours before it have their places, those after it speak by messages.
            let mut choice = unary[workload].clone();
            for edge in &model.incident[workload] {
                let other = model.other(*edge, workload);
                for (place, sum) in choice.iter_mut().enumerate() {
                    *sum += if other < workload {
                        model.pair(*edge, workload, place, labels[other])
                    } else {
                        self.incoming(model, *edge, workload)[place]
                    };
                }
            }
            labels[workload] = cheapest(&choice);
            for edge in model.incident[workload].iter().filter(|edge| model.other(**edge, workload) > workload) {
                self.send(model, *edge, workload, &costs);
            }
        }
        let mut bound = 0.0;
        for workload in (0..count).rev() {
            let mut costs = self.costs(model, unary, workload);
            bound += subtract_least(&mut costs);
            for edge in model.incident[workload].iter().filter(|edge| model.other(**edge, workload) < workload) {
                bound += self.send(model, *edge, workload, &costs);
            }
        }
        (bound, labels)
    }

    fn incoming(&self, model: &Model, edge: usize, workload: usize) -> &[f64] {
        &self.along[edge][usize::from(model.edges[edge].to != workload)]
    }

    /// Own costs and all messages.
    fn costs(&self, model: &Model, unary: &[Vec<f64>], workload: usize) -> Vec<f64> {
        let mut costs = unary[workload].clone();
        for edge in &model.incident[workload] {
            for (sum, message) in costs.iter_mut().zip(self.incoming(model, *edge, workload)) {
                *sum += message;
            }
        }
        costs
    }

    /// Renews the message of a workload along an edge; returns by how much it was lowered to begin
    /// at 0.
    fn send(&mut self, model: &Model, edge: usize, workload: usize, costs: &[f64]) -> f64 {
        let share = self.share[workload];
        let values: Vec<f64> =
            costs.iter().zip(self.incoming(model, edge, workload)).map(|(cost, message)| share * cost - message).collect();
        let (mut message, _) = model.spread(edge, workload, &values);
        let least = subtract_least(&mut message);
        let to_called = model.edges[edge].from == workload;
        self.along[edge][usize::from(!to_called)] = message;
        least
    }
}

fn subtract_least(values: &mut [f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    values.iter_mut().for_each(|value| *value -= least);
    least
}
