//! One bench per algorithm, on the made-up networks of the scorecard at sizes of a usual cluster.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use placement::latency::completion::Completion;
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
use placement::latency::{PairState, PairStats};
use placement::plan::explain::explain;
use placement::plan::trace::{TraceInputs, replay};
use placement::plan::{MoveHistory, Stability};
use placement::problem::many::{Claim, ResourceAmounts, plan_many};
use placement::problem::{CostModel, Segment, ServiceLevel, ServingCurve};
use placement::routing::FactoredWeights;
use placement::routing::{Server, route};
use placement::score::{AppGraph, Call, Order};
use placement::{CostMatrix, CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, Problem, WeightMatrix, score};

const NODES: usize = 100;

fn names() -> Vec<NodeName> {
    (0..NODES).map(|number| NodeName::new(format!("n{number:03}"))).collect()
}

fn network() -> SyntheticNetwork {
    SyntheticNetwork::new(Shape { sites: 10, nodes_per_site: NODES / 10, ..Shape::default() }, 1)
}

fn costs() -> CostMatrix {
    let network = network();
    CostMatrix::new(names(), Array2::from_shape_fn((NODES, NODES), |(from, to)| network.rtt_seconds(from, to)))
}

fn demand(total: f64, seed: u64) -> Demand {
    Demand::from_concurrency(names().into_iter().zip(zipf_demand(NODES, total, &mut Random::new(seed)))).unwrap()
}

fn problem() -> Problem {
    Problem::new("service", costs(), 10, 10.0)
        .with_demand(demand(75.0, 2))
        .with_capacities(names().into_iter().map(|node| NodeCapacity::new(node, 3)))
        .with_serving(ServingCurve::flat(0.004).unwrap())
}

fn plans(criterion: &mut Criterion) {
    let problem = problem();
    criterion.bench_function("plan/local-first", |bench| bench.iter(|| black_box(&problem).solve()));
    let uniform = problem.clone().with_model(CostModel::Uniform);
    criterion.bench_function("plan/uniform", |bench| bench.iter(|| black_box(&uniform).solve()));
    let spread = problem.clone().with_zones(names().into_iter().enumerate().map(|(at, node)| (node, format!("z{}", at % 10))), 5);
    criterion.bench_function("plan/zones", |bench| bench.iter(|| black_box(&spread).solve()));
    // Few enough nodes that the best plan in so many zones is proven.
    let few = Problem::new("service", costs(), 10, 10.0)
        .with_demand(Demand::from_concurrency(names().into_iter().step_by(9).map(|node| (node, 6.0))).unwrap())
        .with_capacities(names().into_iter().take(12).map(|node| NodeCapacity::new(node, 3)))
        .with_zones(names().into_iter().enumerate().map(|(at, node)| (node, format!("z{}", at % 4))), 4);
    criterion.bench_function("plan/zones-proven", |bench| bench.iter(|| black_box(&few).solve()));
    let level = ServiceLevel { share: 0.95, seconds: 0.030 };
    criterion.bench_function("plan/service-level", |bench| bench.iter(|| black_box(&problem).fewest_replicas(level, 1..=40)));
    let running = problem.clone().with_running(problem.solve().unwrap().replicas).with_demand(demand(75.0, 3));
    criterion.bench_function("plan/stability", |bench| {
        bench.iter(|| Stability::default().choose(black_box(&running), &MoveHistory::default()));
    });
    let plan = problem.solve().unwrap();
    criterion.bench_function("explain", |bench| bench.iter(|| explain(black_box(&problem), &plan)));
    let inputs = TraceInputs { time_seconds: 0.0, problem, stability: None, history: MoveHistory::default() };
    let line = inputs.decide().unwrap().to_line().unwrap();
    criterion.bench_function("trace/replay", |bench| bench.iter(|| replay(black_box(&line)).map(|found| found.len()).ok()));
}

/// The search that branches for its bound: half a second and more.
fn thorough(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("thorough");
    group.sample_size(10);
    let problem = problem().searching_thoroughly();
    group.bench_function("plan", |bench| bench.iter(|| black_box(&problem).solve()));
    group.finish();
}

