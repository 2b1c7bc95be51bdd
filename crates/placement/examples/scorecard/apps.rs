//! Whole applications: how good plans are, and what they gain over placing pod by pod.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ndarray::Array2;
use placement::apps::{AppPlan, Application, Workload};
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
use placement::plan::Proof;
use placement::score::{AppGraph, Call, Order, Place, TableCost, TopologyCosts, for_dependencies, requirements};
use placement::{CostMatrix, NodeName};

use crate::data::names;
use crate::report::{Goal, line, note};
use crate::timing::fastest;

/// An application by numbers: who calls whom how often, and where demand enters workload 0.
struct Shop {
    costs: Array2<f64>,
    workloads: usize,
    /// Caller, called, calls per request; callers come before what they call.
    calls: Vec<(usize, usize, f64)>,
    /// Requests per second by place.
    rates: Vec<(usize, f64)>,
    /// What each workload needs and what each place has, in millicores.
    room: Option<(Vec<u64>, u64)>,
}

fn workload(at: usize) -> String {
    format!("w{at:02}")
}

impl Shop {
    /// A random tree of calls, and so many more calls across it.
    fn random(costs: Array2<f64>, workloads: usize, across: usize, random: &mut Random) -> Self {
        let mut calls: Vec<(usize, usize, f64)> =
            (1..workloads).map(|called| (random.below(called.min(12)), called, random.between(0.2, 2.0))).collect();
        for _ in 0..across {
            let called = 1 + random.below(workloads - 1);
            calls.push((random.below(called), called, random.between(0.2, 2.0)));
        }
        let mut order: Vec<usize> = (0..costs.nrows()).collect();
        random.shuffle(&mut order);
        let sources = costs.nrows().min(10);
        let rates = order.into_iter().zip(zipf_demand(sources, 100.0, random)).collect();
        Self { costs, workloads, calls, rates, room: None }
    }

    fn application(&self, fixed: Option<&[usize]>) -> Application {
        let nodes = names(self.costs.nrows());
        let mut app = Application::new("app", CostMatrix::new(nodes.clone(), self.costs.clone()))
            .with_demand(workload(0), self.rates.iter().map(|(place, rate)| (nodes[*place].clone(), *rate)));
        let cpu = |amount: u64| BTreeMap::from([("cpu".to_owned(), amount)]);
        for at in 0..self.workloads {
            let needs = self.room.as_ref().map_or(0, |(needs, _)| needs[at]);
            let allowed: Vec<NodeName> = fixed.map(|labels| nodes[labels[at]].clone()).into_iter().collect();
            app = app.with_workload(Workload { needs: cpu(needs), allowed, ..Workload::named(workload(at)) });
        }
        for (from, to, calls) in &self.calls {
            app = app.with_calls(workload(*from), workload(*to), *calls, 0.0);
        }
        match self.room {
            Some((_, room)) => app.with_room(nodes.into_iter().map(|node| (node, cpu(room)))),
            None => app,
        }
    }

    /// Requests per second of each workload.
    fn loads(&self) -> Vec<f64> {
        let mut loads = vec![0.0; self.workloads];
        loads[0] = self.demand();
        let mut calls = self.calls.clone();
        calls.sort_by_key(|call| call.0);
        for (from, to, per_request) in calls {
            loads[to] += loads[from] * per_request;
        }
        loads
    }

    fn demand(&self) -> f64 {
        self.rates.iter().map(|(_, rate)| rate).sum()
    }

    /// The mean response of a placement, from the definition.
    fn response(&self, labels: &[usize]) -> f64 {
        let loads = self.loads();
        let entry: f64 = self.rates.iter().map(|(source, rate)| rate * self.costs[(*source, labels[0])]).sum();
        let calls = self.calls.iter().map(|(from, to, calls)| loads[*from] * calls * self.costs[(labels[*from], labels[*to])]);
        (entry + calls.sum::<f64>()) / self.demand()
    }

    fn has_room(&self, labels: &[usize]) -> bool {
        let Some((needs, room)) = &self.room else { return true };
        let mut used = vec![0; self.costs.nrows()];
        labels.iter().zip(needs).for_each(|(place, need)| used[*place] += need);
        used.iter().all(|used| used <= room)
    }

    fn brute_force(&self) -> f64 {
        let places = self.costs.nrows();
        let labels = |number: usize| (0..self.workloads).map(move |at| number / places.pow(at as u32) % places);
        let all = (0..places.pow(self.workloads as u32)).map(|number| labels(number).collect::<Vec<_>>());
        all.filter(|labels| self.has_room(labels)).map(|labels| self.response(&labels)).fold(f64::INFINITY, f64::min)
    }

