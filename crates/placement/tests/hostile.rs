//! Bad measurements never make a node look better, and weights always add up.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use placement::{
    CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, PairState, PairStats, Problem, Quantile, Statistic, WeightMatrix,
    score,
};
use proptest::prelude::*;

fn names(count: usize) -> Vec<NodeName> {
    (1..=count).map(|number| NodeName::new(format!("node{number}"))).collect()
}

fn stats() -> impl Strategy<Value = PairStats> {
    (0.0..0.2_f64, 0.0..0.1_f64, 0.0..0.05_f64, 0.0..0.3_f64).prop_map(|(min, spread, jitter, loss_ratio)| PairStats {
        min,
        p50: min + spread / 4.0,
        p90: min + spread / 2.0,
        p99: min + spread,
        ewma: min + spread / 3.0,
        jitter,
        loss_ratio,
        age_seconds: 1.0,
        samples: 20,
    })
}

/// A state as it was, and the same after something went wrong with the measurement.
fn spoilt(good: PairStats) -> impl Strategy<Value = PairState> {
    let number =
        prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.001), Just(1e9), Just(f64::MIN)];
    let fields = (0..9_u8, number).prop_map(move |(field, number)| {
        let mut stats = good;
        match field {
            0 => stats.min = number,
            1 => stats.p50 = number,
            2 => stats.p90 = number,
            3 => stats.p99 = number,
            4 => stats.ewma = number,
            5 => stats.jitter = number,
            6 => stats.loss_ratio = number,
            7 => stats.samples = 0,
            _ => stats.age_seconds = number,
        }
        PairState::Known(stats)
    });
    prop_oneof![4 => fields, 1 => Just(PairState::Unknown), 1 => Just(PairState::Unreachable), 1 => Just(PairState::Stale(good))]
        // An age is not bounded from above: a very old measurement that is called known is the caller's word.
        .prop_filter("still credible", move |state| !matches!(state, PairState::Known(stats) if stats.is_credible()))
}

fn policy() -> impl Strategy<Value = CostPolicy> {
    let quantile = prop_oneof![Just(Quantile::Min), Just(Quantile::P50), Just(Quantile::P90), Just(Quantile::P99)];
    let statistic = prop_oneof![
        quantile.prop_map(Statistic::Quantile),
        (0.0..8.0_f64).prop_map(|jitters| Statistic::MeanPlusJitter { jitters })
    ];
    (statistic, 0.0..3.0_f64, 0.0..0.5_f64).prop_map(|(statistic, stale_factor, loss_seconds)| CostPolicy {
        statistic,
        stale_factor,
        loss_seconds,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_spoilt_sample_improves_no_node(
        (pairs, row, column, bad) in prop::collection::vec(stats(), 9).prop_flat_map(|pairs| {
            (0..3_usize, 0..3_usize).prop_flat_map(move |(row, column)| {
                (Just(pairs.clone()), Just(row), Just(column), spoilt(pairs[row * 3 + column]))
            })
        }),
        policy in policy(),
        weights in prop::collection::vec(0.1..9.0_f64, 3),
    ) {
        let nodes = names(3);
        let mut good = LatencyMatrix::new(nodes.clone()).unwrap();
        for (cell, stats) in pairs.iter().enumerate() {
            good.set(&nodes[cell / 3], &nodes[cell % 3], PairState::Known(*stats)).unwrap();
        }
        let mut worse = good.clone();
        worse.set(&nodes[row], &nodes[column], bad).unwrap();

        let (before, after) = (good.costs(&policy), worse.costs(&policy));
        for from in &nodes {
            for to in &nodes {
                prop_assert!(after.seconds(from, to) >= before.seconds(from, to));
                if (from, to) != (&nodes[row], &nodes[column]) {
                    prop_assert_eq!(after.seconds(from, to), before.seconds(from, to));
                }
            }
        }
        let demand = Demand::from_concurrency(nodes.iter().cloned().zip(weights)).unwrap();
        let (before, after) = (score::for_demand(&nodes, &before, &demand, 0.004), score::for_demand(&nodes, &after, &demand, 0.004));
        let touched = &nodes[column];
        prop_assert!(after[touched] <= before[touched]);
        for other in nodes.iter().filter(|node| *node != touched) {
            // Nobody that was at least as good falls behind the node whose measurement was spoilt.
            prop_assert!(before[other] < before[touched] || after[other] >= after[touched]);
        }
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
