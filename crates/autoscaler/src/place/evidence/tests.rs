use std::collections::BTreeMap;

use placement::plan::{MoveHistory, Stability};
use placement::{CostMatrix, Demand, NodeCapacity, Problem};
use proptest::prelude::*;

use super::*;

const NODES: usize = 6;
const RULES: Stability = Stability { gain_seconds: 0.0005, gain_ratio: 0.2, cooldown_seconds: 10.0, moves_per_window: 2 };

fn name(node: usize) -> NodeName {
    NodeName::new(format!("node{node}"))
}

fn network(costs: &[f64]) -> Network {
    let names = (0..NODES).map(name).collect();
    Network { version: 1, costs: CostMatrix::from_row_major(names, costs.to_vec()), model: CostModel::LocalFirst }
}

fn standing(running: &BTreeMap<NodeName, u32>, limits: &[u32]) -> Standing {
    Standing {
        running: running.clone(),
        capacities: limits.iter().enumerate().map(|(node, most)| NodeCapacity::new(name(node), *most)).collect(),
        ..Standing::default()
    }
}

fn demand(amounts: &[f64]) -> Vec<(NodeName, f64)> {
    amounts.iter().enumerate().map(|(node, amount)| (name(node), *amount)).collect()
}

fn problem(network: &Network, limits: &[u32], pods: u32, demand: &[(NodeName, f64)]) -> Problem {
    Problem::new("hello", network.costs.clone(), pods, 10.0)
        .with_demand(Demand::from_concurrency(demand.iter().cloned()).unwrap())
        .with_capacities(limits.iter().enumerate().map(|(node, most)| NodeCapacity::new(name(node), *most)))
}

fn changed(values: &[f64], changes: &[f64]) -> Vec<f64> {
    values.iter().zip(changes).map(|(value, change)| value * change).collect()
}

fn changes(width: f64, count: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(1.0 - width..1.0 + width, count)
}

