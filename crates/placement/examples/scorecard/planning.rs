//! Quality and speed of plans for one service.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ndarray::Array2;
use placement::latency::SiteCosts;
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
use placement::plan::{Planner, Proof};
use placement::problem::many::{Claim, ResourceAmounts, plan_many as plan_many_services};
use placement::problem::{Segment, ServingCurve};
use placement::routing::{Server, route};
use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Plan, Problem};

use crate::data::{costs, names};
use crate::linear::Program;
use crate::report::{Goal, line, note, progress};
use crate::timing::fastest;

fn demand(values: &[f64]) -> Result<Demand> {
    Ok(Demand::from_concurrency(names(values.len()).into_iter().zip(values.iter().copied()))?)
}

/// A plan for 100 replicas over 5,000 nodes with demand from 100 of them.
pub(crate) fn plan_5k() -> Result<()> {
    let network = SyntheticNetwork::new(Shape::default(), 5);
    let size = network.nodes();
    let seconds = Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to));
    let costs = costs(&seconds);
    drop(seconds);
    let mut random = Random::new(11);
    let all = names(size);
    let shares = zipf_demand(100, 1000.0, &mut random);
    let mut order: Vec<usize> = (0..size).collect();
    random.shuffle(&mut order);
    let problem = |shares: &[f64]| -> Result<Problem> {
        let demand = Demand::from_concurrency(order.iter().map(|node| all[*node].clone()).zip(shares.iter().copied()))?;
        Ok(Problem::new("service", costs.clone(), 100, 13.0)
            .with_demand(demand)
            .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)))
            .with_serving(ServingCurve::flat(0.004)?))
    };
    let drifted = |step: usize, random: &mut Random| -> Vec<f64> {
        shares.iter().map(|share| if step == 0 { *share } else { share * random.between(0.9, 1.1) }).collect()
    };
    let cold = problem(&shares)?;
    let plan = cold.solve()?;
    let (best, median) = fastest(9, || {
        black_box(black_box(&cold).solve().ok());
    });
    line("plan_5k_ms", best * 1e3, "ms", Goal::AtMost(2.0));
    note(&format!(
        "plan_5k: median {:.1} ms; mean network {:.3} ms, gap {:.2} %",
        median * 1e3,
        plan.cost.network_seconds * 1e3,
        100.0 * gap(&plan)
    ));
    // Decisions that follow each other, each on a little other demand.
    let mut planner = Planner::new();
    let mut times = Vec::new();
    for step in 0..12 {
        let problem = problem(&drifted(step, &mut random))?;
        let start = Instant::now();
        let plan = planner.plan(&problem)?;
        times.push(start.elapsed().as_secs_f64());
        if step == 11 {
            times.sort_by(f64::total_cmp);
            line("plan_5k_warm_ms", times[times.len() / 2] * 1e3, "ms", Goal::AtMost(0.4));
            note(&format!(
                "plan_5k_warm: from the decision before, the median of 12; the fastest {:.2} ms, gap of the last {:.2} %",
                times[0] * 1e3,
                100.0 * gap(&plan)
            ));
        }
    }
    Ok(())
}

/// 200 services of 10 replicas over 1,000 nodes that they share.
pub(crate) fn plan_many() -> Result<()> {
    let network = SyntheticNetwork::new(Shape { sites: 40, nodes_per_site: 25, ..Shape::default() }, 61);
    let size = network.nodes();
    let all = names(size);
    let costs = CostMatrix::new(all.clone(), Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to)));
    let mut random = Random::new(62);
    let mut claims = Vec::new();
    for service in 0..200 {
        let mut order: Vec<usize> = (0..size).collect();
        random.shuffle(&mut order);
        let demand =
            Demand::from_concurrency(order.iter().map(|node| all[*node].clone()).zip(zipf_demand(20, 75.0, &mut random)))?;
        let problem = Problem::new(format!("service{service}"), costs.clone(), 10, 10.0)
            .with_demand(demand)
            .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)));
        let needs = [("cpu".to_owned(), 250 + 250 * random.below(4) as u64)].into();
        claims.push(Claim { problem, needs, priority: random.below(3) as i32 });
    }
    let free: BTreeMap<NodeName, ResourceAmounts> =
        all.iter().map(|node| (node.clone(), [("cpu".to_owned(), 2500), ("pods".to_owned(), 8)].into())).collect();
    let plans = plan_many_services(&claims, &free)?;
    let (best, median) = fastest(3, || {
        black_box(plan_many_services(black_box(&claims), &free).ok());
    });
    line("plan_many_ms", best * 1e3, "ms", Goal::AtMost(50.0));
    let placed: u32 = plans.plans.iter().map(Plan::total_replicas).sum();
    let mean: f64 = plans.plans.iter().map(|plan| plan.cost.network_seconds).sum::<f64>() / 200.0;
    note(&format!("plan_many: median {:.0} ms; {placed} of 2000 placed, mean network {:.2} ms", median * 1e3, mean * 1e3));
    Ok(())
}