    /// The least mean response of a tree, by the plainest dynamic programming.
    fn tree_optimum(&self) -> f64 {
        let (places, loads) = (self.costs.nrows(), self.loads());
        let mut sums = vec![vec![0.0; places]; self.workloads];
        for (from, to, calls) in self.calls.iter().rev() {
            let called = sums[*to].clone();
            for (place, sum) in sums[*from].iter_mut().enumerate() {
                let there = called.iter().enumerate().map(|(at, cost)| cost + loads[*from] * calls * self.costs[(place, at)]);
                *sum += there.fold(f64::INFINITY, f64::min);
            }
        }
        let entry = |place: usize| -> f64 { self.rates.iter().map(|(source, rate)| rate * self.costs[(*source, place)]).sum() };
        (0..places).map(|place| sums[0][place] + entry(place)).fold(f64::INFINITY, f64::min) / self.demand()
    }
}

fn sites(count: usize, seed: u64) -> Array2<f64> {
    let network = SyntheticNetwork::new(Shape { sites: count, nodes_per_site: 1, ..Shape::default() }, seed);
    Array2::from_shape_fn((count, count), |(from, to)| network.measured_seconds(from, to, 0))
}

fn above(value: f64, least: f64) -> f64 {
    if least > 0.0 { 100.0 * (value / least - 1.0).max(0.0) } else { 0.0 }
}

/// Trees, against all placements of small ones and plain dynamic programming for large ones; other
/// graphs, against all placements of small ones and the plan's own bound for large ones.
pub(crate) fn gaps() -> Result<()> {
    let mut random = Random::new(91);
    let (mut tree, mut graph, mut small, mut limited) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    for seed in 0..100 {
        let shop = Shop::random(sites(5, seed), 5, 0, &mut random);
        tree = tree.max(above(shop.application(None).solve()?.response_seconds, shop.brute_force()));
        let mut shop = Shop::random(sites(5, seed), 5, 4, &mut random);
        small = small.max(above(shop.application(None).solve()?.response_seconds, shop.brute_force()));
        shop.room = Some((needs(5, &mut random), 2_000));
        limited = limited.max(above(shop.application(None).solve()?.response_seconds, shop.brute_force()));
    }
    let mut slowest = 0.0_f64;
    for seed in 0..10 {
        let shop = Shop::random(sites(100, 100 + seed), 50, 0, &mut random);
        let app = shop.application(None);
        tree = tree.max(above(app.solve()?.response_seconds, shop.tree_optimum()));
        slowest = slowest.max(fastest(1, || drop(app.solve())).0);
    }
    line("app_tree_gap_pct", tree, "%", Goal::AtMost(1e-6));
    note(&format!("app_tree: 50 services x 100 sites in {:.1} ms, the slowest of ten", slowest * 1e3));
    let (mut slowest, mut ours, mut loose) = (0.0_f64, 0.0, 0.0);
    for seed in 0..10 {
        let mut shop = Shop::random(sites(100, 200 + seed), 50, 25, &mut random);
        for room in [None, Some(4_000)] {
            shop.room = room.map(|room| (needs(50, &mut random), room));
            let start = std::time::Instant::now();
            let plan = shop.application(None).solve()?;
            slowest = slowest.max(start.elapsed().as_secs_f64());
            match (plan.proof, room) {
                (_, Some(_)) => ours += plan.response_seconds,
                (Proof::Optimal, None) => loose += plan.response_seconds,
                (Proof::AtLeast { objective }, None) => {
                    graph = graph.max(above(plan.objective_seconds, objective));
                    loose += plan.response_seconds;
                }
            }
        }
    }
    line("app_graph_gap_pct", graph.max(small).max(limited), "%", Goal::AtMost(3.0));
    note(&format!(
        "app_graph: 50 services with 25 calls across their tree, 100 sites: {graph:.3} % above the bound, slowest {slowest:.2} s; 5 services x 5 sites above the best of all: {small:.4} %, with room for two of them a site {limited:.4} %; 50 services with room for about four a site: mean response {:.1} ms, with room for all {:.1} ms (the bound is far below)",
        ours * 100.0,
        loose * 100.0
    ));
    Ok(())
}

fn needs(workloads: usize, random: &mut Random) -> Vec<u64> {
    (0..workloads).map(|_| 500 + 250 * random.below(5) as u64).collect()
}

/// Online Boutique, the demo shop that such comparisons use: caller, called, calls per request.
const BOUTIQUE: [(usize, usize, f64); 14] = [
    (0, 1, 0.3),  // frontend -> checkout
    (0, 2, 0.9),  // frontend -> recommendation
    (0, 3, 1.0),  // frontend -> ad
    (0, 4, 1.2),  // frontend -> cart
    (0, 5, 2.0),  // frontend -> product catalogue
    (0, 6, 1.5),  // frontend -> currency
    (0, 7, 0.4),  // frontend -> shipping
    (1, 4, 2.0),  // checkout -> cart
    (1, 6, 2.0),  // checkout -> currency
    (1, 8, 1.0),  // checkout -> payment
    (1, 9, 1.0),  // checkout -> email
    (1, 7, 2.0),  // checkout -> shipping
    (2, 5, 1.0),  // recommendation -> product catalogue
    (4, 10, 1.0), // cart -> redis
];

