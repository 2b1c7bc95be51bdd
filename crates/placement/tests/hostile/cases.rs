//! A corrupted sample in an otherwise sound matrix, and what it may not do.

use placement::latency::{PairState, PairStats, Quantile, Statistic};
use placement::{
    CostPolicy, Demand, LatencyMatrix, NodeName,
    score::{self, PlacedDependency},
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Three nodes, and one pair of them whose measurement is spoilt.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pairs: [PairStats; 9],
    row: usize,
    column: usize,
    spoilt: PairState,
    policy: CostPolicy,
    weights: [f64; 3],
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

/// What becomes of a good measurement when something goes wrong with it.
fn spoil(good: PairStats, kind: usize, number: usize) -> PairState {
    let number = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.001, 1e9, f64::MIN][number];
    let mut stats = good;
    match kind {
        0 => stats.min = number,
        1 => stats.p50 = number,
        2 => stats.p90 = number,
        3 => stats.p99 = number,
        4 => stats.ewma = number,
        5 => stats.jitter = number,
        6 => stats.loss_ratio = number,
        7 => stats.samples = 0,
        // An age is not bounded from above: a very old measurement that is called known is the
        // caller's word.
        8 => stats.age_seconds = if number > 0.0 { f64::NAN } else { number },
        9 => return PairState::Unknown,
        10 => return PairState::Unreachable,
        _ => return PairState::Stale(good),
    }
    PairState::Known(stats)
}

fn policy() -> impl Strategy<Value = CostPolicy> {
    (0..5_usize, 0.0..8.0_f64, 0.0..3.0_f64, 0.0..0.5_f64).prop_map(|(statistic, jitters, stale_factor, loss_seconds)| {
        CostPolicy {
            statistic: match statistic {
                0 => Statistic::Quantile(Quantile::Min),
                1 => Statistic::Quantile(Quantile::P50),
                2 => Statistic::Quantile(Quantile::P90),
                3 => Statistic::Quantile(Quantile::P99),
                _ => Statistic::MeanPlusJitter { jitters },
            },
            stale_factor,
            loss_seconds,
        }
    })
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let weights = [0.1..9.0_f64, 0.1..9.0_f64, 0.1..9.0_f64];
    (prop::array::uniform9(stats()), 0..3_usize, 0..3_usize, 0..12_usize, 0..6_usize, policy(), weights).prop_map(
        |(pairs, row, column, kind, number, policy, weights)| {
            let spoilt = spoil(pairs[row * 3 + column], kind, number);
            Case { pairs, row, column, spoilt, policy, weights }
        },
    )
}

/// Checks that no node looks better for it: neither a cost, nor a score by demand or by
/// dependencies.
pub(crate) fn improves_nobody(case: &Case) -> Result<(), TestCaseError> {
    let fail = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    let nodes: [NodeName; 3] = ["node1", "node2", "node3"].map(NodeName::from);
    let mut good = LatencyMatrix::new(nodes.to_vec()).map_err(|error| fail(&error))?;
    for (cell, stats) in case.pairs.iter().enumerate() {
        good.set(&nodes[cell / 3], &nodes[cell % 3], PairState::Known(*stats)).map_err(|error| fail(&error))?;
    }
    let mut worse = good.clone();
    worse.set(&nodes[case.row], &nodes[case.column], case.spoilt).map_err(|error| fail(&error))?;

    let (before, after) = (case.policy.costs(&good), case.policy.costs(&worse));
    for (row, from) in nodes.iter().enumerate() {
        for (column, to) in nodes.iter().enumerate() {
            prop_assert!(after.seconds(from, to) >= before.seconds(from, to));
            if (row, column) != (case.row, case.column) {
                prop_assert_eq!(after.seconds(from, to), before.seconds(from, to));
            }
        }
    }
    let demand = Demand::from_concurrency(nodes.iter().cloned().zip(case.weights)).map_err(|error| fail(&error))?;
    let by_demand = |costs| score::for_demand(&nodes, costs, &demand, 0.004);
    let (scores, spoilt) = (by_demand(&before), by_demand(&after));
    // A replica on node `column` would serve what comes from `row`.
    stays_behind(|node| scores[&nodes[node]], |node| spoilt[&nodes[node]], case.column)?;

    // A pod on node `row` would call the one on `column`, and one more.
    if case.row != case.column {
        let placed = [case.column, (case.column + 1) % 3].map(|node| PlacedDependency { node, max_cost: 0.05 });
        let (scores, spoilt) = (score::for_dependencies(&before, &placed), score::for_dependencies(&after, &placed));
        stays_behind(|node| scores[node], |node| spoilt[node], case.row)?;
    }
    Ok(())
}

/// Nobody that was at least as good falls behind the node whose measurement was spoilt, and its own
/// score does not rise, unless all are worth the same.
fn stays_behind(before: impl Fn(usize) -> u8, after: impl Fn(usize) -> u8, touched: usize) -> Result<(), TestCaseError> {
    prop_assert!(after(touched) <= before(touched));
    for other in (0..3).filter(|other| *other != touched) {
        prop_assert!(before(other) < before(touched) || after(other) >= after(touched));
    }
    Ok(())
}
