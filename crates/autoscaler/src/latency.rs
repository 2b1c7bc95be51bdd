//! From what is known of the latency between nodes to what a request between them costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use latency_matrix::{LatencyMatrix, NodeName, PairState, Rtt};
use placement::completion::Completion;
use placement::{CostMatrix, CostModel, CostPolicy};

use crate::picture::Network;
use crate::room::NodeRoom;

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The network that decisions are made on, made anew only when latency or zones change.
///
/// ```
/// use std::sync::Arc;
///
/// use autoscaler::latency::Networks;
/// use latency_matrix::{LatencyMatrix, PairState, PairStats};
/// use placement::{CostModel, CostPolicy};
///
/// let mut matrix = LatencyMatrix::new(vec!["a".into(), "b".into()])?;
/// matrix.set(&"a".into(), &"b".into(), PairState::Known(PairStats::constant(0.020)))?;
/// let matrix = Arc::new(matrix);
/// let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
/// let network = networks.network(&matrix, &[]);
/// // Only one direction was measured: a round trip is the same loop.
/// assert_eq!(network.costs.seconds(&"b".into(), &"a".into()), 0.020);
/// assert!(Arc::ptr_eq(&network, &networks.network(&matrix, &[])));
/// # Ok::<(), latency_matrix::MatrixError>(())
/// ```
#[derive(Debug)]
pub struct Networks {
    model: CostModel,
    policy: CostPolicy,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    matrix: Arc<LatencyMatrix>,
    sites: Vec<Option<u32>>,
    network: Arc<Network>,
}

impl Networks {
    /// Costs by `policy`, for gateways that choose pods by `model`.
    #[must_use]
    pub fn new(model: CostModel, policy: CostPolicy) -> Self {
        Self { model, policy, made: None }
    }

    /// The network over the nodes of `matrix`, whose zones are labels in `room`. The same one as
    /// before where `matrix` is the same object, or differs from it by no more than noise.
    pub fn network(&mut self, matrix: &Arc<LatencyMatrix>, room: &[NodeRoom]) -> Arc<Network> {
        let sites = sites(matrix.nodes(), room);
        if let Some(made) = self.made.as_ref().filter(|made| Arc::ptr_eq(&made.matrix, matrix) && made.sites == sites) {
            return made.network.clone();
        }
        let before = self.made.take().map(|made| made.network);
        let steadied = steady(&costs(matrix, &self.policy, &sites), before.as_deref());
        let network = match (before, steadied) {
            (Some(before), None) => before,
            (before, Some(costs)) => {
                let version = before.map_or(0, |before| before.version) + 1;
                Arc::new(Network { version, costs, model: self.model })
            }
            (None, None) => Arc::new(Network { version: 1, costs: CostMatrix::from_row_major(Vec::new(), Vec::new()), model: self.model }),
        };
        self.made = Some(Made { matrix: matrix.clone(), sites, network: network.clone() });
        network
    }
}

/// A cost that changed by less than this share, and by less than [`SAME_SECONDS`], is the same: noise
/// of the network calls for no new plan.
const SAME_SHARE: f64 = 0.05;
/// See [`SAME_SHARE`].
const SAME_SECONDS: f64 = 0.000_05;

/// The costs to decide by; `None` where none differs materially from that in `before`.
///
/// A pair that does not answer probes costs as much as one of which nothing is known. Kubernetes calls
/// the node ready, and a firewall that drops probes must not empty it.
fn steady(costs: &CostMatrix, before: Option<&Network>) -> Option<CostMatrix> {
    let (nodes, unknown) = (costs.nodes(), Rtt::ABSURD.seconds());
    let before = before.filter(|before| before.nodes() == nodes);
    let mut is_changed = before.is_none();
    let mut seconds = Vec::with_capacity(nodes.len() * nodes.len());
    for from in 0..nodes.len() {
        for to in 0..nodes.len() {
            let cost = costs.at(from, to).min(unknown);
            let held = before.map_or(cost, |before| before.costs.at(from, to));
            let is_same = (cost - held).abs() <= SAME_SECONDS.max(held * SAME_SHARE);
            is_changed |= !is_same;
            seconds.push(if is_same { held } else { cost });
        }
    }
    is_changed.then(|| CostMatrix::from_row_major(nodes.to_vec(), seconds))
}