/// 100 replicas over 50,000 nodes in 300 sites, whose costs are never a matrix.
fn large() -> Result<Problem> {
    let network = SyntheticNetwork::new(Shape { sites: 300, nodes_per_site: 167, ..Shape::default() }, 9);
    let size = network.nodes();
    let all = names(size);
    let costs = SiteCosts::new(
        all.clone(),
        (0..size).map(|node| network.site(node)).collect(),
        Array2::from_shape_fn((300, 300), |(one, other)| network.site_seconds(one, other)),
        (0..size).map(|node| network.access_seconds(node)).collect(),
    );
    let mut random = Random::new(12);
    let shares = zipf_demand(100, 1000.0, &mut random);
    let demand = Demand::from_concurrency(shares.into_iter().map(|share| (all[random.below(size)].clone(), share)))?;
    Ok(Problem::new("service", costs, 100, 13.0)
        .with_demand(demand)
        .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)))
        .with_serving(ServingCurve::flat(0.004)?))
}

/// What planning over 50,000 nodes takes in time, and, in a process of its own, in memory.
pub(crate) fn plan_50k() -> Result<()> {
    let problem = large()?;
    let plan = problem.solve()?;
    let (best, _) = fastest(3, || {
        black_box(black_box(&problem).solve().ok());
    });
    line("plan_50k_ms", best * 1e3, "ms", Goal::AtMost(50.0));
    line("plan_50k_gap_pct", 100.0 * gap(&plan), "%", Goal::AtMost(5.0));
    note(&format!("plan_50k: mean network {:.3} ms", plan.cost.network_seconds * 1e3));
    let output = Command::new(std::env::current_exe()?).arg(PEAK).output()?;
    ensure!(output.status.success(), "failed to plan in a process of its own: {}", String::from_utf8_lossy(&output.stderr));
    let peak_kib: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    line("rss_50k_mib", peak_kib / 1024.0, "MiB", Goal::AtMost(64.0));
    Ok(())
}

/// The argument that asks for [`peak`].
pub(crate) const PEAK: &str = "--peak-of-plan-50k";

/// Plans over 50,000 nodes and prints the most memory that this process has held, KiB.
pub(crate) fn peak() -> Result<()> {
    black_box(large()?.solve()?);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    println!("{}", peak.context("failed to find VmHWM in /proc/self/status")?.trim());
    Ok(())
}

/// How far the objective may be above the optimum, relative.
fn gap(plan: &Plan) -> f64 {
    match plan.proof {
        Proof::Optimal => 0.0,
        Proof::AtLeast { objective } => plan.cost.objective / objective - 1.0,
    }
}

