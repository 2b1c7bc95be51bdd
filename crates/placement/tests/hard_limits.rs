//! Minima, zones and numbers at the edge: what is promised holds, and every problem that is
//! accepted is answered.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ndarray::{Array2, array};
use placement::plan::{MoveHistory, Proof, Stability, Verdict, explain::explain};
use placement::problem::{CostModel, Exclusion, ServiceLevel, ServingCurve};
use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Plan, Problem};
use proptest::prelude::*;

fn pair() -> CostMatrix {
    CostMatrix::new(vec!["a".into(), "b".into()], array![[0.0, 0.01], [0.01, 0.0]])
}

fn demand(entries: &[(&str, f64)]) -> Demand {
    Demand::from_concurrency(entries.iter().map(|(node, value)| (NodeName::from(*node), *value))).unwrap()
}

fn zones(entries: &[(&str, &str)]) -> Vec<(NodeName, String)> {
    entries.iter().map(|(node, zone)| (NodeName::from(*node), (*zone).to_owned())).collect()
}

#[test]
fn never_to_move_is_an_answer() {
    let plan = Problem::new("s", pair(), 2, 10.0)
        .with_move_seconds(f64::MAX)
        .with_demand(demand(&[("a", 4.0)]))
        .with_capacities(["a", "b"].map(|node| NodeCapacity::new(node.into(), 3)))
        .solve()
        .unwrap();
    assert_eq!(plan.total_replicas(), 2);
    assert!(plan.cost.objective.is_finite());
}

#[test]
fn as_many_replicas_as_there_are_numbers_are_placed_as_far_as_is_sensible() {
    for model in [CostModel::LocalFirst, CostModel::Uniform] {
        let problem = Problem::new("s", pair(), u32::MAX, 10.0)
            .with_demand(demand(&[("a", 4.0), ("b", 1e9)]))
            .with_capacities(["a", "b"].map(|node| NodeCapacity::new(node.into(), u32::MAX)))
            .with_running([("a".into(), u32::MAX), ("b".into(), u32::MAX)])
            .with_model(model);
        let plan = problem.solve().unwrap();
        assert_eq!(plan.total_replicas(), 100_000);
        assert_eq!(plan.unplaced.unwrap().replicas, u32::MAX - 100_000);
        // And down again.
        let fewer = problem.with_running(plan.replicas).with_demand(Demand::default());
        assert_eq!(Stability::default().choose(&fewer, &MoveHistory::default()).unwrap().0.total_replicas(), 100_000);
    }
}

#[test]
fn a_minimum_holds_without_demand_and_before_what_runs() {
    let problem = Problem::new("s", pair(), 1, 10.0)
        .with_capacities([NodeCapacity::new("a".into(), 3), NodeCapacity::new("b".into(), 3).at_least(1)])
        .with_running([("a".into(), 1)]);
    assert_eq!(problem.solve().unwrap().replicas, [("b".into(), 1)].into());
    let keeping = problem.clone().with_demand(demand(&[("a", 4.0)])).keeping_what_runs();
    assert_eq!(keeping.solve().unwrap().replicas, [("b".into(), 1)].into());
    // Two of three run at a: one of them makes way for the minimum.
    let fewer = Problem::new("s", pair(), 2, 10.0)
        .with_capacities([NodeCapacity::new("a".into(), 3), NodeCapacity::new("b".into(), 3).at_least(1)])
        .with_running([("a".into(), 3)]);
    assert_eq!(fewer.solve().unwrap().replicas, [("a".into(), 1), ("b".into(), 1)].into());
}

#[test]
fn a_minimum_that_cannot_be_met_is_told() {
    let plan = Problem::new("s", pair(), 1, 10.0)
        .with_demand(demand(&[("a", 4.0)]))
        .with_capacities([
            NodeCapacity::new("a".into(), 3).at_least(2),
            NodeCapacity::new("b".into(), 3).at_least(1).excluded(Exclusion::NotReady),
        ])
        .solve()
        .unwrap();
    assert_eq!(plan.below_minimum, [("a".into(), 1), ("b".into(), 1)].into());
}

