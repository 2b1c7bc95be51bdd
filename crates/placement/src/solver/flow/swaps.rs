//! What a routing would cost if one server had less and another had more: the changes are worked
//! out from the routing at hand instead of routing all demand again.

use ndarray::Array2;

use super::{Network, Scratch, Server, Ways};
use crate::problem::Segment;

/// A routing and what is needed to try changes of it.
pub(crate) struct Swaps<'a> {
    costs: &'a Array2<f64>,
    ways: Ways<'a>,
    servers: &'a [Server],
    base: Network,
    /// Per server: the routing after it has given up what the last change took from it.
    shrunk: Vec<Option<Shrunk>>,
    trial: Network,
    scratch: Scratch,
}

/// A routing in which one server has a lower capacity.
struct Shrunk {
    capacity: f64,
    network: Network,
    total: f64,
}

impl<'a> Swaps<'a> {
    /// Routes `supplies` as [`super::route`] does.
    pub(crate) fn new(costs: &'a Array2<f64>, supplies: &[f64], servers: &'a [Server], segments: &'a [Segment]) -> Self {
        // One slot is spare, for a server that is not there yet.
        let ways = Ways::new(costs, supplies, servers, 1, segments);
        let mut scratch = Scratch::default();
        let base = Network::filled(&ways, &mut scratch, servers, supplies);
        Self { costs, ways, servers, base, shrunk: servers.iter().map(|_| None).collect(), trial: Network::default(), scratch }
    }

    /// The routing's own total.
    pub(crate) fn total(&self) -> f64 {
        self.base.total(&self.ways)
    }

    /// What one more unit of demand of each source would cost.
    pub(crate) fn source_prices(&self) -> Vec<f64> {
        self.base.source_prices(&self.ways)
    }

    /// The routing if one server, which must be there, had the capacity given, less than now.
    fn shrink(&mut self, slot: usize, capacity: f64) -> &Shrunk {
        let kept = self.shrunk[slot].take().filter(|shrunk| shrunk.capacity == capacity);
        let shrunk = kept.unwrap_or_else(|| {
            let mut network = self.base.clone();
            network.shrink(&self.ways, &mut self.scratch, slot, capacity);
            let total = network.total(&self.ways);
            Shrunk { capacity, network, total }
        });
        self.shrunk[slot].insert(shrunk)
    }

    fn slot(&self, row: usize) -> Option<usize> {
        self.servers.iter().position(|server| server.row == row)
    }

    /// The total if one server had the capacity given, less than now, and what one more unit of
    /// demand of each source would cost then.
    pub(crate) fn without(&mut self, less: Server) -> (f64, Vec<f64>) {
        let Some(slot) = self.slot(less.row) else { return (self.total(), self.source_prices()) };
        self.shrink(slot, less.capacity);
        match &self.shrunk[slot] {
            Some(shrunk) => (shrunk.total, shrunk.network.source_prices(&self.ways)),
            None => (self.total(), self.source_prices()),
        }
    }

    /// The total if one server had the capacity given, less than now, and another one, there or
    /// not, the capacity given, more than now; `None` as soon as it is clear that it is not below
    /// `limit`.
    pub(crate) fn total_below(&mut self, less: Server, more: Server, limit: f64) -> Option<f64> {
        let mut trial = std::mem::take(&mut self.trial);
        let before = match self.slot(less.row) {
            Some(slot) => {
                let shrunk = self.shrink(slot, less.capacity);
                trial.copy(&shrunk.network);
                shrunk.total
            }
            None => {
                trial.copy(&self.base);
                self.total()
            }
        };
        let spare = self.servers.len();
        let to = self.slot(more.row).unwrap_or(spare);
        if to == spare {
            self.ways.put(spare, &self.costs.row(more.row));
        }
        let is_hopeful = trial.grow_for(&self.ways, &mut self.scratch, to, more.capacity, before - limit);
        let total = is_hopeful.then(|| trial.total(&self.ways));
        self.trial = trial;
        total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::solver::flow::route;

    proptest! {
        #[test]
        fn the_same_as_routing_anew(
            cells in prop::collection::vec(prop_oneof![6 => 0.0..0.1_f64, 2 => (0..4_u8).prop_map(|step| f64::from(step) * 0.02), 1 => Just(f64::INFINITY)], 36),
            supplies in prop::collection::vec(0.1..4.0_f64, 6),
            counts in prop::collection::vec(0..3_u8, 6),
            pair in (0..6_usize, 0..6_usize),
            busy in prop::bool::ANY,
            share in 0.0..1.0_f64,
        ) {
            let costs = Array2::from_shape_vec((6, 6), cells).unwrap();
            let segment = |width, marginal_seconds| Segment { width, marginal_seconds };
            let curve = if busy { vec![segment(0.5, 0.004), segment(0.3, 0.02), segment(0.2, 0.07)] } else { vec![segment(1.0, 0.004)] };
            let servers = |counts: &[u8]| -> Vec<Server> {
                let open = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                open.map(|(row, count)| Server { row, capacity: f64::from(*count) * 2.5 }).collect()
            };
            prop_assume!(pair.0 != pair.1 && counts[pair.0] > 0);
            let before = servers(&counts);
            let mut swaps = Swaps::new(&costs, &supplies, &before, &curve);
            let mut after = counts.clone();
            after[pair.0] -= 1;
            after[pair.1] += 1;
            let server = |row: usize| Server { row, capacity: f64::from(after[row]) * 2.5 };
            let expected = route(&costs, &supplies, &servers(&after), &curve).total();
            for _ in 0..2 {
                let found = swaps.total_below(server(pair.0), server(pair.1), f64::INFINITY).unwrap();
                prop_assert!((found - expected).abs() < 1e-9 * expected.max(1.0), "{found} instead of {expected}");
                // It is given up only where it is not below the limit.
                let limit = expected * (0.5 + share);
                let below = swaps.total_below(server(pair.0), server(pair.1), limit);
                let is_right = below.map_or(expected >= limit - 1e-9 * expected.max(1.0), |below| below == found);
                prop_assert!(is_right, "{below:?} for {limit} instead of {found}");
            }
            let own = route(&costs, &supplies, &before, &curve);
            prop_assert!((swaps.total() - own.total()).abs() < 1e-9 * own.total().max(1.0));
        }
    }
}