/// Our plan against the network-aware scheduler plugins, re-enacted by their published meaning: pod
/// by pod in the order of the AppGroup; nodes without room or where more dependencies are violated
/// than satisfied are filtered out; the least sum of zone costs to the placed dependencies wins,
/// equals at random. Both know the same latencies; the plugins as whole milliseconds between zones.
pub(crate) fn against_diktyo() -> Result<()> {
    let mut random = Random::new(93);
    let (mut ours, mut sums) = (0.0, BTreeMap::<&str, f64>::new());
    let orders = [
        ("kahn", Order::Kahn),
        ("tarjan", Order::Tarjan),
        ("reverse kahn", Order::ReverseKahn),
        ("reverse tarjan", Order::ReverseTarjan),
        ("alternate kahn", Order::AlternateKahn),
        ("alternate tarjan", Order::AlternateTarjan),
    ];
    for round in 0..12 {
        let network = SyntheticNetwork::new(Shape { sites: 20, nodes_per_site: 5, ..Shape::default() }, 300 + round);
        let size = network.nodes();
        let costs = Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to));
        let mut shop = if round % 2 == 0 {
            let mut shop = Shop::random(costs, 11, 0, &mut random);
            shop.calls = BOUTIQUE.to_vec();
            shop
        } else {
            Shop::random(costs, 20, 6, &mut random)
        };
        shop.room = Some((needs(shop.workloads, &mut random), 4_000));
        let plan = shop.application(None).solve()?;
        ours += plan.response_seconds;
        for (name, order) in orders {
            let mut mean = 0.0;
            for _ in 0..5 {
                let labels = pod_by_pod(&shop, &network, order, &mut random)?;
                let same: AppPlan = shop.application(Some(&labels)).solve()?;
                mean += same.response_seconds / 5.0;
            }
            *sums.entry(name).or_default() += mean;
        }
    }
    let best = sums.values().copied().fold(f64::INFINITY, f64::min);
    line("app_vs_diktyo", ours / best, "x", Goal::AtMost(0.6));
    let each: Vec<String> = sums.iter().map(|(name, sum)| format!("{name} {:.1}", sum / 12.0 * 1e3)).collect();
    note(&format!("app_vs_diktyo: mean response {:.1} ms; pod by pod, by order: {} ms", ours / 12.0 * 1e3, each.join(", ")));
    Ok(())
}

fn pod_by_pod(shop: &Shop, network: &SyntheticNetwork, order: Order, random: &mut Random) -> Result<Vec<usize>> {
    let call = |(from, to, _): &(usize, usize, f64)| Call { from: workload(*from), to: workload(*to), max_cost: 60.0 };
    let graph = AppGraph::new((0..shop.workloads).map(workload), shop.calls.iter().map(call))?;
    let zone = |site: usize| format!("z{site}");
    let places: Vec<Place> =
        (0..network.nodes()).map(|node| Place { region: "r".to_owned(), zone: zone(network.site(node)) }).collect();
    let count = network.nodes() / 5;
    let pairs = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
    let cost = |one: usize, other: usize| (1e3 * network.site_seconds(one, other)).round().max(1.0);
    let zones: Vec<TableCost> =
        pairs.map(|(one, other)| TableCost { origin: zone(one), destination: zone(other), cost: cost(one, other) }).collect();
    let tables = TopologyCosts::new(&places, &[], &zones);
    let (needs, room) = shop.room.as_ref().context("failed to place pod by pod: no room is given")?;
    let mut free = vec![*room; network.nodes()];
    let mut pods: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut labels = vec![0; shop.workloads];
    for name in graph.order(order)? {
        let at: usize = name[1..].parse()?;
        let placed = graph.placed_dependencies(name, &pods);
        let scores = for_dependencies(&tables, &placed);
        let near = requirements(&tables, &placed);
        let fits = |node: &usize| free[*node] >= needs[at];
        let mut open: Vec<usize> = (0..free.len()).filter(fits).filter(|node| near[*node].fits()).collect();
        if open.is_empty() {
            // The plugins would leave it pending.
            open = (0..free.len()).filter(fits).collect();
        }
        let most = open.iter().map(|node| scores[*node]).max().context("failed to place pod by pod: no node has room")?;
        open.retain(|node| scores[*node] == most);
        let node = open[random.below(open.len())];
        free[node] -= needs[at];
        labels[at] = node;
        pods.insert(name.to_owned(), vec![node]);
    }
    Ok(labels)
}