/// The zone of each node as a number; `None` where it has no such label.
#[must_use]
pub fn sites(nodes: &[NodeName], room: &[NodeRoom]) -> Vec<Option<u32>> {
    let zones: BTreeMap<&NodeName, &str> =
        room.iter().filter_map(|room| Some((&room.node, room.labels.get(ZONE_LABEL)?.as_str()))).collect();
    let mut numbers = BTreeMap::new();
    let number = |node| {
        let zone = zones.get(node)?;
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        Some(*numbers.entry(*zone).or_insert(next))
    };
    nodes.iter().map(number).collect()
}

/// What a request between two nodes costs by `policy`.
///
/// A pair that nobody reported takes the opposite direction, since a round trip is the same loop.
/// Where that is not known either, it is estimated from the other pairs and `sites`, and costs the
/// more the less the estimate is trusted. A node that answers none of those that report about it is
/// not known rather than unreachable: what keeps probes from all of them, such as a firewall, need
/// not keep requests from it.
#[must_use]
pub fn costs(matrix: &LatencyMatrix, policy: &CostPolicy, sites: &[Option<u32>]) -> CostMatrix {
    let nodes = matrix.nodes();
    let answers: Vec<bool> = matrix
        .pairs()
        .columns()
        .into_iter()
        .enumerate()
        .map(|(to, column)| column.iter().enumerate().any(|(from, state)| from != to && state.stats().is_some()))
        .collect();
    let seen = |from: usize, to: usize| match matrix.pairs()[(from, to)] {
        PairState::Unreachable if !answers[to] => PairState::Unknown,
        state => state,
    };
    let mut filled = matrix.clone();
    let mut has_unknown = false;
    for from in 0..nodes.len() {
        for to in (0..nodes.len()).filter(|to| *to != from) {
            let reverse = || match seen(to, from) {
                state @ (PairState::Known(_) | PairState::Stale(_)) => state,
                PairState::Unknown | PairState::Unreachable => PairState::Unknown,
            };
            let state = match seen(from, to) {
                PairState::Unknown => reverse(),
                state => state,
            };
            has_unknown |= state == PairState::Unknown;
            filled.set_at(from, to, state);
        }
    }
    if has_unknown { Completion::of(&filled, policy, sites).costs(&filled, policy) } else { policy.costs(&filled) }
}

#[cfg(test)]
mod tests {
    use latency_matrix::PairStats;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn names(count: usize) -> Vec<NodeName> {
        (1..=count).map(|number| NodeName::new(format!("node{number:02}"))).collect()
    }

    fn known(milliseconds: f64) -> PairState {
        PairState::Known(PairStats::constant(milliseconds / 1000.0))
    }

    fn matrix(count: usize, pairs: &[(usize, usize, PairState)]) -> LatencyMatrix {
        let mut matrix = LatencyMatrix::new(names(count)).unwrap();
        for (from, to, state) in pairs {
            matrix.set_at(*from, *to, *state);
        }
        matrix
    }

    fn seconds(pairs: &[(usize, usize, PairState)], from: usize, to: usize) -> f64 {
        let nodes = names(3);
        costs(&matrix(3, pairs), &CostPolicy::default(), &[None; 3]).seconds(&nodes[from], &nodes[to])
    }

    #[test]
    fn noise_makes_no_new_network_and_a_cut_pair_costs_as_much_as_an_unknown_one() {
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let mut network = |milliseconds| {
            let pairs = [(0, 1, known(milliseconds)), (0, 2, PairState::Unreachable), (1, 2, known(4.0))];
            networks.network(&Arc::new(matrix(3, &pairs)), &[])
        };
        let first = network(50.0);
        assert_eq!(first.costs.at(0, 2), 10.0);
        assert!(Arc::ptr_eq(&first, &network(52.0)));
        let second = network(60.0);
        assert_eq!((second.version, second.costs.at(0, 1)), (first.version + 1, 0.060));
    }