#[test]
fn zones_hold_without_demand_and_before_what_runs() {
    let costs = CostMatrix::new(["a", "b", "c"].map(Into::into).to_vec(), Array2::from_elem((3, 3), 0.01));
    let problem = Problem::new("s", costs, 2, 10.0)
        .with_capacities(["a", "b", "c"].map(|node| NodeCapacity::new(node.into(), 3)))
        .with_zones(zones(&[("a", "west"), ("b", "west"), ("c", "east")]), 2)
        .with_running([("a".into(), 1), ("b".into(), 1)]);
    for problem in [problem.clone(), problem.clone().with_demand(demand(&[("a", 9.0)])).keeping_what_runs()] {
        let plan = problem.solve().unwrap();
        assert_eq!((plan.replicas_on(&"c".into()), plan.total_replicas(), plan.cost.starts), (1, 2, 1));
        assert_eq!(plan.zones_missing, None);
    }
    // One fewer than run, all in the west.
    let fewer = problem.with_running([("a".into(), 2), ("b".into(), 1)]).solve().unwrap();
    assert_eq!((fewer.replicas_on(&"c".into()), fewer.total_replicas(), fewer.zones_missing), (1, 2, None));
}

#[test]
fn stability_moves_for_minima_and_zones_whatever_it_gains() {
    let busy = demand(&[("a", 9.0)]);
    let two = [NodeCapacity::new("a".into(), 3), NodeCapacity::new("b".into(), 3)];
    let running = [(NodeName::from("a"), 2)];
    let problem = Problem::new("s", pair(), 2, 10.0).with_demand(busy).with_capacities(two).with_running(running);
    let resting = MoveHistory { since_last_seconds: Some(0.0), moves_in_window: 99 };
    let spread = problem.clone().with_zones(zones(&[("a", "west"), ("b", "east")]), 2);
    let least = problem.with_capacities([NodeCapacity::new("b".into(), 3).at_least(1)]);
    for problem in [spread, least] {
        let (plan, verdict) = Stability::default().choose(&problem, &resting).unwrap();
        assert_eq!((plan.replicas_on(&"b".into()), verdict), (1, Verdict::Forced));
    }
}

#[test]
fn a_forced_move_forces_no_other() {
    // b is lost; that a's replica would be better at d is no reason to move it now.
    let far = |from: usize, to: usize| if from == to { 0.0 } else { 0.05 };
    let names = ["a", "b", "c", "d"].map(NodeName::from);
    let costs = CostMatrix::new(names.to_vec(), Array2::from_shape_fn((4, 4), |(from, to)| far(from, to)));
    let problem = Problem::new("s", costs, 2, 10.0)
        .with_demand(demand(&[("c", 9.0), ("d", 9.0)]))
        .with_capacities(names.map(|node| {
            let capacity = NodeCapacity::new(node.clone(), 1);
            if node == "b".into() { capacity.excluded(Exclusion::NotReady) } else { capacity }
        }))
        .with_running([("a".into(), 1), ("b".into(), 1)]);
    let resting = MoveHistory { since_last_seconds: Some(0.0), moves_in_window: 0 };
    let (plan, verdict) = Stability::default().choose(&problem, &resting).unwrap();
    assert_eq!((plan.replicas_on(&"a".into()), plan.cost.starts, verdict), (1, 1, Verdict::Forced));
}

#[test]
fn demand_that_reaches_nobody_is_no_load() {
    let far = f64::INFINITY;
    let names = ["a", "b", "c"].map(NodeName::from);
    let costs = CostMatrix::new(names.to_vec(), array![[0.0, 0.01, far], [0.01, 0.0, far], [far, far, 0.0]]);
    let plan = Problem::new("s", costs, 2, 10.0)
        .with_demand(demand(&[("a", 12.0), ("c", 100.0)]))
        .with_capacities(["a", "b"].map(|node| NodeCapacity::new(node.into(), 1)))
        .solve()
        .unwrap();
    assert_eq!((plan.replica_capacity, plan.utilisation), (10.0, 0.6));
    assert_eq!((plan.load_on(&"a".into()), plan.load_on(&"b".into())), (10.0, 2.0));
    assert_eq!(plan.unserved[0].concurrency, 100.0);
}

#[test]
fn a_busy_replica_is_better_than_none_however_long_it_takes() {
    let plan = Problem::new("s", pair(), 1, 10.0)
        .with_demand(demand(&[("a", 10.0)]))
        .with_capacities([NodeCapacity::new("a".into(), 1)])
        .with_serving(ServingCurve::queue(60.0, 1).unwrap())
        .solve()
        .unwrap();
    assert!(plan.unserved.is_empty());
}

