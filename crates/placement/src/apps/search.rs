//! Good placements, and how good they are at least.
//!
//! Room has a price at every place: with the right prices the placement that is best without limits
//! nearly keeps them, and its cost, less what the room is worth, is a bound for those that do.
//! Whole trees of workloads are moved at once.

use super::forest::{Trees, is_forest, place_forest};
use super::model::Model;
use super::packing::Packing;
use super::relaxation::Messages;
use crate::latency::synthetic::Random;

/// A placement and its bound.
pub(super) struct Found {
    pub(super) labels: Vec<usize>,
    pub(super) bound: f64,
}

/// Passes of messages where room is plenty, and those without a better bound after which to stop.
const PASSES: usize = 200;
const PATIENCE: usize = 10;
/// Prices of room that are tried, and passes of messages for each.
const PRICES: usize = 80;
const PASSES_EACH: usize = 2;
/// Rounds of moves; of whole trees; and kicks out of a dead end.
const ROUNDS: usize = 20;
const TREES: usize = 40;
const KICKS: usize = 60;
/// Work, in pairs of places looked at, after which a search ends early.
const MOST_WORK: usize = 4_000_000_000;

/// The best placement that is found for workloads that fit, starting from `start`.
pub(super) fn search(model: &Model, start: Vec<usize>) -> Found {
    let exact = is_forest(model);
    if exact {
        let mut labels = start.clone();
        place_forest(model, &model.unary, &vec![true; model.workloads()], &mut labels);
        if model.has_room(&labels) {
            return Found { bound: model.energy(&labels), labels };
        }
    }
    let mut search = Search { model, best: start.clone(), least: model.energy(&start), random: Random::new(7) };
    search.polish(start);
    let mut bound = search.bound_without_limits(exact);
    if !search.is_proven(bound) {
        let limited = model.room.iter().any(|room| !room.is_empty());
        if limited {
            bound = bound.max(search.bound_by_prices(exact, bound));
        }
        search.kick(bound);
    }
    Found { bound: bound.min(search.least), labels: search.best }
}

struct Search<'a> {
    model: &'a Model,
    best: Vec<usize>,
    least: f64,
    random: Random,
}

