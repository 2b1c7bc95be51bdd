//! Every option against trying everything: minima, shares, zones, what runs, what stays, moves, and
//! service levels.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ndarray::Array2;
use placement::plan::Proof;
use placement::problem::{CostModel, Segment, ServiceLevel, ServingCurve};
use placement::routing::{Server, route};
use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Plan, Problem};
use proptest::prelude::*;

/// The concurrency of a replica.
const CONCURRENCY: f64 = 4.0;

#[derive(Clone, Debug)]
struct Case {
    /// `cells[from * size + to]`.
    cells: Vec<f64>,
    demands: Vec<f64>,
    limits: Vec<u32>,
    floors: Vec<u32>,
    running: Vec<u32>,
    zones: Vec<u8>,
    replicas: u32,
    least_zones: u32,
    share: Option<f64>,
    move_seconds: f64,
    keep: bool,
    uniform: bool,
    busy: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    (2..6_usize).prop_flat_map(|size| {
        let cell =
            prop_oneof![3 => 0.0..0.1_f64, 3 => (1..5_u8).prop_map(|step| f64::from(step) * 0.01), 1 => Just(f64::INFINITY)];
        let lists = (
            prop::collection::vec(cell, size * size),
            prop::collection::vec(prop_oneof![1 => Just(0.0), 3 => 0.1..8.0_f64], size),
            prop::collection::vec(0..4_u32, size),
            prop::collection::vec(prop_oneof![3 => Just(0_u32), 1 => 1..3_u32], size),
            prop::collection::vec(0..3_u32, size),
            prop::collection::vec(0..4_u8, size),
        );
        let numbers = (1..6_u32, 0..4_u32, prop::option::of(0.1..1.0_f64), prop_oneof![Just(0.0), Just(1e-6), 0.0..0.05_f64]);
        (lists, numbers, prop::array::uniform3(prop::bool::ANY)).prop_map(
            |((cells, demands, limits, floors, running, zones), (replicas, least_zones, share, move_seconds), flags)| Case {
                cells,
                demands,
                limits,
                floors,
                running,
                zones,
                replicas,
                least_zones,
                share,
                move_seconds,
                keep: flags[0] && flags[1],
                uniform: flags[1] && flags[2],
                busy: flags[0],
            },
        )
    })
}

impl Case {
    fn size(&self) -> usize {
        self.limits.len()
    }

    fn names(&self) -> Vec<NodeName> {
        (0..self.size()).map(|node| NodeName::new(format!("n{node}"))).collect()
    }

    fn curve(&self) -> ServingCurve {
        let segment = |width, marginal_seconds| Segment { width, marginal_seconds };
        if self.busy {
            ServingCurve::from_segments(vec![segment(0.6, 0.004), segment(0.3, 0.010), segment(0.1, 0.060)]).unwrap()
        } else {
            ServingCurve::flat(0.004).unwrap()
        }
    }

    fn problem(&self) -> Problem {
        let names = self.names();
        let cells = Array2::from_shape_vec((self.size(), self.size()), self.cells.clone()).unwrap();
        let zoned = names.iter().zip(&self.zones).filter(|(_, zone)| **zone > 0);
        let mut problem = Problem::new("any", CostMatrix::new(names.clone(), cells), self.replicas, CONCURRENCY)
            .with_demand(Demand::from_concurrency(names.iter().cloned().zip(self.demands.iter().copied())).unwrap())
            .with_capacities(
                (0..self.size()).map(|at| NodeCapacity::new(names[at].clone(), self.limits[at]).at_least(self.floors[at])),
            )
            .with_running(names.iter().cloned().zip(self.running.iter().copied()))
            .with_serving(self.curve())
            .with_zones(zoned.map(|(node, zone)| (node.clone(), zone.to_string())), self.least_zones)
            .with_move_seconds(self.move_seconds)
            .with_model(if self.uniform { CostModel::Uniform } else { CostModel::LocalFirst });
        if let Some(share) = self.share {
            problem = problem.with_node_share(share);
        }
        if self.keep { problem.keeping_what_runs() } else { problem }
    }