    #[test]
    fn the_opposite_direction_stands_in_for_a_pair_that_is_not_probed() {
        let pairs = [(0, 1, known(20.0)), (1, 2, PairState::Unreachable), (0, 2, known(5.0))];
        assert_eq!(seconds(&pairs, 1, 0), 0.020);
        // That one cannot reach the other says nothing about the way back.
        assert!(seconds(&pairs, 1, 2).is_infinite());
        assert!(seconds(&pairs, 2, 1).is_finite());
    }

    #[test]
    fn a_node_that_nobody_reaches_is_not_known_and_one_that_some_reach_is_cut_off_from_the_rest() {
        let firewall = [(0, 2, PairState::Unreachable), (1, 2, PairState::Unreachable), (0, 1, known(5.0))];
        assert_eq!(seconds(&firewall, 0, 2), 10.0);
        let cut = [(0, 2, PairState::Unreachable), (1, 2, known(4.0)), (0, 1, known(5.0))];
        assert!(seconds(&cut, 0, 2).is_infinite());
    }

    #[test]
    fn beyond_the_probed_pairs_the_nearest_is_still_near() {
        // 66 nodes in two zones; the source probes one node of either.
        let count = 66;
        let zone = |node: usize| u32::from(node >= count / 2);
        let rtt = |one: usize, other: usize| known(if zone(one) == zone(other) { 0.5 } else { 40.0 });
        let mut pairs = vec![(0, 1, rtt(0, 1)), (0, count - 1, rtt(0, count - 1))];
        // The others probe a few, as they do above 64 nodes.
        for from in 1..count {
            pairs.extend([1, 7, 29, 33, 41].map(|step| (from, (from + step) % count, rtt(from, (from + step) % count))));
        }
        let sites: Vec<Option<u32>> = (0..count).map(|node| Some(zone(node))).collect();
        let (nodes, costs) = (names(count), costs(&matrix(count, &pairs), &CostPolicy::default(), &sites));
        for to in 2..count {
            let cost = costs.seconds(&nodes[0], &nodes[to]);
            assert!(if zone(to) == 0 { cost < 0.005 } else { (0.030..0.1).contains(&cost) }, "{to}: {cost}");
        }
    }

    #[test]
    fn zones_are_sites() {
        let room = |name: &str, zone: Option<&str>| {
            let labels = zone.map(|zone| json!({ZONE_LABEL: zone}));
            NodeRoom::read(&serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap())
        };
        let room = [room("node01", Some("b")), room("node02", None), room("node03", Some("a")), room("node05", Some("b"))];
        assert_eq!(sites(&names(5), &room), [Some(0), None, Some(1), None, Some(0)]);
    }

    #[test]
    fn a_network_is_made_anew_only_when_its_costs_change() {
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let first = networks.network(&Arc::new(matrix(3, &[(0, 1, known(20.0))])), &[]);
        // Another matrix of the same costs: only an age differs.
        let older = PairState::Known(PairStats { age_seconds: 9.0, ..PairStats::constant(0.020) });
        assert!(Arc::ptr_eq(&first, &networks.network(&Arc::new(matrix(3, &[(0, 1, older)])), &[])));
        let second = networks.network(&Arc::new(matrix(3, &[(0, 1, known(21.0))])), &[]);
        assert_eq!((first.version, second.version), (1, 2));
    }

    proptest! {
        #[test]
        fn what_is_measured_costs_what_it_measures(
            states in prop::collection::vec(
                prop_oneof![(1..90_u32).prop_map(|rtt| known(f64::from(rtt))), Just(PairState::Unknown), Just(PairState::Unreachable)], 16)
        ) {
            let pairs: Vec<_> = states.iter().enumerate().map(|(at, state)| (at / 4, at % 4, *state)).collect();
            let (nodes, matrix) = (names(4), matrix(4, &pairs));
            let costs = costs(&matrix, &CostPolicy::default(), &[None; 4]);
            for (from, to, state) in pairs.into_iter().filter(|(from, to, _)| from != to) {
                let cost = costs.seconds(&nodes[from], &nodes[to]);
                match state {
                    PairState::Known(stats) => prop_assert_eq!(cost, stats.p50),
                    PairState::Unreachable => prop_assert!(cost.is_infinite() || cost <= 10.0),
                    _ => prop_assert!(cost <= 10.0),
                }
            }
        }
    }
}
