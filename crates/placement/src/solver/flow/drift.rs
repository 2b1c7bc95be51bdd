//! A routing that follows a placement from move to move, each of which is tried before it is kept.

use ndarray::Array2;

use super::{Network, Scratch, Server, Ways};
use crate::solver::instance::Instance;

/// A routing in which servers come, go, shrink and grow.
pub(crate) struct Drift<'a> {
    costs: &'a Array2<f64>,
    ways: Ways<'a>,
    /// The row of the server in each slot.
    rows: Vec<Option<usize>>,
    now: Network,
    trial: Network,
    /// The rows after the trial.
    trial_rows: Vec<Option<usize>>,
    scratch: Scratch,
}

impl<'a> Drift<'a> {
    /// The best routing for a placement, with room for any that follows.
    pub(crate) fn new(instance: &'a Instance, placement: &[u32]) -> Self {
        Self::with_spare(instance, placement, usize::MAX)
    }

    /// The same with room for at most so many servers more.
    pub(crate) fn with_spare(instance: &'a Instance, placement: &[u32], spare: usize) -> Self {
        let servers = instance.servers(placement);
        // While a replica moves, there may be a node more than there are replicas.
        let most = instance.nodes().min(instance.replicas as usize) + 1;
        let slots = most.min(servers.len().saturating_add(spare)).max(servers.len());
        let ways = Ways::new(&instance.costs, &instance.supplies, &servers, slots - servers.len(), &instance.segments);
        let mut rows: Vec<Option<usize>> = servers.iter().map(|server| Some(server.row)).collect();
        rows.resize(slots, None);
        let mut scratch = Scratch::default();
        let now = Network::filled(&ways, &mut scratch, &servers, &instance.supplies);
        Self { costs: &instance.costs, ways, trial_rows: rows.clone(), rows, now, trial: Network::default(), scratch }
    }

    /// The routing's own total.
    pub(crate) fn total(&self) -> f64 {
        self.now.total(&self.ways)
    }

    /// What one more unit of demand of each source would cost.
    pub(crate) fn source_prices(&self) -> Vec<f64> {
        self.now.source_prices(&self.ways)
    }

    /// Whether there is room for a further server.
    pub(crate) fn has_room(&self) -> bool {
        self.rows.contains(&None)
    }

    /// The total if one server had the capacity given, less than now, and what one more unit of
    /// demand of each source would cost then.
    pub(crate) fn without(&mut self, less: Server) -> (f64, Vec<f64>) {
        self.trial.copy(&self.now);
        if let Some(slot) = self.slot(less.row) {
            self.trial.shrink(&self.ways, &mut self.scratch, slot, less.capacity);
        }
        (self.trial.total(&self.ways), self.trial.source_prices(&self.ways))
    }

    /// The sources that a node serves, and how much of each.
    pub(crate) fn tenants(&self, row: usize) -> &[(usize, f64)] {
        self.slot(row).map_or(&[], |slot| self.now.tenants(slot))
    }

    /// The total if one server, which must be there, had the capacity given, less than now, and
    /// another one, there or not, the capacity given, more than now.
    pub(crate) fn attempt(&mut self, less: Server, more: Server) -> f64 {
        self.try_below(less, more, f64::INFINITY);
        self.trial.total(&self.ways)
    }

    /// The same; `None` as soon as it is clear that it is not below `limit`. Then there is no
    /// change to be made.
    pub(crate) fn attempt_below(&mut self, less: Server, more: Server, limit: f64) -> Option<f64> {
        self.try_below(less, more, limit).then(|| self.trial.total(&self.ways))
    }

    fn try_below(&mut self, less: Server, more: Server, limit: f64) -> bool {
        self.trial.copy(&self.now);
        self.trial_rows.clone_from(&self.rows);
        if let Some(slot) = self.slot(less.row) {
            self.trial.shrink(&self.ways, &mut self.scratch, slot, less.capacity);
            if less.capacity <= 0.0 {
                self.trial_rows[slot] = None;
            }
        }
        let free = self.rows.iter().position(Option::is_none);
        let Some(slot) = self.slot(more.row).or(free) else { return true };
        if self.rows[slot].is_none() {
            self.ways.put(slot, &self.costs.row(more.row));
            self.trial_rows[slot] = Some(more.row);
        }
        self.trial.grow_below(&self.ways, &mut self.scratch, slot, more.capacity, limit)
    }

    /// Makes the change that was tried last.
    pub(crate) fn keep(&mut self) {
        std::mem::swap(&mut self.now, &mut self.trial);
        std::mem::swap(&mut self.rows, &mut self.trial_rows);
    }

    fn slot(&self, row: usize) -> Option<usize> {
        self.rows.iter().position(|known| *known == Some(row))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Segment;

    proptest! {
        #[test]
        fn the_same_as_routing_anew(
            cells in prop::collection::vec(prop_oneof![6 => 0.0..0.1_f64, 2 => (0..4_u8).prop_map(|step| f64::from(step) * 0.02), 1 => Just(f64::INFINITY)], 36),
            supplies in prop::collection::vec(0.1..4.0_f64, 6),
            mut placement in prop::collection::vec(0..3_u32, 6),
            moves in prop::collection::vec((0..6_usize, 0..6_usize, prop::bool::ANY), 1..8),
            spare in prop_oneof![Just(2_usize), Just(usize::MAX)],
            busy in prop::bool::ANY,
            share in 0.0..1.0_f64,
        ) {
            let segment = |width, marginal_seconds| Segment { width, marginal_seconds };
            let segments = if busy { vec![segment(0.5, 0.004), segment(0.3, 0.02), segment(0.2, 0.07)] } else { vec![segment(1.0, 0.004)] };
            let instance = Instance {
                costs: Array2::from_shape_vec((6, 6), cells).unwrap(),
                supplies,
                floors: vec![0; 6],
                limits: vec![9; 6],
                running: vec![0; 6],
                start_cost: 0.0,
                rank_costs: vec![0.0; 6],
                replica_capacity: 2.5,
                segments,
                replicas: placement.iter().sum(),
            };
            let mut drift = Drift::with_spare(&instance, &placement, spare);
            for (from, to, keeps) in moves {
                if from == to || placement[from] == 0 || !(placement[to] > 0 || drift.has_room()) {
                    continue;
                }
                let near = |found: f64, expected: f64| (found - expected).abs() < 1e-9 * expected.max(1.0);
                let before = instance.route(&placement).1;
                prop_assert!(near(drift.total(), before.total()));
                let mut after = placement.clone();
                after[from] -= 1;
                let (total, prices) = drift.without(instance.server(from, &after));
                let expected = instance.route(&after).1;
                prop_assert!(near(total, expected.total()), "{total} instead of {}", expected.total());
                prop_assert_eq!(prices.len(), expected.source_prices.len());
                after[to] += 1;
                let (less, more) = (instance.server(from, &after), instance.server(to, &after));
                let expected = instance.total(&after);
                // It is given up only where it is not below the limit.
                let limit = expected * (0.5 + share);
                let below = drift.attempt_below(less, more, limit);
                let found = drift.attempt(less, more);
                prop_assert!(near(found, expected), "{found} instead of {expected}");
                let is_right = below.map_or(expected >= limit - 1e-9 * expected.max(1.0), |below| below == found);
                prop_assert!(is_right, "{below:?} for {limit} instead of {found}");
                if keeps {
                    drift.keep();
                    placement = after;
                }
            }
        }
    }
}