    /// `costs[(node, source)]`.
    fn by_node(&self) -> Array2<f64> {
        let mut costs = Array2::from_shape_vec((self.size(), self.size()), self.cells.clone()).unwrap().reversed_axes();
        costs.diag_mut().fill(0.0);
        costs
    }

    /// Most replicas per node, for so many in all.
    fn most(&self, replicas: u32) -> Vec<u32> {
        let costs = self.by_node();
        let each = self.share.map_or(u32::MAX, |share| ((share * f64::from(replicas) + 1e-9) as u32).max(1));
        let reached =
            |node: usize| (0..self.size()).any(|source| self.demands[source] > 0.0 && costs[(node, source)].is_finite());
        (0..self.size()).map(|node| if reached(node) { self.limits[node].min(each) } else { 0 }).collect()
    }

    fn zones_used(&self, placement: &[u32]) -> u32 {
        let used = (0..self.size()).filter(|node| placement[*node] > 0 && self.zones[*node] > 0);
        used.map(|node| self.zones[node]).collect::<BTreeSet<u8>>().len() as u32
    }

    /// All placements of so many replicas that hold what is promised: limits, shares, minima, and
    /// then zones, as far as they can be held at once.
    fn allowed(&self, placed: u32, replicas: u32) -> Vec<Vec<u32>> {
        let most = self.most(replicas);
        let floors: Vec<u32> = self.floors.iter().zip(&most).map(|(floor, most)| *floor.min(most)).collect();
        let mut all = placements(&most, placed);
        all.retain(|placement| placement.iter().zip(&floors).all(|(count, floor)| count >= floor));
        let zones = all.iter().map(|placement| self.zones_used(placement)).max().unwrap_or(0).min(self.least_zones);
        all.retain(|placement| self.zones_used(placement) >= zones);
        if self.keep {
            let kept =
                |placement: &Vec<u32>| placement.iter().zip(&self.running).map(|(count, runs)| count.min(runs)).sum::<u32>();
            let most = all.iter().map(kept).max().unwrap_or(0);
            all.retain(|placement| kept(placement) == most);
        }
        all
    }

    fn objective(&self, placement: &[u32], plan: &Plan) -> f64 {
        let costs = self.by_node();
        let placed = placement.iter().sum::<u32>();
        let reached = |source: &usize| {
            (0..self.size()).any(|node| self.most(self.replicas)[node] > 0 && costs[(node, *source)].is_finite())
        };
        let demand: f64 = (0..self.size()).filter(reached).map(|source| self.demands[source]).sum();
        let starts: u32 = placement.iter().zip(&self.running).map(|(count, runs)| count.saturating_sub(*runs)).sum();
        let moved = f64::from(starts) * self.move_seconds * demand / f64::from(placed);
        let routed = if self.uniform {
            let pairs = costs.indexed_iter().map(|((node, source), cost)| {
                f64::from(placement[node]) / f64::from(placed) * self.demands[source] * cost.min(3600.0)
            });
            pairs.sum()
        } else {
            let servers = placement.iter().enumerate();
            let servers: Vec<Server> =
                servers.map(|(row, count)| Server { row, capacity: f64::from(*count) * plan.replica_capacity }).collect();
            route(&costs, &self.demands, &servers, self.curve().segments()).total()
        };
        routed + moved
    }
}

