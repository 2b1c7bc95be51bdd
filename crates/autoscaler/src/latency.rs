//! Costs of requests between nodes, from the measured latency.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use latency_matrix::{LatencyMatrix, NodeName, PairState};
use placement::latency::Rtt;
use placement::latency::completion::Completion;
use placement::problem::CostModel;
use placement::{CostMatrix, CostPolicy};

use crate::picture::Network;
use crate::room::NodeRoom;

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Builds the [`Network`] for decisions, again only when latency or zones change.
///
/// - A pair that is not known takes the opposite direction, since a round trip is the same loop.
///   Where that is not known either, it is estimated from the other pairs and the zones, and costs
///   the more the less the estimate is trusted.
/// - A pair that does not answer probes takes the opposite direction, too, where that is known at
///   present. Otherwise it costs [`Rtt::ABSURD`], which is more than any pair that answers and less
///   than what excludes a node: a firewall against probes must not empty it.
/// - A cost that hardly differs from the one before stays: noise calls for no new plan.
///
/// ```
/// use std::sync::Arc;
///
/// use autoscaler::latency::Networks;
/// use latency_matrix::{LatencyMatrix, PairState, PairStats};
/// use placement::problem::CostModel;
/// use placement::CostPolicy;
///
/// let mut matrix = LatencyMatrix::new(vec!["a".into(), "b".into()])?;
/// matrix.set(&"a".into(), &"b".into(), PairState::Known(PairStats::constant(0.020)))?;
/// let matrix = Arc::new(matrix);
/// let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
/// let network = networks.network(&matrix, &[], 100.0);
/// // Only one direction was measured: a round trip is the same loop.
/// assert_eq!(network.costs.seconds(&"b".into(), &"a".into()), 0.020);
/// assert!(Arc::ptr_eq(&network, &networks.network(&matrix, &[], 101.0)));
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
    /// The estimates for pairs that are not known, and when they were made.
    estimates: Option<(CostMatrix, f64)>,
    network: Arc<Network>,
}

/// How long estimates are reused while nodes and zones stay the same. Estimating takes seconds for
/// a thousand nodes, and medians change with every reading.
const ESTIMATES_HOLD_SECONDS: f64 = 60.0;
/// A cost that changed by less than this share of it, or by less than [`SAME_SECONDS`], is the
/// same.
const SAME_SHARE: f64 = 0.05;
/// See [`SAME_SHARE`].
const SAME_SECONDS: f64 = 0.000_05;

impl Networks {
    /// Costs by `policy`, for gateways that choose pods by `model`.
    #[must_use]
    pub fn new(model: CostModel, policy: CostPolicy) -> Self {
        Self { model, policy, made: None }
    }

    /// The network over the nodes of `matrix`, whose zones are labels in `room`, at `now_seconds`
    /// of any clock. The same one as before where `matrix` is the same object or has the same
    /// costs.
    pub fn network(&mut self, matrix: &Arc<LatencyMatrix>, room: &[NodeRoom], now_seconds: f64) -> Arc<Network> {
        let sites = sites(matrix.nodes(), room);
        if let Some(made) = self.made.as_ref().filter(|made| Arc::ptr_eq(&made.matrix, matrix) && made.sites == sites) {
            return made.network.clone();
        }
        let filled = filled(matrix);
        let made = self.made.take();
        let held = made.as_ref().filter(|made| made.sites == sites && made.matrix.nodes() == matrix.nodes());
        let held = held.and_then(|made| made.estimates.clone());
        let held = held.filter(|(_, made_at)| now_seconds - made_at < ESTIMATES_HOLD_SECONDS);
        let estimates = has_unknown(&filled).then(|| {
            held.unwrap_or_else(|| (Completion::of(&filled, &self.policy, &sites).costs(&filled, &self.policy), now_seconds))
        });
        let before = made.map(|made| made.network);
        let estimates_only = estimates.as_ref().map(|(estimates, _)| estimates);
        let costs = costs(&filled, &self.policy, estimates_only, before.as_ref().map(|before| &before.costs));
        let network = match before {
            Some(network) if network.costs == costs => network,
            before => Arc::new(Network { version: before.map_or(0, |before| before.version) + 1, costs, model: self.model }),
        };
        self.made = Some(Made { matrix: matrix.clone(), sites, estimates, network: network.clone() });
        network
    }
}

