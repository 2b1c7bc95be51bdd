//! How much faster plans are than at an earlier commit: both run here, one after the other, on the
//! same problems. Prints `id  value  unit  goal  ok|short`, tab-separated; `#` lines are notes.
//! Arguments choose figures by the beginning of their id.

use std::time::Instant;

/// The cases for one of the two libraries; `$tests` and `$many` are where it has its modules.
macro_rules! cases {
    ($name:ident, $library:ident, $tests:path, $many:path) => {
        mod $name {
            use std::collections::BTreeMap;

            use $library::{CostMatrix, Demand, NodeCapacity, NodeName, Plan, Problem};
            use $many::{Claim, plan_many};
            use $tests::{Network, Random, Shape, zipf_demand};
            use ndarray::Array2;

            use super::{Figure, ServingCurve, seconds};

            fn names(count: usize) -> Vec<NodeName> {
                (0..count).map(|number| NodeName::from(format!("n{number:05}").as_str())).collect()
            }

            fn costs(network: &Network) -> CostMatrix {
                let size = network.nodes();
                CostMatrix::new(names(size), Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to)))
            }

            /// 100 replicas over 5,000 nodes with demand from 100 of them: problems of which each
            /// asks for a little more or less than the others.
            pub(super) fn plan_5k(count: usize) -> Vec<Problem> {
                let network = Network::new(Shape::default(), 5);
                let (all, costs) = (names(network.nodes()), costs(&network));
                let mut random = Random::new(11);
                let shares = zipf_demand(100, 1000.0, &mut random);
                let mut order: Vec<usize> = (0..all.len()).collect();
                random.shuffle(&mut order);
                let mut problems = Vec::new();
                for step in 0..count {
                    let mut drift = |share: &f64| if step == 0 { *share } else { share * random.between(0.9, 1.1) };
                    let asked: Vec<f64> = shares.iter().map(&mut drift).collect();
                    let demand = order.iter().map(|node| all[*node].clone()).zip(asked);
                    problems.push(
                        Problem::new("service", costs.clone(), 100, 13.0)
                            .with_demand(Demand::from_concurrency(demand).expect("demand is sound"))
                            .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)))
                            .with_serving($library::ServingCurve::constant()),
                    );
                }
                problems
            }

            /// From 300 to 100 replicas on 490 nodes that are all sources.
            pub(super) fn scale_down() -> Figure {
                let network = Network::new(Shape { sites: 49, nodes_per_site: 10, ..Shape::default() }, 71);
                let (all, costs) = (names(network.nodes()), costs(&network));
                let problem = |replicas: u32, running: BTreeMap<NodeName, u32>| {
                    let shares = zipf_demand(all.len(), 10.0 * f64::from(replicas), &mut Random::new(72));
                    Problem::new("service", costs.clone(), replicas, 13.0)
                        .with_demand(Demand::from_concurrency(all.iter().cloned().zip(shares)).expect("demand is sound"))
                        .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)))
                        .with_serving($library::ServingCurve::constant())
                        .with_running(running)
                };
                let before = problem(300, BTreeMap::new()).solve().expect("the problem is sound");
                let fewer = problem(100, before.replicas);
                let (seconds, plan) = seconds(|| fewer.solve().expect("the problem is sound"));
                Figure { seconds, network_seconds: plan.cost.network_seconds, placed: plan.total_replicas() }
            }

            /// 200 services on 1,000 nodes: without demand; or with room for two thirds of them.
            pub(super) fn many(is_idle: bool) -> Figure {
                let network = Network::new(Shape { sites: 40, nodes_per_site: 25, ..Shape::default() }, 61);
                let (all, costs) = (names(network.nodes()), costs(&network));
                let mut random = Random::new(62);
                let mut claims = Vec::new();
                for service in 0..200 {
                    let mut order: Vec<usize> = (0..all.len()).collect();
                    random.shuffle(&mut order);
                    let shares = zipf_demand(20, 75.0, &mut random);
                    let demand = order.iter().map(|node| all[*node].clone()).zip(shares);
                    let demand = if is_idle { Ok(Demand::default()) } else { Demand::from_concurrency(demand) };
                    let problem = Problem::new(format!("service{service}"), costs.clone(), if is_idle { 1 } else { 10 }, 10.0)
                        .with_demand(demand.expect("demand is sound"))
                        .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)));
                    claims.push(Claim { problem, needs: [("cpu".to_owned(), 1000)].into(), priority: 0 });
                }
                let nodes = if is_idle { all.len() } else { 650 };
                let free = all.iter().take(nodes).map(|node| {
                    (node.clone(), [("cpu".to_owned(), 2500), ("pods".to_owned(), 8)].into_iter().collect())
                });
                let free = free.collect();
                let (seconds, plans) = seconds(|| plan_many(&claims, &free).expect("the problems are sound"));
                let sum: f64 = plans.plans.iter().map(|plan| plan.cost.network_seconds).sum();
                let placed = plans.plans.iter().map(Plan::total_replicas).sum();
                Figure { seconds, network_seconds: sum / plans.plans.len() as f64, placed }
            }
        }
    };
}

