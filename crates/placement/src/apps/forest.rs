//! Trees, exactly: dynamic programming over the places.

use super::model::Model;

/// Whether the calls, their directions aside, form trees.
pub(super) fn is_forest(model: &Model) -> bool {
    let mut trees = Trees::new(model.workloads());
    model.edges.iter().all(|edge| trees.join(edge.from, edge.to))
}

/// Components of a graph that grows.
pub(super) struct Trees(Vec<usize>);

impl Trees {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    pub(super) fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    /// Joins two components; false if they are one already.
    pub(super) fn join(&mut self, one: usize, other: usize) -> bool {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one] = other;
        one != other
    }
}

/// Gives the workloads that are `free`, and form trees among themselves, their best places, with
/// all others where they are.
pub(super) fn place_forest(model: &Model, unary: &[Vec<f64>], free: &[bool], labels: &mut [usize]) {
    let count = model.workloads();
    let mut seen = vec![false; count];
    let mut order: Vec<(usize, Option<usize>)> = Vec::new();
    for root in (0..count).filter(|workload| free[*workload]) {
        let mut open = vec![(root, None)];
        while let Some((workload, edge)) = open.pop() {
            if seen[workload] {
                continue;
            }
            seen[workload] = true;
            order.push((workload, edge));
            for next in &model.incident[workload] {
                let other = model.other(*next, workload);
                if free[other] && !seen[other] {
                    open.push((other, Some(*next)));
                }
            }
        }
    }
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); count];
    for (workload, _) in &order {
        let mut own = unary[*workload].clone();
        for edge in &model.incident[*workload] {
            let other = model.other(*edge, *workload);
            if !free[other] {
                for (place, value) in own.iter_mut().enumerate() {
                    *value += model.pair(*edge, *workload, place, labels[other]);
                }
            }
        }
        values[*workload] = own;
    }
    let mut choices: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (workload, edge) in order.iter().rev() {
        let Some(edge) = edge else { continue };
        let (least, places) = model.spread(*edge, *workload, &values[*workload]);
        choices[*workload] = places;
        for (sum, least) in values[model.other(*edge, *workload)].iter_mut().zip(least) {
            *sum += least;
        }
    }
    for (workload, edge) in &order {
        labels[*workload] = match edge {
            Some(edge) => choices[*workload][labels[model.other(*edge, *workload)]] as usize,
            None => cheapest(&values[*workload]),
        };
    }
}

/// The position of the least value, the first among equals.
pub(super) fn cheapest(values: &[f64]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value < values[best] {
            best = at;
        }
    }
    best
}