/// Every way of putting `replicas` replicas on nodes with these limits.
fn placements(limits: &[u32], replicas: u32) -> Vec<Vec<u32>> {
    let Some((limit, rest)) = limits.split_first() else {
        return if replicas == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    let mut all = Vec::new();
    for here in 0..=replicas.min(*limit) {
        for mut tail in placements(rest, replicas - here) {
            tail.insert(0, here);
            all.push(tail);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_placement_that_keeps_the_promises_is_better(case in cases()) {
        prop_assume!(case.demands.iter().any(|demand| *demand > 0.0));
        let plan = case.problem().solve().unwrap();
        let placed = case.replicas.min(case.most(case.replicas).iter().sum());
        prop_assert_eq!(plan.total_replicas(), placed);
        let allowed = case.allowed(placed, case.replicas);
        // More minima than replicas: the order of a hash decides, which is not enumerated here.
        prop_assume!(placed > 0 && !allowed.is_empty());
        let counts: Vec<u32> = case.names().iter().map(|node| plan.replicas_on(node)).collect();
        prop_assert!(allowed.contains(&counts), "{counts:?}");
        let best = allowed.iter().map(|placement| case.objective(placement, &plan)).fold(f64::INFINITY, f64::min);
        let ours = case.objective(&counts, &plan);
        let demand: f64 = case.demands.iter().sum();
        // Equals are ordered by half a microsecond.
        let better = ours > best + 2e-6 * demand + 1e-12 * best;
        prop_assert!((plan.cost.objective - ours).abs() <= 2e-6 * demand + 1e-12 * best, "{} {ours}", plan.cost.objective);
        match plan.proof {
            Proof::Optimal => prop_assert!(!better, "{counts:?}: {ours} against {best}"),
            // Only which of the replicas that stay makes way for a zone is not proven.
            Proof::AtLeast { objective } => prop_assert!(case.keep && objective <= best + 2e-6 * demand),
        }
        prop_assert_eq!(plan.zones_missing.is_some(), case.zones_used(&counts) < case.least_zones);
        for (at, node) in case.names().iter().enumerate() {
            let lacking = case.floors[at].saturating_sub(counts[at]);
            prop_assert_eq!(plan.below_minimum.get(node).copied().unwrap_or(0), lacking);
        }
    }

    #[test]
    fn no_fewer_replicas_meet_a_service_level(case in cases(), seconds in 0.005..0.1_f64, late in 0.0..0.3_f64) {
        let case = Case { keep: false, uniform: false, busy: false, floors: vec![0; case.size()], ..case };
        prop_assume!(case.demands.iter().any(|demand| *demand > 0.0));
        let level = ServiceLevel { share: 1.0 - late, seconds };
        let found = case.problem().fewest_replicas(level, 1..=8).unwrap();
        let costs = case.by_node();
        let demand: f64 = case.demands.iter().sum();
        let dear = costs.mapv(|cost| if cost + 0.004 <= seconds { 0.0 } else if cost.is_finite() { 1.0 } else { cost });
        // The most demand in time that so many replicas can serve; none if some is not served.
        let within = |placement: &[u32]| {
            let servers: Vec<Server> =
                placement.iter().enumerate().map(|(row, count)| Server { row, capacity: f64::from(*count) * CONCURRENCY }).collect();
            let routing = route(&dear, &case.demands, &servers, &[Segment { width: 1.0, marginal_seconds: 0.0 }]);
            (routing.unserved.iter().sum::<f64>() <= 1e-9 * demand).then_some(1.0 - routing.network / demand)
        };
        let zones = case.allowed(case.most(8).iter().sum::<u32>().min(8), 8).iter().map(|placement| case.zones_used(placement)).max().unwrap_or(0);
        let fewest = (1..=8_u32).find(|replicas| {
            case.allowed(*replicas, *replicas).iter().any(|placement| {
                case.zones_used(placement) >= zones.min(case.least_zones)
                    && within(placement).is_some_and(|within| within >= level.share - 1e-9)
            })
        });
        if found.met {
            let counts: Vec<u32> = case.names().iter().map(|node| found.plan.replicas_on(node)).collect();
            let replicas = found.plan.total_replicas();
            prop_assert!(case.allowed(replicas, replicas).contains(&counts), "{counts:?}");
            prop_assert!(within(&counts).is_some_and(|within| within >= level.share - 1e-6));
        }
        prop_assert_eq!(found.met.then(|| found.plan.total_replicas()), fewest);
    }
}
