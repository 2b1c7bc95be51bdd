//! Whole applications against trying every placement.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ndarray::Array2;
use placement::apps::{AppError, AppPlan, Application, Workload};
use placement::plan::Proof;
use placement::{CostMatrix, NodeName};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    places: usize,
    cells: Vec<f64>,
    /// Per workload after the first: its caller, as a share of those before it, and calls.
    callers: Vec<(f64, f64)>,
    /// Further calls: the two workloads as shares, and calls.
    more: Vec<(f64, f64, f64)>,
    rates: Vec<f64>,
    needs: Vec<u64>,
    room: Option<Vec<u64>>,
    running: Vec<Option<u8>>,
    /// A workload that may only run at one place.
    tied: Option<(usize, usize)>,
    move_seconds: f64,
    seconds_per_byte: f64,
}

fn name(workload: usize) -> String {
    format!("w{workload}")
}

fn node(place: usize) -> NodeName {
    NodeName::new(format!("n{place}"))
}

impl Case {
    fn workloads(&self) -> usize {
        self.callers.len() + 1
    }

    /// Caller, called, calls per request.
    fn calls(&self) -> Vec<(usize, usize, f64)> {
        let pick = |share: f64, count: usize| ((share * count as f64) as usize).min(count - 1);
        let tree = self.callers.iter().enumerate().map(|(at, (share, calls))| (pick(*share, at + 1), at + 1, *calls));
        let more = self.more.iter().filter_map(|(one, other, calls)| {
            let (one, other) = (pick(*one, self.workloads()), pick(*other, self.workloads()));
            (one != other).then_some((one.min(other), one.max(other), *calls))
        });
        tree.chain(more).collect()
    }

    fn application(&self) -> Application {
        let nodes = (0..self.places).map(node).collect();
        let costs = CostMatrix::new(nodes, Array2::from_shape_vec((self.places, self.places), self.cells.clone()).unwrap());
        let mut app = Application::new("app", costs)
            .with_move_seconds(self.move_seconds)
            .with_seconds_per_byte(self.seconds_per_byte)
            .with_demand(name(0), self.rates.iter().enumerate().map(|(place, rate)| (node(place), *rate)));
        for workload in 0..self.workloads() {
            app = app.with_workload(Workload {
                needs: [("cpu".to_owned(), self.needs[workload])].into(),
                serving_seconds: 0.001,
                running: self.running[workload].map(|place| node(usize::from(place) % self.places)),
                allowed: self.tied.filter(|(tied, _)| *tied == workload).map(|(_, place)| node(place)).into_iter().collect(),
                ..Workload::named(name(workload))
            });
        }
        for (from, to, calls) in self.calls() {
            app = app.with_calls(name(from), name(to), calls, 1_000.0);
        }
        match &self.room {
            Some(room) => {
                app.with_room(room.iter().enumerate().map(|(place, cpu)| (node(place), [("cpu".to_owned(), *cpu)].into())))
            }
            None => app,
        }
    }

    /// The objective of a placement in mean seconds, from the definition; none where it is not
    /// allowed or has no room.
    fn objective(&self, labels: &[usize]) -> Option<f64> {
        let cost = |from: usize, to: usize| if from == to { 0.0 } else { self.cells[from * self.places + to].min(3600.0) };
        if self.tied.is_some_and(|(workload, place)| labels[workload] != place) {
            return None;
        }
        if let Some(room) = &self.room {
            let mut used = vec![0; self.places];
            labels.iter().zip(&self.needs).for_each(|(place, need)| used[*place] += need);
            if used.iter().zip(room).any(|(used, room)| used > room) {
                return None;
            }
        }
        let demand: f64 = self.rates.iter().sum();
        let mut rates = vec![0.0; labels.len()];
        rates[0] = demand;
        let mut sum: f64 = self.rates.iter().enumerate().map(|(source, rate)| rate * cost(source, labels[0])).sum();
        let mut calls = self.calls();
        calls.sort_by_key(|call| call.0);
        for (from, to, per_request) in calls {
            let rate = rates[from] * per_request;
            rates[to] += rate;
            if labels[from] != labels[to] {
                sum += rate * (cost(labels[from], labels[to]) + 1_000.0 * self.seconds_per_byte);
            }
        }
        sum += rates.iter().sum::<f64>() * 0.001;
        let running = self.running.iter().map(|place| place.map(|place| usize::from(place) % self.places));
        let moves = running.zip(labels).filter(|(running, place)| running.is_some_and(|running| running != **place)).count();
        Some(sum / demand + moves as f64 * self.move_seconds)
    }

    fn labels(&self, plan: &AppPlan) -> Vec<usize> {
        let place = |workload| (0..self.places).find(|place| plan.placement[&name(workload)] == node(*place)).unwrap();
        (0..self.workloads()).map(place).collect()
    }

    fn brute_force(&self) -> Option<f64> {
        let count = self.places.pow(self.workloads() as u32);
        let labels = |number: usize| -> Vec<usize> {
            (0..self.workloads()).map(|workload| number / self.places.pow(workload as u32) % self.places).collect()
        };
        (0..count).filter_map(|number| self.objective(&labels(number))).min_by(f64::total_cmp)
    }
}

