//! The smallest scheduler that embeds `placement`: it knows three edge sites and a cloud, and
//! decides where a video service runs. Fixed numbers, no options.

use placement::latency::{PairState, PairStats};
use placement::{Demand, LatencyMatrix, NodeCapacity, NodeName, Plan, Problem, WeightMatrix, score};

/// What this scheduler knows; a real one measures round trips, counts requests and lists machines.
const ROUND_TRIPS_MS: [(&str, &str, f64); 6] = [
    ("hanoi", "danang", 14.0),
    ("hanoi", "saigon", 32.0),
    ("danang", "saigon", 19.0),
    ("cloud", "hanoi", 58.0),
    ("cloud", "danang", 51.0),
    ("cloud", "saigon", 40.0),
];
const VIEWERS: [(&str, f64); 3] = [("hanoi", 30.0), ("danang", 4.0), ("saigon", 18.0)];
const MACHINES: [(&str, u32); 4] = [("hanoi", 2), ("danang", 1), ("saigon", 2), ("cloud", 50)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nodes: Vec<NodeName> = MACHINES.map(|(name, _)| NodeName::from(name)).to_vec();

    // Measurements -> matrix -> costs.
    let mut matrix = LatencyMatrix::new(nodes.clone())?;
    for (one, other, milliseconds) in ROUND_TRIPS_MS {
        matrix.set_symmetric(&one.into(), &other.into(), PairState::Known(PairStats::constant(milliseconds / 1000.0)))?;
    }
    let costs = placement::CostPolicy::default().costs(&matrix);

    // Demand, room and the number of replicas -> plan. One replica streams to twelve viewers.
    let demand = Demand::from_concurrency(VIEWERS.map(|(name, viewers)| (name.into(), viewers)))?;
    let plan = Problem::new("video", costs.clone(), 5, 12.0)
        .with_demand(demand.clone())
        .with_capacities(MACHINES.map(|(name, room)| NodeCapacity::new(name.into(), room)))
        .with_running([("cloud".into(), 1)])
        .solve()?;
    print_plan(&plan);

    // Plan -> weights for the load balancers, scores for whoever places the next pod.
    let weights = WeightMatrix::assigned(&nodes, &plan, &costs);
    for node in &nodes {
        let targets: Vec<String> = weights.targets(node).map(|(target, weight)| format!("{target} {weight}")).collect();
        println!("requests at {node} -> {}", targets.join(", "));
    }
    println!("scores {:?}", score::for_demand(&nodes, &costs, &demand, 0.004).values().collect::<Vec<_>>());
    Ok(())
}

fn print_plan(plan: &Plan) {
    for (node, count) in &plan.replicas {
        println!("{node}: {count} replicas for {:.1} viewers", plan.load_on(node));
    }
    println!("mean network time {:.2} ms, {:?}", plan.cost.network_seconds * 1000.0, plan.proof);
}