#[test]
fn a_proof_that_runs_out_of_effort_keeps_the_bound_that_it_has() {
    // Sixteen nodes in eight zones, nothing to choose between: hundreds of branchings are worth a
    // look.
    let names: Vec<NodeName> = (0..16).map(|node| NodeName::new(format!("n{node:02}"))).collect();
    let cells = Array2::from_shape_fn((16, 16), |(from, to)| if from == to { 0.0 } else { 0.01 });
    let plan = Problem::new("s", CostMatrix::new(names.clone(), cells), 8, 10.0)
        .with_demand(demand(&[("n00", 50.0)]))
        .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 8)))
        .with_zones(names.iter().enumerate().map(|(at, node)| (node.clone(), format!("z{}", at / 2))), 6)
        .solve()
        .unwrap();
    let bound = match plan.proof {
        Proof::Optimal => plan.cost.objective,
        Proof::AtLeast { objective } => objective,
    };
    assert!(bound >= 0.0 && bound <= plan.cost.objective);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

fn wild_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..5_u32, 1 => 0..2000_u32, 1 => Just(u32::MAX)]
}

fn wild_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..20.0_f64,
        1 => Just(0.0),
        1 => (-320..320_i32).prop_map(|power| 10_f64.powi(power)),
        1 => Just(f64::MAX),
        1 => Just(f64::NAN),
    ]
}

fn wild_cost() -> impl Strategy<Value = f64> {
    prop_oneof![6 => 0.0..0.1_f64, 1 => Just(f64::INFINITY), 1 => Just(0.0), 1 => wild_number()]
}

#[derive(Clone, Debug)]
struct Wild {
    cells: Vec<f64>,
    demands: Vec<f64>,
    nodes: Vec<(u32, u32, u32, u8, u8)>,
    replicas: u32,
    numbers: [f64; 4],
    zones: u32,
    share: Option<f64>,
    curve: u8,
    uniform: bool,
}

fn wild() -> impl Strategy<Value = Wild> {
    (1..7_usize).prop_flat_map(|size| {
        let node = (wild_count(), wild_count(), wild_count(), 0..8_u8, 0..4_u8);
        (
            prop::collection::vec(wild_cost(), size * size),
            prop::collection::vec(wild_number(), size),
            prop::collection::vec(node, size),
            wild_count(),
            prop::array::uniform4(wild_number()),
            prop_oneof![Just(0), 0..6_u32, Just(u32::MAX)],
            prop::option::of(wild_number()),
            0..5_u8,
            prop::bool::ANY,
        )
            .prop_map(|(cells, demands, nodes, replicas, numbers, zones, share, curve, uniform)| Wild {
                cells,
                demands,
                nodes,
                replicas,
                numbers,
                zones,
                share,
                curve,
                uniform,
            })
    })
}