/// The worst gap to brute force over small random instances.
pub(crate) fn small_gap(instances: usize) -> Result<()> {
    let mut random = Random::new(3);
    let mut worst: f64 = 0.0;
    let mut unproven = 0;
    let mut slowest: f64 = 0.0;
    for _ in 0..instances {
        let size = 2 + random.below(11);
        let replicas = 1 + random.below(if size > 8 { 3 } else { 5 }) as u32;
        let seconds =
            Array2::from_shape_fn((size, size), |(from, to)| if from == to { 0.0 } else { random.between(0.0005, 0.1) });
        let shares: Vec<f64> = (0..size).map(|_| if random.unit() < 0.3 { 0.0 } else { random.between(0.1, 6.0) }).collect();
        let limits: Vec<u32> = (0..size).map(|_| random.below(4) as u32).collect();
        let total: f64 = shares.iter().sum();
        let room: u32 = limits.iter().sum();
        if total <= 0.0 || room == 0 {
            continue;
        }
        let curve = if random.unit() < 0.5 { ServingCurve::flat(0.004)? } else { ServingCurve::queue(0.004, 4)? };
        let all = names(size);
        let start = Instant::now();
        let plan = Problem::new("service", CostMatrix::new(all.clone(), seconds.clone()), replicas, 4.0)
            .with_demand(demand(&shares)?)
            .with_capacities(all.iter().zip(&limits).map(|(node, limit)| NodeCapacity::new(node.clone(), *limit)))
            .with_serving(curve.clone())
            .with_move_seconds(0.0)
            .solve()?;
        slowest = slowest.max(start.elapsed().as_secs_f64());
        unproven += usize::from(plan.proof != Proof::Optimal);
        let costs = seconds.reversed_axes();
        let mut best = f64::INFINITY;
        each_placement(&limits, replicas.min(room), &mut Vec::new(), &mut |placement| {
            let servers: Vec<Server> = (placement.iter().enumerate())
                .map(|(row, count)| Server { row, capacity: f64::from(*count) * plan.replica_capacity })
                .collect();
            best = best.min(route(&costs, &shares, &servers, curve.segments()).total());
        });
        // Both solutions count as equal within the nanosecond of mean response that the objective
        // is defined to.
        worst = worst.max((plan.cost.objective - best - 2e-9 * total) / best);
    }
    line("small_gap_pct", 100.0 * worst.max(0.0), "%", Goal::AtMost(0.0));
    note(&format!("small_gap: {instances} instances, {unproven} without proof, slowest plan {:.1} ms", slowest * 1e3));
    Ok(())
}

pub(crate) fn each_placement(limits: &[u32], left: u32, placement: &mut Vec<u32>, visit: &mut impl FnMut(&[u32])) {
    if placement.len() == limits.len() {
        if left == 0 {
            visit(placement);
        }
        return;
    }
    for here in 0..=left.min(limits[placement.len()]) {
        placement.push(here);
        each_placement(limits, left - here, placement, visit);
        placement.pop();
    }
}