cases!(earlier, before, before::synthetic, before::many);
cases!(now, ours, ours::latency::synthetic, ours::problem::many);

/// A serving time that does not depend on the load, 4 ms, in either library.
trait ServingCurve {
    fn constant() -> Self;
}

impl ServingCurve for before::ServingCurve {
    fn constant() -> Self {
        Self::flat(0.004).expect("4 ms is a serving time")
    }
}

impl ServingCurve for ours::ServingCurve {
    fn constant() -> Self {
        Self::flat(0.004).expect("4 ms is a serving time")
    }
}

/// What a case took, and what came of it.
struct Figure {
    seconds: f64,
    network_seconds: f64,
    placed: u32,
}

/// How long something takes: the shortest of two runs, of which a long one is not repeated.
fn seconds<T>(run: impl Fn() -> T) -> (f64, T) {
    let time = || {
        let start = Instant::now();
        let found = run();
        (start.elapsed().as_secs_f64(), found)
    };
    let first = time();
    if first.0 > 5.0 {
        return first;
    }
    let second = time();
    if second.0 < first.0 { second } else { first }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(id: &str, goal: f64, earlier: &Figure, now: &Figure) {
    let ratio = earlier.seconds / now.seconds;
    let verdict = if ratio >= goal { "ok" } else { "short" };
    println!("vs_before_{id}\t{ratio:.2}\tx\t>= {goal}\t{verdict}");
    let part = |figure: &Figure| {
        let (seconds, network) = (figure.seconds * 1e3, figure.network_seconds * 1e3);
        format!("{seconds:.2} ms, {} placed, mean network {network:.3} ms", figure.placed)
    };
    println!("# {id}: earlier {}; now {}", part(earlier), part(now));
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |id: &str| chosen.is_empty() || chosen.iter().any(|prefix| id.starts_with(prefix.as_str()));
    if wanted("plan_5k") {
        const STEPS: usize = 11;
        let (earlier, now) = (earlier::plan_5k(STEPS), now::plan_5k(STEPS));
        let (mut old, mut cold, mut warm) = (Vec::new(), Vec::new(), Vec::new());
        let mut planner = ours::plan::Planner::new();
        let mut networks = [0.0; 3];
        for (earlier, now) in earlier.iter().zip(&now) {
            let (seconds, plan) = seconds(|| earlier.solve().expect("the problem is sound"));
            old.push(seconds);
            networks[0] += plan.cost.network_seconds / STEPS as f64;
            let (seconds, plan) = self::seconds(|| now.solve().expect("the problem is sound"));
            cold.push(seconds);
            networks[1] += plan.cost.network_seconds / STEPS as f64;
            let start = Instant::now();
            let plan = planner.plan(now).expect("the problem is sound");
            warm.push(start.elapsed().as_secs_f64());
            networks[2] += plan.cost.network_seconds / STEPS as f64;
        }
        let figure = |times, network_seconds| Figure { seconds: median(times), network_seconds, placed: 100 };
        let old = figure(old, networks[0]);
        print("plan_5k_cold", 4.0, &old, &figure(cold, networks[1]));
        print("plan_5k_warm", 20.0, &old, &figure(warm, networks[2]));
    }
    if wanted("scale_down") {
        print("scale_down", 50.0, &earlier::scale_down(), &now::scale_down());
    }
    if wanted("many_idle") {
        print("many_idle", 100.0, &earlier::many(true), &now::many(true));
    }
    if wanted("many_short") {
        print("many_short", 20.0, &earlier::many(false), &now::many(false));
    }
}
