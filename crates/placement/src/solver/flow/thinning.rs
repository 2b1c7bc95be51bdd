//! A routing that follows a placement from which replicas are taken.

use super::{Network, Scratch, Server, Ways};
use crate::solver::instance::Instance;

/// A routing in which servers shrink and go.
pub(crate) struct Thinning<'a> {
    ways: Ways<'a>,
    /// The row of the server in each slot, in order.
    rows: Vec<usize>,
    now: Network,
    trial: Network,
    scratch: Scratch,
}

impl<'a> Thinning<'a> {
    /// The best routing for a placement.
    pub(crate) fn new(instance: &'a Instance, placement: &[u32]) -> Self {
        let servers = instance.servers(placement);
        let ways = Ways::new(&instance.costs, &instance.supplies, &servers, 0, &instance.segments);
        let mut scratch = Scratch::default();
        let now = Network::filled(&ways, &mut scratch, &servers, &instance.supplies);
        Self { ways, rows: servers.iter().map(|server| server.row).collect(), now, trial: Network::default(), scratch }
    }

    /// The routing's own total.
    pub(crate) fn total(&self) -> f64 {
        self.now.total(&self.ways)
    }

    /// The total if one server had the capacity given, less than now.
    pub(crate) fn total_without(&mut self, less: Server) -> f64 {
        let Ok(slot) = self.rows.binary_search(&less.row) else { return self.total() };
        self.trial.copy(&self.now);
        self.trial.shrink(&self.ways, &mut self.scratch, slot, less.capacity);
        self.trial.total(&self.ways)
    }

    /// Gives one server the capacity given, less than now.
    pub(crate) fn remove(&mut self, less: Server) {
        if let Ok(slot) = self.rows.binary_search(&less.row) {
            self.now.shrink(&self.ways, &mut self.scratch, slot, less.capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Segment;

    proptest! {
        #[test]
        fn the_same_as_routing_anew(
            cells in prop::collection::vec(prop_oneof![8 => 0.0..0.1_f64, 1 => Just(f64::INFINITY)], 36),
            supplies in prop::collection::vec(0.1..4.0_f64, 6),
            mut placement in prop::collection::vec(0..4_u32, 6),
            order in prop::collection::vec(0..6_usize, 8),
            busy in prop::bool::ANY,
        ) {
            let segment = |width, marginal_seconds| Segment { width, marginal_seconds };
            let segments = if busy { vec![segment(0.5, 0.004), segment(0.5, 0.07)] } else { vec![segment(1.0, 0.004)] };
            let instance = Instance {
                costs: Array2::from_shape_vec((6, 6), cells).unwrap(),
                supplies,
                floors: vec![0; 6],
                limits: vec![4; 6],
                running: vec![0; 6],
                start_cost: 0.0,
                rank_costs: vec![0.0; 6],
                replica_capacity: 2.5,
                segments,
                replicas: 1,
            };
            let mut thinning = Thinning::new(&instance, &placement);
            for node in order.into_iter().chain(0..6) {
                if placement[node] == 0 {
                    continue;
                }
                placement[node] -= 1;
                let expected = instance.total(&placement);
                let tried = thinning.total_without(instance.server(node, &placement));
                prop_assert!((tried - expected).abs() < 1e-9 * expected.max(1.0), "{tried} instead of {expected}");
                thinning.remove(instance.server(node, &placement));
                prop_assert!((thinning.total() - expected).abs() < 1e-9 * expected.max(1.0));
            }
        }
    }
}