/// Gap to a linear program's lower bound, and response times against FaaSt weights, on measured
/// latencies.
pub(crate) fn measured(slices: &[Array2<f64>]) -> Result<()> {
    let mut worst_gap: f64 = 0.0;
    let mut worst_fast: f64 = 0.0;
    let mut ratios = Vec::new();
    for (number, seconds) in slices.iter().enumerate() {
        let costs = costs(seconds);
        let all = names(seconds.nrows());
        let by_node = Array2::from_shape_fn(seconds.dim(), |(node, source)| costs.seconds(&all[source], &all[node]));
        for replicas in [10_u32, 30, 100] {
            progress(&format!("slice {} replicas {replicas}", number + 1));
            let mut random = Random::new(u64::from(replicas) + 1000 * number as u64);
            let shares = zipf_demand(all.len(), 10.0 * f64::from(replicas), &mut random);
            let problem = Problem::new("service", costs.clone(), replicas, CONCURRENCY)
                .with_demand(demand(&shares)?)
                .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), MOST)));
            let flat = problem.clone().with_serving(ServingCurve::flat(SERVING)?);
            let start = Instant::now();
            let usual = flat.solve()?;
            let fast = usual.cost.network_seconds + usual.cost.serving_seconds;
            let to_plan_fast = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let plan = flat.searching_thoroughly().solve()?;
            let to_plan = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let program = Program { costs: &by_node, demand: &shares, replicas, limit: MOST, capacity: plan.replica_capacity };
            let bound = program.bound(&prices(&by_node, &shares, &plan, &all));
            let to_bound = start.elapsed().as_secs_f64();
            // Serving takes the same time everywhere, so it is the same on both sides.
            let total: f64 = shares.iter().sum();
            let linear = bound.value / total + SERVING;
            let beyond = |bound: f64, value: f64| if bound > 0.0 { value / bound - 1.0 } else { f64::INFINITY };
            let ours = plan.cost.network_seconds + plan.cost.serving_seconds;
            let unproven = match plan.proof {
                Proof::Optimal => 0.0,
                Proof::AtLeast { objective } => plan.cost.objective / objective - 1.0,
            };
            // Both bounds hold.
            worst_gap = worst_gap.max(beyond(linear, ours).min(unproven));
            let own = ours / (1.0 + unproven);
            worst_fast = worst_fast.max(beyond(linear.max(own), fast));
            note(&format!(
                "slice {} replicas {replicas}: usual search {:.3} ms, gap {:.2} %, planned in {to_plan_fast:.2} s",
                number + 1,
                fast * 1e3,
                100.0 * beyond(linear.max(own), fast)
            ));
            let curve = ServingCurve::queue(SERVING, 13)?;
            let busy = problem.with_serving(curve.clone()).solve()?;
            let queueing = busy.cost.network_seconds + busy.cost.serving_seconds;
            let theirs = faast(&costs, &shares, replicas, CONCURRENCY, &curve);
            ratios.push(theirs / queueing);
            note(&format!(
                "slice {} replicas {replicas}: response {:.3} ms (planned in {to_plan:.1} s), bound {:.3} ms, gap {:.2} % ({} pairs, program {:.3} ms, {to_bound:.1} s; the plan's own bound {:.2} %); with queueing {:.2} ms, FaaSt weights {:.2} ms",
                number + 1,
                ours * 1e3,
                linear * 1e3,
                100.0 * beyond(linear, ours),
                bound.pairs,
                (bound.program / total + SERVING) * 1e3,
                100.0 * unproven,
                queueing * 1e3,
                theirs * 1e3
            ));
        }
    }
    line("lp_gap_pct", 100.0 * worst_gap, "%", Goal::AtMost(1.0));
    line("gap_fast_pct", 100.0 * worst_fast, "%", Goal::AtMost(2.0));
    line("vs_faast_ratio", ratios.iter().copied().fold(f64::INFINITY, f64::min), "x", Goal::AtLeast(2.0));
    Ok(())
}

/// Demand that a replica serves, most replicas on a node, seconds that serving takes.
const CONCURRENCY: f64 = 13.0;
const MOST: u32 = 4;
const SERVING: f64 = 0.004;

/// What one more unit of demand of each source would cost where a plan put its replicas, seconds of
/// network time.
fn prices(costs: &Array2<f64>, shares: &[f64], plan: &Plan, all: &[NodeName]) -> Vec<f64> {
    let servers: Vec<Server> = (0..all.len())
        .map(|row| (row, plan.replicas_on(&all[row])))
        .filter(|(_, count)| *count > 0)
        .map(|(row, count)| Server { row, capacity: f64::from(count) * plan.replica_capacity })
        .collect();
    route(costs, shares, &servers, &[Segment { width: 1.0, marginal_seconds: 0.0 }]).source_prices
}

/// Mean response time with one replica on each of the top-demand nodes and weights
/// `1 / (rtt + serving time)`.
fn faast(costs: &CostMatrix, shares: &[f64], replicas: u32, capacity: f64, curve: &ServingCurve) -> f64 {
    let all = names(shares.len());
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|one, other| shares[*other].total_cmp(&shares[*one]));
    order.truncate(replicas as usize);
    let mut loads = vec![0.0; order.len()];
    let mut network = 0.0;
    for (source, share) in shares.iter().enumerate() {
        let weights: Vec<f64> = order.iter().map(|node| 1.0 / (costs.seconds(&all[source], &all[*node]) + 0.004)).collect();
        let sum: f64 = weights.iter().sum();
        for ((load, weight), node) in loads.iter_mut().zip(&weights).zip(&order) {
            *load += share * weight / sum;
            network += share * weight / sum * costs.seconds(&all[source], &all[*node]);
        }
    }
    let serving: f64 = loads.iter().map(|load| load * curve.mean_seconds(load / capacity)).sum();
    (network + serving) / shares.iter().sum::<f64>()
}
