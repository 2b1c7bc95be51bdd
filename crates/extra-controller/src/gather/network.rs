//! What a request between two nodes costs, from the measurements.

use std::time::Duration;

use autoscaler::Network;
use latency_matrix::{Freshness, NodeName, Rtt};
use placement::{CostMatrix, CostPolicy};

use crate::latency::LatencyBook;

/// A cost that changed by less than this share, and by less than [`SAME_SECONDS`], is the same: noise
/// of the network calls for no new plan.
const SAME_SHARE: f64 = 0.05;
/// See [`SAME_SHARE`].
const SAME_SECONDS: f64 = 0.000_05;

/// The network over `nodes` (in name order) as `book` knows it at `now`; `None` where nothing changed
/// materially since `before`.
///
/// A pair that does not answer probes costs as much as one of which nothing is known: Kubernetes calls
/// the node ready, and a firewall that drops probes must not empty it.
pub(crate) fn build_network(before: &Network, nodes: Vec<NodeName>, book: &LatencyBook, now: Duration) -> Option<Network> {
    let matrix = book.matrix(nodes.clone(), now.as_secs_f64(), Freshness::default()).ok()?;
    let measured = CostPolicy::default().costs(&matrix);
    let size = nodes.len();
    let unknown = Rtt::ABSURD.seconds();
    let known = |from, to| Some(measured.at(from, to)).filter(|seconds: &f64| seconds.is_finite() && *seconds < unknown);
    let is_same_list = before.nodes() == nodes.as_slice();
    let mut is_changed = !is_same_list;
    let mut seconds = Vec::with_capacity(size * size);
    for from in 0..size {
        for to in 0..size {
            // A round trip is the same loop from both ends.
            let cost = known(from, to).or_else(|| known(to, from)).unwrap_or(unknown);
            let held = if is_same_list { before.costs.at(from, to) } else { cost };
            let is_same = (cost - held).abs() <= SAME_SECONDS.max(held * SAME_SHARE);
            is_changed |= !is_same;
            seconds.push(if is_same { held } else { cost });
        }
    }
    is_changed.then(|| Network {
        version: before.version + 1,
        costs: CostMatrix::from_row_major(nodes, seconds),
        model: before.model,
    })
}

#[cfg(test)]
mod tests {
    use latency_matrix::{PairState, PairStats};
    use placement::CostModel;

    use super::*;
    use crate::latency::Measurement;

    fn empty() -> Network {
        Network { version: 0, costs: CostMatrix::from_row_major(Vec::new(), Vec::new()), model: CostModel::LocalFirst }
    }

    fn nodes() -> Vec<NodeName> {
        ["a", "b", "c"].map(NodeName::from).to_vec()
    }

    fn book(pairs: &[(&str, &str, PairState)]) -> LatencyBook {
        let mut book = LatencyBook::default();
        let measured = pairs.iter().map(|(from, to, state)| Measurement { from: (*from).into(), to: (*to).into(), state: *state });
        book.absorb(measured.collect(), 10.0);
        book
    }

    fn known(seconds: f64) -> PairState {
        PairState::Known(PairStats::constant(seconds))
    }

    #[test]
    fn an_unmeasured_direction_takes_the_reverse_and_a_cut_pair_is_unknown() {
        let book = book(&[("a", "b", known(0.004)), ("a", "c", PairState::Unreachable), ("c", "a", PairState::Unreachable)]);
        let network = build_network(&empty(), nodes(), &book, Duration::from_secs(10)).unwrap();
        let seconds = |from, to| network.costs.at(from, to);
        assert_eq!((seconds(0, 1), seconds(1, 0), seconds(0, 2), seconds(1, 2)), (0.004, 0.004, 10.0, 10.0));
    }

    #[test]
    fn noise_is_no_change() {
        let at = Duration::from_secs(10);
        let first = build_network(&empty(), nodes(), &book(&[("a", "b", known(0.050))]), at).unwrap();
        assert_eq!(build_network(&first, nodes(), &book(&[("a", "b", known(0.052))]), at), None);
        let second = build_network(&first, nodes(), &book(&[("a", "b", known(0.060))]), at).unwrap();
        assert_eq!((second.version, second.costs.at(0, 1)), (2, 0.060));
    }
}
