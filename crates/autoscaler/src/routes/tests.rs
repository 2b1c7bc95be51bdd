use placement::CostMatrix;
use proptest::prelude::*;

use super::*;

const NODES: usize = 5;

fn name(node: usize) -> NodeName {
    NodeName::new(format!("node{node}"))
}

/// Network seconds of all demand along `shares`.
fn seconds(network: &Network, (flows, _): &Shares) -> f64 {
    flows.iter().map(|(source, node, amount)| amount * network.costs.at(*source, *node)).sum()
}

proptest! {
    /// Routing to pods that are where they are needs no plan: it is what the plan comes to.
    #[test]
    fn the_shortest_routing_is_the_plans(
        costs in prop::collection::vec(0.0001..0.05_f64, NODES * NODES),
        counts in prop::collection::vec(0_u32..3, NODES),
        amounts in prop::collection::vec(prop_oneof![1 => Just(0.0), 4 => 0.1..20.0_f64], NODES),
    ) {
        prop_assume!(counts.iter().any(|count| *count > 0) && amounts.iter().any(|amount| *amount > 0.0));
        let costs = CostMatrix::from_row_major((0..NODES).map(name).collect(), costs);
        let network = Network { version: 1, costs, model: CostModel::LocalFirst };
        let serving: Counts = counts.iter().enumerate().map(|(node, count)| (name(node), *count)).filter(|(_, n)| *n > 0).collect();
        let demand: Vec<(NodeName, f64)> = amounts.iter().enumerate().map(|(node, amount)| (name(node), *amount)).collect();
        let servers: Vec<(usize, u32)> = counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        let sent: Vec<(usize, f64)> = amounts.iter().copied().enumerate().filter(|(_, amount)| *amount > 0.0).collect();

        let position = |node: &NodeName| network.nodes().binary_search(node).ok();
        let planned = spread(&RevisionKey::new("default", "hello"), &network, &serving, &demand, 5.0, position).unwrap();
        let ours = shortest(&network, &servers, &sent, 5.0);
        prop_assert!((ours.1 - planned.1).abs() < 1e-6, "{ours:?} {planned:?}");
        prop_assert!((seconds(&network, &ours) - seconds(&network, &planned)).abs() < 1e-6, "{ours:?} {planned:?}");
        for (node, count) in &servers {
            let load: f64 = ours.0.iter().filter(|(_, to, _)| to == node).map(|(.., amount)| amount).sum();
            prop_assert!(load <= f64::from(*count) * ours.1 + 1e-6);
        }
        for (source, amount) in &sent {
            let out: f64 = ours.0.iter().filter(|(from, ..)| from == source).map(|(.., amount)| amount).sum();
            prop_assert!((out - amount).abs() < 1e-6);
        }
    }
}