fn flows(criterion: &mut Criterion) {
    let network = network();
    let costs = Array2::from_shape_fn((NODES, NODES), |(node, source)| network.rtt_seconds(source, node));
    let supplies = zipf_demand(NODES, 75.0, &mut Random::new(2));
    let servers: Vec<Server> = (0..10).map(|row| Server { row: row * 10, capacity: 10.0 }).collect();
    let flat = [Segment { width: 1.0, marginal_seconds: 0.004 }];
    criterion.bench_function("flow/route", |bench| bench.iter(|| route(black_box(&costs), &supplies, &servers, &flat)));
}

fn many(criterion: &mut Criterion) {
    let claims: Vec<Claim> = (0..20)
        .map(|service| Claim {
            problem: problem().with_demand(demand(75.0, service)),
            needs: ResourceAmounts::from([("cpu".to_owned(), 500)]),
            priority: 0,
        })
        .collect();
    let free: BTreeMap<NodeName, ResourceAmounts> =
        names().into_iter().map(|node| (node, ResourceAmounts::from([("cpu".to_owned(), 2000)]))).collect();
    criterion
        .bench_function("plan/many", |bench| bench.iter(|| plan_many(black_box(&claims), &free).map(|plans| plans.plans.len())));
}

fn matrices(criterion: &mut Criterion) {
    let network = network();
    let mut matrix = LatencyMatrix::new(names()).unwrap();
    let mut random = Random::new(4);
    let mut measured = Vec::new();
    for (at, from) in names().iter().enumerate() {
        for _ in 0..16 {
            let to = random.below(NODES);
            let seconds = network.measured_seconds(at, to, 0);
            measured.push((at, to, seconds));
            matrix.set(from, &names()[to], PairState::Known(PairStats::constant(seconds))).unwrap();
        }
    }
    criterion.bench_function("matrix/costs", |bench| bench.iter(|| CostPolicy::default().costs(black_box(&matrix))));
    let labels: Vec<Option<u32>> = (0..NODES).map(|node| u32::try_from(network.site(node)).ok()).collect();
    criterion.bench_function("completion/sites", |bench| bench.iter(|| Completion::new(&labels, measured.iter().copied(), [])));
    let unlabelled = vec![None; NODES];
    criterion.bench_function("completion/coordinates", |bench| {
        bench.iter(|| Completion::new(&unlabelled, measured.iter().copied(), []));
    });
}

fn weights_and_scores(criterion: &mut Criterion) {
    let (all, costs, problem) = (names(), costs(), problem());
    let plan = problem.solve().unwrap();
    criterion.bench_function("weights/assigned", |bench| bench.iter(|| WeightMatrix::assigned(&all, black_box(&plan), &costs)));
    let serving = plan.replicas.keys().cloned().collect();
    criterion.bench_function("weights/inverse-response-time", |bench| {
        bench.iter(|| WeightMatrix::inverse_response_time(&all, &serving, black_box(&costs), 0.004));
    });
    let network = network();
    let sites = Completion::new(
        &(0..NODES).map(|node| u32::try_from(network.site(node)).ok()).collect::<Vec<_>>(),
        (0..NODES)
            .flat_map(|from| (0..NODES).map(move |to| (from, to)))
            .map(|(from, to)| (from, to, network.rtt_seconds(from, to))),
        [],
    )
    .site_costs(names());
    criterion.bench_function("weights/factored", |bench| bench.iter(|| FactoredWeights::new(black_box(&sites), &serving, 0.004)));
    let asked = demand(75.0, 5);
    criterion.bench_function("score/demand", |bench| bench.iter(|| score::for_demand(&all, black_box(&costs), &asked, 0.004)));
    let graph = AppGraph::new(
        (0..20).map(|workload| format!("w{workload}")),
        (1..20).map(|to| Call { from: format!("w{}", to / 2), to: format!("w{to}"), max_cost: 0.02 }),
    )
    .unwrap();
    criterion.bench_function("app-graph/order", |bench| {
        bench.iter(|| black_box(&graph).order(Order::AlternateKahn).map_or(0, |order| order.len()));
    });
    let near = score::PlacedDependency { node: 0, max_cost: 0.02 };
    criterion.bench_function("score/requirements", |bench| bench.iter(|| score::requirements(black_box(&sites), &[near])));
    let pods = (0..20).map(|workload| (format!("w{workload}"), vec![workload * 3, workload * 4])).collect();
    let placed = graph.placed_dependencies("w1", &pods);
    criterion.bench_function("score/dependencies", |bench| bench.iter(|| score::for_dependencies(black_box(&sites), &placed)));
}

criterion_group!(benches, plans, thorough, flows, many, matrices, weights_and_scores);
criterion_main!(benches);
