//! Speed where plans used to fall off a cliff: fewer replicas, services without demand, and
//! not enough room.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Result;
use ndarray::Array2;
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
use placement::problem::ServingCurve;
use placement::problem::many::{Claim, ResourceAmounts, plan_many};
use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Plan, Problem};

use crate::data::names;
use crate::report::note;
use crate::timing::fastest;

/// From 300 replicas to 100 on 490 nodes that are all sources.
pub(crate) fn scale_down() -> Result<()> {
    let network = SyntheticNetwork::new(Shape { sites: 49, nodes_per_site: 10, ..Shape::default() }, 71);
    let size = network.nodes();
    let all = names(size);
    let costs = CostMatrix::new(all.clone(), Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to)));
    let problem = |replicas: u32, running: BTreeMap<NodeName, u32>| -> Result<Problem> {
        let shares = zipf_demand(size, 10.0 * f64::from(replicas), &mut Random::new(72));
        Ok(Problem::new("service", costs.clone(), replicas, 13.0)
            .with_demand(Demand::from_concurrency(all.iter().cloned().zip(shares))?)
            .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)))
            .with_serving(ServingCurve::flat(0.004)?)
            .with_running(running))
    };
    let before = problem(300, BTreeMap::new())?.solve()?;
    let fewer = problem(100, before.replicas)?;
    let plan = fewer.solve()?;
    let (best, _) = fastest(2, || {
        black_box(black_box(&fewer).solve().ok());
    });
    note(&format!(
        "speed scale_down: {:.1} ms; mean network {:.3} ms, {} starts",
        best * 1e3,
        plan.cost.network_seconds * 1e3,
        plan.cost.starts
    ));
    Ok(())
}

/// 200 services on 1,000 nodes: none has demand; or all of one priority, and room for two thirds
/// of them.
pub(crate) fn many() -> Result<()> {
    let network = SyntheticNetwork::new(Shape { sites: 40, nodes_per_site: 25, ..Shape::default() }, 61);
    let size = network.nodes();
    let all = names(size);
    let costs = CostMatrix::new(all.clone(), Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to)));
    let claims = |asked: bool| -> Result<Vec<Claim>> {
        let mut random = Random::new(62);
        let mut claims = Vec::new();
        for service in 0..200 {
            let mut order: Vec<usize> = (0..size).collect();
            random.shuffle(&mut order);
            let shares = zipf_demand(20, 75.0, &mut random);
            let demand = order.iter().map(|node| all[*node].clone()).zip(shares);
            let demand = if asked { Demand::from_concurrency(demand)? } else { Demand::default() };
            let problem = Problem::new(format!("service{service}"), costs.clone(), if asked { 10 } else { 1 }, 10.0)
                .with_demand(demand)
                .with_capacities(all.iter().map(|node| NodeCapacity::new(node.clone(), 4)));
            claims.push(Claim { problem, needs: [("cpu".to_owned(), 1000)].into(), priority: 0 });
        }
        Ok(claims)
    };
    let free = |pods: u64, nodes: usize| -> BTreeMap<NodeName, ResourceAmounts> {
        let node = |node: &NodeName| (node.clone(), [("cpu".to_owned(), 2500), ("pods".to_owned(), pods)].into());
        all.iter().take(nodes).map(node).collect()
    };
    for (id, asked, nodes) in [("many_idle", false, size), ("many_short", true, 650)] {
        let (claims, free) = (claims(asked)?, free(8, nodes));
        let plans = plan_many(&claims, &free)?;
        let (best, _) = fastest(2, || {
            black_box(plan_many(black_box(&claims), &free).ok());
        });
        let counts: Vec<u32> = plans.plans.iter().map(Plan::total_replicas).collect();
        let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        let placed = counts.iter().sum::<u32>();
        note(&format!("speed {id}: {:.1} ms; {placed} placed, {least} to {most} each", best * 1e3));
    }
    Ok(())
}