fn cases() -> impl Strategy<Value = Case> {
    (2..5_usize, 2..6_usize).prop_flat_map(|(places, workloads)| {
        let cell =
            prop_oneof![4 => 0.0..0.1_f64, 2 => (0..4_u8).prop_map(|step| f64::from(step) * 0.01), 1 => Just(f64::INFINITY)];
        let graph = (
            prop::collection::vec((0.0..1.0_f64, 0.0..4.0_f64), workloads - 1),
            prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64, 0.0..4.0_f64), 0..5),
        );
        let numbers = (
            prop::collection::vec(cell, places * places),
            prop::collection::vec(0.1..9.0_f64, places),
            prop::collection::vec(0..5_u64, workloads),
            prop::option::of(prop::collection::vec(0..9_u64, places)),
            prop::collection::vec(prop::option::of(0..8_u8), workloads),
            prop::option::of((0..workloads, 0..places)),
        );
        let seconds = (prop_oneof![Just(0.0), 0.0..0.03_f64], prop_oneof![Just(0.0), 0.0..1e-5_f64]);
        (graph, numbers, seconds).prop_map(
            move |((callers, more), (cells, rates, needs, room, running, tied), (move_seconds, seconds_per_byte))| Case {
                places,
                cells,
                callers,
                more,
                rates,
                needs,
                room,
                running,
                tied,
                move_seconds,
                seconds_per_byte,
            },
        )
    })
}

/// What a plan is proven to be no better than.
fn bound(plan: &AppPlan) -> f64 {
    match plan.proof {
        Proof::Optimal => plan.objective_seconds,
        Proof::AtLeast { objective } => objective,
    }
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_placement_is_better_than_a_proven_plan_or_below_the_bound(case in cases()) {
        let plan = case.application().solve().unwrap();
        let best = case.brute_force();
        if plan.unplaced.is_empty() {
            let labels = case.labels(&plan);
            let objective = case.objective(&labels);
            prop_assert!(objective.is_some_and(|objective| is_near(objective, plan.objective_seconds)), "{objective:?} {plan:?}");
            let best = best.unwrap();
            prop_assert!(bound(&plan) <= best + 1e-9 * best.max(1.0), "bound above {best}: {plan:?}");
            if plan.proof == Proof::Optimal {
                prop_assert!(is_near(plan.objective_seconds, best), "{best} {plan:?}");
            }
            let loose = case.room.is_none();
            if loose {
                // So few workloads are within reach of the search, whatever the graph.
                prop_assert!(is_near(plan.objective_seconds, best), "{best} {plan:?}");
            }
            if loose && case.more.is_empty() {
                prop_assert_eq!(plan.proof, Proof::Optimal);
            }
        } else if case.room.is_none() {
            prop_assert!(best.is_none(), "{:?}", plan);
        }
        prop_assert_eq!(case.application().solve().unwrap(), plan);
    }

    #[test]
    fn proposals_lead_to_the_plan_and_each_is_worth_it(case in cases()) {
        let app = case.application();
        let plan = app.solve().unwrap();
        let mut places: BTreeMap<String, NodeName> = plan.placement.clone();
        for (workload, running) in case.running.iter().enumerate() {
            if let Some(running) = running
                && let Some(place) = places.get_mut(&name(workload))
            {
                *place = node(usize::from(*running) % case.places);
            }
        }
        for proposal in app.propose_moves(&plan).unwrap() {
            prop_assert!(proposal.gain_seconds > proposal.cost_seconds);
            for moved in &proposal.moves {
                prop_assert_eq!(places.insert(moved.workload.clone(), moved.to.clone()), Some(moved.from.clone()));
                prop_assert_eq!(&plan.placement[&moved.workload], &moved.to);
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let costs = CostMatrix::new(vec!["a".into()], ndarray::array![[0.0]]);
    let app = || Application::new("app", costs.clone()).with_workload(Workload::named("x")).with_workload(Workload::named("y"));
    assert!(matches!(app().with_workload(Workload::named("x")).solve(), Err(AppError::DuplicateWorkload { .. })));
    assert!(matches!(app().with_calls("x", "z", 1.0, 0.0).solve(), Err(AppError::UnknownWorkload { .. })));
    let circle = app().with_calls("x", "y", 1.0, 0.0).with_calls("y", "x", 1.0, 0.0);
    assert!(matches!(circle.solve(), Err(AppError::Cycle { .. })));
    assert!(matches!(app().with_calls("x", "x", 1.0, 0.0).solve(), Err(AppError::Cycle { .. })));
    for number in [f64::NAN, -1.0, f64::INFINITY, 1e300] {
        assert!(matches!(app().with_calls("x", "y", number, 0.0).solve(), Err(AppError::Number { .. })));
        assert!(matches!(app().with_demand("x", [("a".into(), number)]).solve(), Err(AppError::Number { .. })));
        assert!(matches!(app().with_move_seconds(number).solve(), Err(AppError::Number { .. })));
    }
    let no_place =
        Application::new("app", CostMatrix::new(Vec::new(), Array2::zeros((0, 0)))).with_workload(Workload::named("x"));
    assert_eq!(no_place.solve().unwrap().unplaced, ["x"]);
    // Whole systems of workloads that call nothing are an application, too.
    assert_eq!(app().solve().unwrap().proof, Proof::Optimal);
}