proptest! {
    /// Where each pod has room for all of the demand, what the evidence says of a later plan is so.
    #[test]
    fn no_later_plan_gains_more_than_the_evidence_allows(
        costs in prop::collection::vec(0.0001..0.05_f64, NODES * NODES),
        amounts in prop::collection::vec(0.2..1.3_f64, NODES),
        limits in prop::collection::vec(0_u32..4, NODES),
        cost_changes in changes(0.3, NODES * NODES),
        amount_changes in changes(0.24, NODES),
    ) {
        let before = network(&costs);
        let amounts_before = demand(&amounts);
        let pods = 4;
        let choice = RULES.choose_and_show(&problem(&before, &limits, pods, &amounts_before), &MoveHistory::default()).unwrap();
        let plan = choice.best;
        prop_assume!(plan.unplaced.is_none() && plan.unserved.is_empty());
        let running = plan.replicas.clone();
        let standing = standing(&running, &limits);
        let question = Question { replicas: pods, pod_target: 10.0, demand: &amounts_before, is_steady: true, requests_per_second: None, ways: None };
        let all: Vec<usize> = (0..NODES).collect();
        let evidence = PlanEvidence::of(&before, &standing, &question, &all, &[0.0; NODES], &plan, (&plan, &choice.prices)).unwrap();

        let after = network(&changed(&costs, &cost_changes));
        let amounts_after = demand(&changed(&amounts, &amount_changes));
        let later = Question { demand: &amounts_after, ..question };
        let (kept, gain) = evidence.gain_at_most(&after, &standing, &later).unwrap();
        let problem = problem(&after, &limits, pods, &amounts_after).with_running(running.clone());
        let free = problem.solve().unwrap().cost.network_seconds;
        let best_kept = problem.keeping_what_runs().solve().unwrap().cost.network_seconds;
        prop_assert!(best_kept <= kept * (1.0 + 1e-5) + 1e-9, "{best_kept} {kept}");
        prop_assert!(best_kept - free <= gain + 1e-6 * kept + 1e-9, "{best_kept} {free} {gain}");
        let least = evidence.seconds_at_least(&after, &standing, &later);
        prop_assert!(least <= free * (1.0 + 1e-6) + 1e-9, "{least} {free}");
        if matches!(evidence.weigh(&after, &standing, &later, &RULES), Weight::NoMove | Weight::GainTooSmall) {
            let enough = RULES.gain_seconds.max(RULES.gain_ratio * kept);
            prop_assert!(best_kept - free < enough + 1e-6 * kept);
        }
    }

    /// What may make a plan better than any before, or more than demand and latency differ, is
    /// looked at anew.
    #[test]
    fn new_room_new_nodes_and_other_sources_are_no_evidence(
        costs in prop::collection::vec(0.0001..0.05_f64, NODES * NODES),
        amounts in prop::collection::vec(0.5..1.5_f64, NODES),
    ) {
        let (before, amounts_before) = (network(&costs), demand(&amounts));
        let limits = [2, 2, 2, 0, 1, 2];
        let plan = problem(&before, &limits, 4, &amounts_before).solve().unwrap();
        let held = standing(&plan.replicas, &limits);
        let question = Question { replicas: 4, pod_target: 10.0, demand: &amounts_before, is_steady: true, requests_per_second: None, ways: None };
        let all: Vec<usize> = (0..NODES).collect();
        let evidence = PlanEvidence::of(&before, &held, &question, &all, &[0.0; NODES], &plan, (&plan, &[])).unwrap();
        prop_assert!(evidence.gain_at_most(&before, &held, &question).is_some_and(|(_, gain)| gain.abs() < 1e-6));

        let opened = standing(&plan.replicas, &[2, 2, 2, 2, 1, 2]);
        prop_assert!(evidence.gain_at_most(&before, &opened, &question).is_none());
        let fewer = Question { demand: &amounts_before[1..], ..question };
        prop_assert!(evidence.gain_at_most(&before, &held, &fewer).is_none());
        let doubled: Vec<f64> = amounts.iter().map(|amount| amount * 2.0).collect();
        let doubled = demand(&doubled);
        let later = Question { demand: &doubled, ..question };
        prop_assert!(evidence.gain_at_most(&before, &held, &later).is_none());
        let more = Question { replicas: 5, ..question };
        prop_assert!(evidence.gain_at_most(&before, &held, &more).is_none());
        let uniform = Network { model: CostModel::Uniform, ..before };
        prop_assert!(evidence.gain_at_most(&uniform, &held, &question).is_none());
    }
}

/// Decisions are made again from recordings, which are JSON: what cannot be reached is in them,
/// too.
#[test]
fn evidence_is_the_same_after_it_was_written_down() {
    let mut costs: Vec<f64> = (1..=NODES * NODES).map(|number| f64::from(as_u32(number)) / 3000.0).collect();
    costs[NODES - 1] = f64::INFINITY;
    let (before, amounts) = (network(&costs), demand(&[1.0 / 3.0, 0.7, 1.1, 0.2, 0.9, 1.0]));
    let limits = [1; NODES];
    let plan = problem(&before, &limits, 4, &amounts).solve().unwrap();
    let held = standing(&plan.replicas, &limits);
    let question =
        Question { replicas: 4, pod_target: 10.0, demand: &amounts, is_steady: true, requests_per_second: None, ways: None };
    let all: Vec<usize> = (0..NODES).collect();
    let evidence = PlanEvidence::of(&before, &held, &question, &all, &[0.0; NODES], &plan, (&plan, &[])).unwrap();
    let written = serde_json::to_string(&evidence).unwrap();
    let read: PlanEvidence = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), written);
    let bits = |evidence: &PlanEvidence| {
        let (kept, gain) = evidence.gain_at_most(&before, &held, &question).unwrap();
        (kept.to_bits(), gain.to_bits())
    };
    assert_eq!(bits(&read), bits(&evidence));
}