impl Wild {
    /// The problem, unless its parts are refused.
    fn problem(&self) -> Option<Problem> {
        let size = self.nodes.len();
        let names: Vec<NodeName> = (0..size).map(|node| NodeName::new(format!("n{node}"))).collect();
        let cells = Array2::from_shape_vec((size, size), self.cells.clone()).unwrap();
        let curve = match self.curve {
            0 => ServingCurve::flat(self.numbers[2]),
            1 => ServingCurve::queue(self.numbers[2], 1),
            2 => ServingCurve::queue(self.numbers[2], 40),
            3 => ServingCurve::measured(&[(0.3, self.numbers[2]), (0.9, self.numbers[3])]),
            _ => Ok(ServingCurve::default()),
        };
        let demand = Demand::from_concurrency(names.iter().cloned().zip(self.demands.iter().copied())).ok()?;
        let capacities = names.iter().zip(&self.nodes).map(|(node, (most, least, _, kind, _))| {
            let capacity = NodeCapacity::new(node.clone(), *most).at_least(if kind & 1 == 0 { 0 } else { *least });
            match kind {
                2 => capacity.cordoned(),
                3 => capacity.excluded(Exclusion::NotReady),
                _ => capacity,
            }
        });
        let zoned = names.iter().zip(&self.nodes).filter(|(_, node)| node.4 > 0);
        let mut problem = Problem::new("wild", CostMatrix::new(names.clone(), cells), self.replicas, self.numbers[0])
            .with_demand(demand)
            .with_capacities(capacities)
            .with_running(names.iter().cloned().zip(self.nodes.iter().map(|node| node.2)))
            .with_move_seconds(self.numbers[1])
            .with_serving(curve.ok()?)
            .with_model(if self.uniform { CostModel::Uniform } else { CostModel::LocalFirst })
            .with_zones(zoned.map(|(name, node)| (name.clone(), format!("z{}", node.4))), self.zones);
        if let Some(share) = self.share {
            problem = problem.with_node_share(share);
        }
        Some(problem)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_problem_that_is_accepted_is_answered(wild in wild(), cooldown in wild_number()) {
        let Some(problem) = wild.problem() else { return Ok(()) };
        let Ok(plan) = problem.solve() else { return Ok(()) };
        prop_assert!(plan.cost.objective.is_finite() && plan.cost.network_seconds.is_finite());
        prop_assert!(plan.cost.serving_seconds.is_finite() && plan.utilisation.is_finite());
        let text = serde_json::to_string(&plan).unwrap();
        prop_assert!(serde_json::from_str::<Plan>(&text).is_ok(), "{text}");
        for (node, count) in &plan.replicas {
            let at: usize = node.as_str()[1..].parse().unwrap();
            prop_assert!(*count <= wild.nodes[at].0);
        }
        let missing = plan.unplaced.as_ref().map_or(0, |unplaced| unplaced.replicas);
        prop_assert_eq!(u64::from(plan.total_replicas()) + u64::from(missing), u64::from(wild.replicas));
        let rules = Stability { cooldown_seconds: cooldown, ..Stability::default() };
        prop_assert!(rules.choose(&problem, &MoveHistory::default()).is_ok());
        if plan.total_replicas() < 1000 {
            let explained = explain(&problem, &plan);
            prop_assert_eq!(explained.chosen.len(), plan.replicas.len());
            let level = ServiceLevel { share: wild.numbers[2], seconds: wild.numbers[3] };
            let found = problem.fewest_replicas(level, 0..=wild.replicas.min(20)).unwrap();
            let text = serde_json::to_string(&found).unwrap();
            prop_assert!(serde_json::from_str::<placement::problem::LevelPlan>(&text).is_ok(), "{text}");
        }
    }

    /// Keeping what runs, and having no demand, take away nothing but what must go.
    #[test]
    fn what_runs_stays_where_it_may(wild in wild(), idle in prop::bool::ANY) {
        let Some(problem) = wild.problem() else { return Ok(()) };
        let problem = if idle { problem.with_demand(Demand::default()) } else { problem.keeping_what_runs() };
        let problem = problem.with_zones([], 0).with_capacities(wild.nodes.iter().enumerate().map(|(at, node)| {
            NodeCapacity::new(NodeName::new(format!("n{at}")), node.0)
        }));
        prop_assume!(wild.share.is_none() && wild.cells.iter().all(|cell| *cell != f64::INFINITY));
        let Ok(plan) = problem.solve() else { return Ok(()) };
        let running = |at: usize| wild.nodes[at].2.min(wild.nodes[at].0);
        let all: u64 = (0..wild.nodes.len()).map(|at| u64::from(running(at))).sum();
        prop_assume!(all <= 100_000 && wild.replicas <= 100_000);
        let kept: u64 = (0..wild.nodes.len())
            .map(|at| u64::from(running(at).min(plan.replicas_on(&NodeName::new(format!("n{at}"))))))
            .sum();
        prop_assert_eq!(kept, all.min(u64::from(wild.replicas)));
    }
}

#[test]
fn names_may_be_anything() {
    let problem = Problem::new("", pair(), 3, 1.0)
        .with_demand(demand(&[("nowhere", 2.0), ("", 1.0)]))
        .with_capacities([NodeCapacity::new("".into(), 2), NodeCapacity::new("b".into(), 2)])
        .with_zones(zones(&[("", ""), ("gone", "gone")]), 1)
        .with_running(BTreeMap::from([("gone".into(), 7)]));
    assert_eq!(problem.solve().unwrap().total_replicas(), 3);
}
