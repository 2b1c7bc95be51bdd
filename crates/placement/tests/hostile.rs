//! Bad measurements never make a node look better, and weights always add up.
#![allow(clippy::unwrap_used)]

#[path = "hostile/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use placement::{Demand, NodeCapacity, NodeName, Problem, WeightMatrix};
use proptest::prelude::*;

fn names(count: usize) -> Vec<NodeName> {
    (1..=count).map(|number| NodeName::new(format!("node{number}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_spoilt_sample_improves_no_node(case in cases::cases()) {
        cases::improves_nobody(&case)?;
    }
}

proptest! {
    #[test]
    fn every_row_sums_to_a_hundred(
        cells in prop::collection::vec(prop_oneof![5 => 0.0..0.2_f64, 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)], 16),
        demands in prop::collection::vec(0.0..9.0_f64, 4),
        limits in prop::collection::vec(0..3_u32, 4),
        replicas in 0..6_u32,
        serving in prop_oneof![Just(0.0), 0.0..0.1_f64, Just(f64::NAN)],
    ) {
        let nodes = names(4);
        let costs = placement::CostMatrix::new(nodes.clone(), ndarray::Array2::from_shape_vec((4, 4), cells).unwrap());
        let plan = Problem::new("any", costs.clone(), replicas, 4.0)
            .with_capacities(nodes.iter().zip(&limits).map(|(node, limit)| NodeCapacity::new(node.clone(), *limit)))
            .with_demand(Demand::from_concurrency(nodes.iter().cloned().zip(demands)).unwrap())
            .solve()
            .unwrap();
        let with_replicas: BTreeSet<NodeName> = plan.replicas.keys().cloned().collect();
        let assigned = WeightMatrix::assigned(&nodes, &plan, &costs);
        let inverse = WeightMatrix::inverse_response_time(&nodes, &with_replicas, &costs, serving);
        for matrix in [&assigned, &inverse] {
            for node in &nodes {
                prop_assert_eq!(matrix.row(node).unwrap().iter().sum::<u32>(), 100);
                for (target, _) in matrix.targets(node) {
                    prop_assert!(with_replicas.contains(target) || with_replicas.is_empty());
                }
            }
        }
        if with_replicas.is_empty() {
            prop_assert_eq!(assigned, WeightMatrix::identity(&nodes));
        }
    }
}