impl Search<'_> {
    fn is_proven(&self, bound: f64) -> bool {
        self.least <= bound + self.model.tolerance(self.least)
    }

    /// What one pass over all edges and places costs at most.
    fn affordable(&self, most: usize) -> usize {
        let places = self.model.places.len();
        let each = (self.model.edges.len() + self.model.workloads()).max(1) * places * places.max(1);
        most.min(MOST_WORK / each.max(1)).max(1)
    }

    /// Improves a placement within its room by moves and whole trees, and keeps the best.
    fn polish(&mut self, labels: Vec<usize>) {
        let mut packing = Packing::new(self.model, labels);
        packing.improve(ROUNDS);
        let mut least = self.model.energy(&packing.labels);
        let mut idle = 0;
        while idle < 4 && least.is_finite() {
            idle += 1;
            let mut labels = packing.labels.clone();
            let free = self.random_forest();
            place_forest(self.model, &self.model.unary, &free, &mut labels);
            let energy = self.model.energy(&labels);
            if energy < least - self.model.tolerance(least) && self.model.has_room(&labels) {
                packing = Packing::new(self.model, labels);
                packing.improve(ROUNDS);
                least = self.model.energy(&packing.labels);
                idle = 0;
            }
        }
        if least < self.least {
            (self.best, self.least) = (packing.labels, least);
        }
    }

    /// Workloads that form trees among themselves, as many as can be added in a random order.
    fn random_forest(&mut self) -> Vec<bool> {
        let mut order: Vec<usize> = (0..self.model.workloads()).collect();
        self.random.shuffle(&mut order);
        let mut free = vec![false; order.len()];
        let mut trees = Trees::new(order.len());
        for workload in order {
            let chosen = self.model.incident[workload].iter().map(|edge| self.model.other(*edge, workload));
            let mut roots: Vec<usize> = chosen.filter(|other| free[*other]).map(|other| trees.root(other)).collect();
            let neighbours = roots.len();
            roots.sort_unstable();
            roots.dedup();
            if roots.len() == neighbours {
                free[workload] = true;
                for root in roots {
                    trees.join(root, workload);
                }
            }
        }
        free
    }

    /// The bound where room does not matter; placements on the way that keep the room are taken.
    fn bound_without_limits(&mut self, exact: bool) -> f64 {
        if exact {
            let mut labels = self.best.clone();
            place_forest(self.model, &self.model.unary, &vec![true; labels.len()], &mut labels);
            let bound = self.model.energy(&labels);
            self.take_near(&labels);
            return bound;
        }
        let mut messages = Messages::new(self.model);
        let (mut best, mut idle) = (f64::NEG_INFINITY, 0);
        for pass in 0..self.affordable(PASSES) {
            let (bound, labels) = messages.pass(self.model, &self.model.unary);
            if pass % 5 == 0 {
                self.take_near(&labels);
            }
            idle = if bound > best + 1e-6 * best.abs() { 0 } else { idle + 1 };
            best = best.max(bound);
            if self.is_proven(best) || idle >= PATIENCE {
                break;
            }
        }
        best
    }

    /// The best placement near to one that may not keep the room.
    fn take_near(&mut self, labels: &[usize]) {
        let (labels, left) = Packing::first_fit(self.model, labels);
        if left.is_empty() {
            self.polish(labels);
        }
    }

    /// A bound that knows the room: prices rise where a relaxed placement needs more than there is.
    fn bound_by_prices(&mut self, exact: bool, without: f64) -> f64 {
        let model = self.model;
        let mut prices: Vec<Vec<f64>> = model.room.iter().map(|room| vec![0.0; room.len()]).collect();
        let mut direction = prices.clone();
        let mut messages = Messages::new(model);
        let (mut best, mut pace, mut idle) = (without, 1.0, 0);
        let mut best_prices = prices.clone();
        for round in 0..self.affordable(PRICES * PASSES_EACH) / PASSES_EACH {
            let unary: Vec<Vec<f64>> = (0..model.workloads())
                .map(|workload| {
                    let paid = |place: usize| {
                        prices[place].iter().zip(&model.needs[workload]).map(|(price, need)| price * need).sum::<f64>()
                    };
                    model.unary[workload].iter().enumerate().map(|(place, cost)| cost + paid(place)).collect()
                })
                .collect();
            let worth: f64 = prices.iter().flatten().zip(model.room.iter().flatten()).map(|(price, room)| price * room).sum();
            let (bound, labels) = if exact {
                let mut labels = self.best.clone();
                place_forest(model, &unary, &vec![true; labels.len()], &mut labels);
                let priced: f64 = labels.iter().enumerate().map(|(workload, place)| unary[workload][*place]).sum();
                (priced + model.calls(&labels), labels)
            } else {
                let mut last = (f64::NEG_INFINITY, Vec::new());
                for _ in 0..PASSES_EACH {
                    let (bound, labels) = messages.pass(model, &unary);
                    last = (bound.max(last.0), labels);
                }
                last
            };
            let bound = bound - worth;
            if bound > best {
                (best, idle) = (bound, 0);
                best_prices.clone_from(&prices);
            } else {
                idle += 1;
                if idle >= 6 {
                    (pace, idle) = (pace * 0.6, 0);
                    prices.clone_from(&best_prices);
                }
            }
            if round % 4 == 0 {
                self.take_near(&labels);
            }
            if self.is_proven(best) || pace < 1e-3 {
                break;
            }
            let used = model.used(&labels);
            let mut norm = 0.0;
            for ((direction, used), room) in direction.iter_mut().zip(&used).zip(&model.room) {
                for ((direction, used), room) in direction.iter_mut().zip(used).zip(room) {
                    *direction = 0.6 * *direction + (used - room);
                    norm += *direction * *direction;
                }
            }
            if norm <= 0.0 {
                break;
            }
            let step = pace * (self.least - bound).max(1e-9) / norm;
            for (price, direction) in prices.iter_mut().flatten().zip(direction.iter().flatten()) {
                *price = (*price + step * direction).max(0.0);
            }
        }
        best
    }

    /// Kicks the best placement out of its dead end by moving a few neighbours at random.
    fn kick(&mut self, bound: f64) {
        for _ in 0..self.affordable(TREES + KICKS).min(KICKS) {
            if self.is_proven(bound) || self.model.workloads() < 2 {
                return;
            }
            let mut packing = Packing::new(self.model, self.best.clone());
            let mut workload = self.random.below(self.model.workloads());
            for _ in 0..3 {
                let place = match self.random.below(2) {
                    0 => self.best[self.random.below(self.best.len())],
                    _ => self.random.below(self.model.places.len()),
                };
                packing.put(workload, place);
                let next = &self.model.incident[workload];
                workload = match next.get(self.random.below(next.len().max(1))) {
                    Some(edge) => self.model.other(*edge, workload),
                    None => self.random.below(self.model.workloads()),
                };
            }
            let wish = packing.labels;
            self.take_near(&wish);
        }
    }
}
