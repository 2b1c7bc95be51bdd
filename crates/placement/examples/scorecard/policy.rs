//! Quality of what surrounds a plan: service levels at the fewest replicas, and calm under noise.

use anyhow::Result;
use ndarray::Array2;
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
use placement::plan::{MoveHistory, Stability, Verdict};
use placement::problem::{Segment, ServiceLevel, ServingCurve};
use placement::routing::{Server, route};
use placement::{CostMatrix, Demand, NodeCapacity, Problem};

use crate::data::names;
use crate::report::{Goal, line, note};

/// Replicas for a p95 target against brute force over every placement and every reach of every
/// node, on small random instances.
pub(crate) fn service_levels(instances: usize) -> Result<()> {
    let mut random = Random::new(17);
    let (mut ours, mut best, mut worst, mut missed, mut compared) = (0_u32, 0_u32, 1.0_f64, 0, 0);
    for _ in 0..instances {
        let size = 3 + random.below(3);
        let seconds =
            Array2::from_shape_fn((size, size), |(from, to)| if from == to { 0.0 } else { random.between(0.001, 0.08) });
        let shares: Vec<f64> = (0..size).map(|_| random.between(0.2, 5.0)).collect();
        let limits: Vec<u32> = (0..size).map(|_| 1 + random.below(3) as u32).collect();
        let curve = if random.unit() < 0.4 { ServingCurve::flat(0.004)? } else { ServingCurve::queue(0.004, 4)? };
        let level = ServiceLevel { share: 0.95, seconds: random.between(0.006, 0.06) };
        let Some(fewest) = fewest(&seconds, &shares, &limits, &curve, level, 5) else { continue };
        let all = names(size);
        let found = Problem::new("service", CostMatrix::new(all.clone(), seconds), 0, 4.0)
            .with_demand(Demand::from_concurrency(all.iter().cloned().zip(shares))?)
            .with_capacities(all.iter().zip(&limits).map(|(node, limit)| NodeCapacity::new(node.clone(), *limit)))
            .with_serving(curve)
            .fewest_replicas(level, 1..=limits.iter().sum())?;
        compared += 1;
        if !found.met {
            missed += 1;
            continue;
        }
        let replicas = found.plan.total_replicas();
        ours += replicas;
        best += fewest;
        worst = worst.max(f64::from(replicas) / f64::from(fewest));
    }
    // The worst single instance counts; one for which no answer was found where there is one counts
    // as twice the replicas.
    let ratio = if missed > 0 { worst.max(2.0) } else { worst };
    line("slo_replicas_ratio", ratio, "x", Goal::AtMost(1.1));
    note(&format!(
        "slo: {compared} instances with an answer of at most 5 replicas, {missed} not met by us, {best} replicas at best, {ours} ours"
    ));
    Ok(())
}

/// The fewest replicas, up to `most`, by trying everything; none if more are needed.
fn fewest(
    seconds: &Array2<f64>,
    shares: &[f64],
    limits: &[u32],
    curve: &ServingCurve,
    level: ServiceLevel,
    most: u32,
) -> Option<u32> {
    let demand: f64 = shares.iter().sum();
    let costs = seconds.t().to_owned();
    for replicas in 1..=most {
        if f64::from(replicas) * 4.0 < demand {
            continue;
        }
        let mut met = false;
        crate::planning::each_placement(limits, replicas, &mut Vec::new(), &mut |placement| {
            met = met || reaches(&costs, shares, placement, curve, level, 0, &mut vec![f64::NEG_INFINITY; limits.len()]);
        });
        if met {
            return Some(replicas);
        }
    }
    None
}

/// Whether some reach per node (the longest way that it still answers in time) serves enough.
fn reaches(
    costs: &Array2<f64>,
    shares: &[f64],
    placement: &[u32],
    curve: &ServingCurve,
    level: ServiceLevel,
    node: usize,
    reach: &mut Vec<f64>,
) -> bool {
    if node == placement.len() {
        let mut dear = costs.clone();
        for ((row, _), cost) in dear.indexed_iter_mut() {
            *cost = f64::from(u8::from(*cost > reach[row] + 1e-12));
        }
        let servers: Vec<Server> = (placement.iter().enumerate())
            .map(|(row, count)| Server {
                row,
                capacity: f64::from(*count) * 4.0 * utilisation(curve, level.seconds - reach[row]),
            })
            .collect();
        let routing = route(&dear, shares, &servers, &[Segment { width: 1.0, marginal_seconds: 0.0 }]);
        let demand: f64 = shares.iter().sum();
        return routing.unserved.iter().sum::<f64>() <= 1e-9 && routing.network <= (1.0 - level.share) * demand + 1e-9;
    }
    let choices: Vec<f64> = if placement[node] == 0 {
        vec![f64::NEG_INFINITY]
    } else {
        costs.row(node).iter().copied().filter(|cost| *cost <= level.seconds).chain([f64::NEG_INFINITY]).collect()
    };
    choices.into_iter().any(|choice| {
        reach[node] = choice;
        reaches(costs, shares, placement, curve, level, node + 1, reach)
    })
}

/// The highest utilisation at which serving takes at most so long; 0 if none.
fn utilisation(curve: &ServingCurve, seconds: f64) -> f64 {
    (0..=1000).rev().map(|step| f64::from(step) / 1000.0).find(|step| curve.mean_seconds(*step) <= seconds).unwrap_or(0.0)
}

/// Moves per service in ten minutes of decisions every ten seconds on round trips that stray by up
/// to 10 % each time.
pub(crate) fn moves() -> Result<()> {
    let network = SyntheticNetwork::new(Shape { sites: 20, nodes_per_site: 3, ..Shape::default() }, 51);
    let size = network.nodes();
    let all = names(size);
    let stability = Stability::default();
    let (mut most, mut sum) = (0, 0);
    let services = 12;
    for service in 0..services {
        let mut random = Random::new(900 + service);
        let replicas = [1, 2, 4, 8][service as usize % 4];
        let demand =
            Demand::from_concurrency(all.iter().cloned().zip(zipf_demand(size, 7.0 * f64::from(replicas), &mut random)))?;
        let mut running = std::collections::BTreeMap::new();
        let (mut moves, mut last) = (0, None);
        for decision in 0..=60 {
            let cells =
                Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to) * random.between(0.9, 1.1));
            let problem = Problem::new(format!("service{service}"), CostMatrix::new(all.clone(), cells), replicas, 10.0)
                .with_demand(demand.clone())
                .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                .with_serving(ServingCurve::flat(0.004)?)
                .with_running(running.clone());
            let now = f64::from(decision) * 10.0;
            let history = MoveHistory { since_last_seconds: last.map(|last: f64| now - last), moves_in_window: moves };
            let (plan, verdict) = stability.choose(&problem, &history)?;
            if decision > 0 && matches!(verdict, Verdict::Moved | Verdict::MovedPartly | Verdict::Forced) {
                moves += plan.cost.starts;
                last = Some(now);
            }
            running = plan.replicas;
        }
        most = most.max(moves);
        sum += moves;
    }
    line("moves_noise", f64::from(most), "moves", Goal::AtMost(1.0));
    note(&format!("moves_noise: {sum} moves of {services} services in 10 minutes, the restless most {most}"));
    Ok(())
}