/// The zone of each node as a number; `None` where it has no such label.
fn sites(nodes: &[NodeName], room: &[NodeRoom]) -> Vec<Option<u32>> {
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

/// The measured states; a pair without a measurement takes the opposite direction.
fn filled(matrix: &LatencyMatrix) -> Cow<'_, LatencyMatrix> {
    let is_open = |state: &PairState| matches!(state, PairState::Unknown | PairState::Unreachable);
    if !matrix.pairs().iter().any(is_open) {
        return Cow::Borrowed(matrix);
    }
    let mut filled = matrix.clone();
    for ((from, to), state) in matrix.pairs().indexed_iter().filter(|(_, state)| is_open(state)) {
        let reverse = matrix.pairs()[(to, from)];
        // A stale measurement of the opposite direction says nothing about a pair that does not
        // answer.
        let is_better = match state {
            PairState::Unreachable => matches!(reverse, PairState::Known(_)),
            _ => reverse != PairState::Unknown,
        };
        if is_better {
            filled.set_at(from, to, reverse);
        }
    }
    Cow::Owned(filled)
}

fn has_unknown(matrix: &LatencyMatrix) -> bool {
    matrix.pairs().iter().any(|state| *state == PairState::Unknown)
}

/// What a request between two nodes costs by `policy`: what `estimates` says for pairs that are not
/// known, and what it cost before where that is hardly different.
fn costs(matrix: &LatencyMatrix, policy: &CostPolicy, estimates: Option<&CostMatrix>, before: Option<&CostMatrix>) -> CostMatrix {
    let nodes = matrix.nodes();
    // Matrices over the same nodes have them at the same positions.
    let is_over = |costs: &&CostMatrix| costs.nodes() == nodes;
    let (before, estimates) = (before.filter(is_over), estimates.filter(is_over));
    let mut seconds = matrix.pairs().map(|state| policy.seconds(state).min(Rtt::ABSURD.seconds()));
    for ((from, to), state) in matrix.pairs().indexed_iter() {
        let cost = &mut seconds[(from, to)];
        if let (PairState::Unknown, Some(estimates)) = (state, estimates) {
            *cost = estimates.at(from, to);
        }
        if let Some(held) = before.map(|before| before.at(from, to)) {
            let is_same = (*cost - held).abs() <= SAME_SECONDS.max(held * SAME_SHARE);
            *cost = if is_same { held } else { *cost };
        }
    }
    CostMatrix::new(nodes.to_vec(), seconds)
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

    fn made(matrix: LatencyMatrix, room: &[NodeRoom]) -> CostMatrix {
        Networks::new(CostModel::LocalFirst, CostPolicy::default()).network(&Arc::new(matrix), room, 0.0).costs.clone()
    }

    fn seconds(pairs: &[(usize, usize, PairState)], from: usize, to: usize) -> f64 {
        let nodes = names(3);
        made(matrix(3, pairs), &[]).seconds(&nodes[from], &nodes[to])
    }

    fn room(name: &str, zone: Option<&str>) -> NodeRoom {
        let labels = zone.map(|zone| json!({ZONE_LABEL: zone}));
        NodeRoom::read(&serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap())
    }

    #[test]
    fn the_opposite_direction_stands_in_for_a_pair_that_is_not_probed() {
        assert_eq!(seconds(&[(0, 1, known(20.0)), (0, 2, known(5.0))], 1, 0), 0.020);
        let stale = PairState::Stale(PairStats::constant(0.020));
        assert_eq!(seconds(&[(0, 1, stale), (0, 2, known(5.0))], 1, 0), 0.030);
    }

    #[test]
    fn a_pair_that_does_not_answer_costs_the_most_and_excludes_nothing() {
        let others = [(0, 1, known(5.0)), (1, 2, known(4.0))];
        let with = |more: &[(usize, usize, PairState)]| seconds(&[&others, more].concat(), 0, 2);
        assert_eq!(with(&[(0, 2, PairState::Unreachable), (2, 0, PairState::Unreachable)]), 10.0);
        assert_eq!(with(&[(0, 2, PairState::Unreachable)]), 10.0);
        // Only one end probes the other: the way back is not taken for near by an estimate.
        assert_eq!(with(&[(2, 0, PairState::Unreachable)]), 10.0);
        // The opposite direction has been measured a moment ago, and is the same loop.
        assert_eq!(with(&[(0, 2, PairState::Unreachable), (2, 0, known(7.0))]), 0.007);
        // When that was is not known: it may be the same cut.
        assert_eq!(with(&[(0, 2, PairState::Unreachable), (2, 0, PairState::Stale(PairStats::constant(0.007)))]), 10.0);
    }

    #[test]
    fn noise_is_no_change() {
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let nodes = names(2);
        let mut at = |rtt| {
            let network = networks.network(&Arc::new(matrix(2, &[(0, 1, known(rtt))])), &[], 0.0);
            (network.version, network.costs.seconds(&nodes[0], &nodes[1]))
        };
        assert_eq!([at(50.0), at(52.0), at(48.0), at(60.0)], [(1, 0.050), (1, 0.050), (1, 0.050), (2, 0.060)]);
        // Nor does it creep.
        assert_eq!([at(62.0), at(64.0)], [(2, 0.060), (3, 0.064)]);
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
        let nodes = names(count);
        let room: Vec<NodeRoom> =
            (0..count).map(|node| room(nodes[node].as_str(), Some(["a", "b"][zone(node) as usize]))).collect();
        let costs = made(matrix(count, &pairs), &room);
        for to in 2..count {
            let cost = costs.seconds(&nodes[0], &nodes[to]);
            assert!(if zone(to) == 0 { cost < 0.005 } else { (0.030..0.1).contains(&cost) }, "{to}: {cost}");
        }
    }

    #[test]
    fn zones_are_sites() {
        let room = [room("node01", Some("b")), room("node02", None), room("node03", Some("a")), room("node05", Some("b"))];
        assert_eq!(sites(&names(5), &room), [Some(0), None, Some(1), None, Some(0)]);
    }

    #[test]
    fn a_network_is_made_anew_only_when_its_costs_change() {
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let mut network = |state, now| networks.network(&Arc::new(matrix(3, &[(0, 1, state)])), &[], now);
        let first = network(known(20.0), 0.0);
        // Another matrix of the same costs: only an age differs.
        let older = PairState::Known(PairStats { age_seconds: 9.0, ..PairStats::constant(0.020) });
        assert!(Arc::ptr_eq(&first, &network(older, 5.0)));
        assert_eq!((first.version, network(known(22.0), 10.0).version), (1, 2));
    }

    #[test]
    fn estimates_hold_for_a_minute_and_measurements_are_taken_at_once() {
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let nodes = names(4);
        let mut at = |rtt: f64, count: usize, now: f64| {
            let pairs = [(0, 1, known(rtt)), (1, 2, known(rtt))];
            let costs = networks.network(&Arc::new(matrix(count, &pairs)), &[], now).costs.clone();
            (costs.seconds(&nodes[0], &nodes[1]), costs.seconds(&nodes[0], &nodes[2]))
        };
        let (_, estimate) = at(20.0, 3, 0.0);
        assert!(estimate < 10.0);
        assert_eq!(at(30.0, 3, 59.0), (0.030, estimate));
        let (_, later) = at(30.0, 3, 61.0);
        assert!(later > estimate);
        // Another node changes them at once.
        assert!(at(40.0, 4, 62.0).1 > later);
    }

    proptest! {
        #[test]
        fn what_is_measured_costs_what_it_measures(
            states in prop::collection::vec(
                prop_oneof![(1..90_u32).prop_map(|rtt| known(f64::from(rtt))), Just(PairState::Unknown), Just(PairState::Unreachable)], 16)
        ) {
            let pairs: Vec<_> = states.iter().enumerate().map(|(at, state)| (at / 4, at % 4, *state)).collect();
            let (nodes, costs) = (names(4), made(matrix(4, &pairs), &[]));
            for (from, to, state) in pairs.into_iter().filter(|(from, to, _)| from != to) {
                let cost = costs.seconds(&nodes[from], &nodes[to]);
                match state {
                    PairState::Known(stats) => prop_assert_eq!(cost, stats.p50),
                    _ => prop_assert!(cost <= 10.0),
                }
            }
        }
    }
}
