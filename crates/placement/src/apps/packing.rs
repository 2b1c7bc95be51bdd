//! Placements within the room of places: a first one, and better ones by moves of one, two or three
//! workloads.

use super::model::Model;

/// Room left at each place, as a placement changes.
#[derive(Clone)]
pub(super) struct Packing<'a> {
    model: &'a Model,
    pub(super) labels: Vec<usize>,
    used: Vec<Vec<f64>>,
}

/// Places that are tried for a workload that would have to push another one out.
const CROWDED_TRIED: usize = 8;

impl<'a> Packing<'a> {
    pub(super) fn new(model: &'a Model, labels: Vec<usize>) -> Self {
        let used = model.used(&labels);
        Self { model, labels, used }
    }

    /// Packs the workloads, those that need most first, each at its place in `wish` or else where
    /// it is cheapest; returns the labels and the workloads for which there is no room.
    pub(super) fn first_fit(model: &Model, wish: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..model.workloads()).collect();
        let size = |workload: &usize| model.needs[*workload].iter().copied().fold(0.0, f64::max);
        order.sort_by(|one, other| size(other).total_cmp(&size(one)).then(one.cmp(other)));
        let mut used: Vec<Vec<f64>> = model.room.iter().map(|room| vec![0.0; room.len()]).collect();
        let mut labels = wish.to_vec();
        let mut left = Vec::new();
        for workload in order {
            let fits = |place: usize| {
                let amounts = used[place].iter().zip(&model.needs[workload]).zip(&model.room[place]);
                model.unary[workload][place].is_finite() && amounts.into_iter().all(|((used, need), room)| used + need <= *room)
            };
            // The others count where they are wished for, until they are placed.
            let cost = |place: &usize| model.local(&labels, workload, *place);
            let place = if fits(wish[workload]) {
                Some(wish[workload])
            } else {
                (0..model.places.len()).filter(|place| fits(*place)).min_by(|one, other| cost(one).total_cmp(&cost(other)))
            };
            match place {
                Some(place) => {
                    labels[workload] = place;
                    used[place].iter_mut().zip(&model.needs[workload]).for_each(|(used, need)| *used += need);
                }
                None => left.push(workload),
            }
        }
        left.sort_unstable();
        (labels, left)
    }

    /// Whether a place takes a workload if another one leaves it.
    fn fits(&self, workload: usize, place: usize, without: Option<usize>) -> bool {
        let freed = |resource: usize| without.map_or(0.0, |leaving| self.model.needs[leaving][resource]);
        let amounts = self.used[place].iter().zip(&self.model.needs[workload]).zip(&self.model.room[place]);
        amounts.enumerate().all(|(resource, ((used, need), room))| used - freed(resource) + need <= *room)
    }

    pub(super) fn put(&mut self, workload: usize, place: usize) {
        let needs = &self.model.needs[workload];
        self.used[self.labels[workload]].iter_mut().zip(needs).for_each(|(used, need)| *used -= need);
        self.used[place].iter_mut().zip(needs).for_each(|(used, need)| *used += need);
        self.labels[workload] = place;
    }

    /// The cheapest place with room for a workload, beside `except`, and what it costs there.
    fn best_place(&self, workload: usize, except: usize) -> Option<(usize, f64)> {
        let costs = self.local_costs(workload);
        let open = (0..costs.len()).filter(|place| *place != except && costs[*place].is_finite());
        let fitting = open.filter(|place| *place == self.labels[workload] || self.fits(workload, *place, None));
        fitting.map(|place| (place, costs[place])).min_by(|one, other| one.1.total_cmp(&other.1))
    }

    fn local_costs(&self, workload: usize) -> Vec<f64> {
        (0..self.model.places.len()).map(|place| self.model.local(&self.labels, workload, place)).collect()
    }

    /// Moves workloads while that lowers the objective, at most `rounds` times through all.
    pub(super) fn improve(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let mut changed = false;
            for workload in 0..self.model.workloads() {
                changed |= self.move_one(workload) || self.move_into_crowd(workload);
            }
            for edge in 0..self.model.edges.len() {
                changed |= self.move_pair(edge);
            }
            if !changed {
                break;
            }
        }
    }

    fn move_one(&mut self, workload: usize) -> bool {
        let now = self.model.local(&self.labels, workload, self.labels[workload]);
        let Some((place, cost)) = self.best_place(workload, usize::MAX) else { return false };
        let better = cost < now - self.model.tolerance(now);
        if better {
            self.put(workload, place);
        }
        better
    }

    /// Moves a workload to where there is no room for it, and another one from there to elsewhere.
    fn move_into_crowd(&mut self, workload: usize) -> bool {
        let home = self.labels[workload];
        let costs = self.local_costs(workload);
        let now = costs[home];
        let mut wanted: Vec<usize> = (0..costs.len()).filter(|place| *place != home && costs[*place] < now).collect();
        wanted.sort_by(|one, other| costs[*one].total_cmp(&costs[*other]).then(one.cmp(other)));
        for place in wanted.into_iter().take(CROWDED_TRIED) {
            for leaving in (0..self.labels.len()).filter(|other| self.labels[*other] == place).collect::<Vec<_>>() {
                if !self.fits(workload, place, Some(leaving)) {
                    continue;
                }
                let before = self.pair_cost(workload, leaving);
                self.put(workload, place);
                let found = self.best_place(leaving, place);
                if let Some((to, _)) = found {
                    self.put(leaving, to);
                    if self.pair_cost(workload, leaving) < before - self.model.tolerance(before) {
                        return true;
                    }
                    self.put(leaving, place);
                }
                self.put(workload, home);
            }
        }
        false
    }

    /// Moves the two ends of an edge to one place.
    fn move_pair(&mut self, edge: usize) -> bool {
        let (one, other) = (self.model.edges[edge].from, self.model.edges[edge].to);
        let homes = (self.labels[one], self.labels[other]);
        let before = self.pair_cost(one, other);
        let mut best: Option<(f64, usize)> = None;
        for place in 0..self.model.places.len() {
            if !(self.model.unary[one][place] + self.model.unary[other][place]).is_finite() {
                continue;
            }
            // What is between the two costs nothing at one place.
            let mut cost = self.model.unary[one][place] + self.model.unary[other][place];
            for (end, partner) in [(one, other), (other, one)] {
                for edge in &self.model.incident[end] {
                    let third = self.model.other(*edge, end);
                    if third != partner {
                        cost += self.model.pair(*edge, end, place, self.labels[third]);
                    }
                }
            }
            if best.is_none_or(|(least, _)| cost < least) && self.takes_both(one, other, place) {
                best = Some((cost, place));
            }
        }
        let Some((cost, place)) = best.filter(|_| homes.0 != homes.1 || one != other) else { return false };
        let better = cost < before - self.model.tolerance(before);
        if better {
            self.put(one, place);
            self.put(other, place);
        }
        better
    }

    fn takes_both(&self, one: usize, other: usize, place: usize) -> bool {
        let mut trial = self.used[place].clone();
        for workload in [one, other] {
            if self.labels[workload] != place {
                trial.iter_mut().zip(&self.model.needs[workload]).for_each(|(used, need)| *used += need);
            }
        }
        trial.iter().zip(&self.model.room[place]).all(|(used, room)| used <= room)
    }

    /// What two workloads and their calls cost.
    fn pair_cost(&self, one: usize, other: usize) -> f64 {
        let both =
            self.model.local(&self.labels, one, self.labels[one]) + self.model.local(&self.labels, other, self.labels[other]);
        let between = self.model.incident[one].iter().filter(|edge| self.model.other(**edge, one) == other);
        both - between.map(|edge| self.model.pair(*edge, one, self.labels[one], self.labels[other])).sum::<f64>()
    }
}
