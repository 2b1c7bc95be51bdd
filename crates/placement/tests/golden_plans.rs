//! Plans are the same to the last bit, on every target and at every level of optimisation: their
//! hashes are in `golden/plans.txt`. Costs come from whole numbers, so that no library for
//! logarithms or roots has a say. `KANTAI_BLESS=1` writes the hashes down again.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use ndarray::Array2;
use placement::apps::{Application, Workload};
use placement::latency::SiteCosts;
use placement::plan::Planner;
use placement::problem::{CostModel, Segment, ServiceLevel, ServingCurve};
use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem, WeightMatrix};
use serde::Serialize;

fn names(count: usize) -> Vec<NodeName> {
    (0..count).map(|number| NodeName::new(format!("n{number:04}"))).collect()
}

/// Seconds between two places on a torus of whole numbers.
fn seconds(from: usize, to: usize) -> f64 {
    let place = |node: usize| ((node * 37 + node * node * 11) % 211, (node * 53 + node * node * 7) % 199);
    let ((x, y), (other_x, other_y)) = (place(from), place(to));
    if from == to { 0.0 } else { (x.abs_diff(other_x) + y.abs_diff(other_y) + 1) as f64 / 4096.0 }
}

fn costs(nodes: usize) -> CostMatrix {
    CostMatrix::new(names(nodes), Array2::from_shape_fn((nodes, nodes), |(from, to)| seconds(from, to)))
}

fn demand(nodes: usize, sources: usize) -> Demand {
    let sources = (0..sources).map(|at| (at * 7919 % nodes, (1 + at * 31 % 17) as f64 / 4.0));
    Demand::from_concurrency(sources.map(|(node, demand)| (names(nodes)[node].clone(), demand))).unwrap()
}

fn problem(nodes: usize, sources: usize, replicas: u32) -> Problem {
    Problem::new("golden", costs(nodes), replicas, 4.0)
        .with_demand(demand(nodes, sources))
        .with_capacities(names(nodes).into_iter().enumerate().map(|(at, node)| NodeCapacity::new(node, 1 + at as u32 % 3)))
        .with_serving(ServingCurve::flat(0.004).unwrap())
}

/// 64-bit FNV-1a of a value as JSON with every digit.
fn hash(value: &impl Serialize) -> u64 {
    let text = serde_json::to_string(value).unwrap();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn hashes() -> String {
    let mut lines = String::new();
    let mut add = |name: &str, hash: u64| writeln!(lines, "{name} {hash:016x}").unwrap();
    add("exact", hash(&problem(10, 10, 6).solve().unwrap()));
    add("some", hash(&problem(60, 40, 20).solve().unwrap()));
    add("many", hash(&problem(300, 120, 60).solve().unwrap()));
    add("large", hash(&problem(1500, 80, 50).solve().unwrap()));
    add("large idle", hash(&problem(1500, 80, 50).with_demand(Demand::default()).solve().unwrap()));
    let running = names(300).into_iter().step_by(3).map(|node| (node, 1));
    add("fewer", hash(&problem(300, 120, 40).with_running(running).with_move_seconds(0.002).solve().unwrap()));
    add("uniform", hash(&problem(60, 40, 20).with_model(CostModel::Uniform).solve().unwrap()));
    let zones = names(60).into_iter().enumerate().map(|(at, node)| (node, format!("z{}", at % 5)));
    add("zones", hash(&problem(60, 40, 20).with_zones(zones, 4).with_node_share(0.1).solve().unwrap()));
    let busy = [
        Segment { width: 0.5, marginal_seconds: 0.002 },
        Segment { width: 0.3, marginal_seconds: 0.008 },
        Segment { width: 0.2, marginal_seconds: 0.03 },
    ];
    add("busy", hash(&problem(60, 40, 30).with_serving(ServingCurve::from_segments(busy.to_vec()).unwrap()).solve().unwrap()));
    let level = ServiceLevel { share: 0.95, seconds: 0.03 };
    add("level", hash(&problem(40, 20, 20).fewest_replicas(level, 1..=40).unwrap()));
    let plan = problem(60, 40, 20).solve().unwrap();
    add("weights", hash(&WeightMatrix::assigned(&names(60), &plan, &costs(60))));
    let sites = SiteCosts::new(
        names(2000),
        (0..2000).map(|node| node % 50).collect(),
        Array2::from_shape_fn((50, 50), |(one, other)| if one == other { 1.0 / 8192.0 } else { seconds(one, other) }),
        (0..2000).map(|node| (node * 29 % 64) as f64 / 1_048_576.0).collect(),
    );
    let by_site = Problem::new("golden", sites, 40, 4.0)
        .with_demand(demand(2000, 60))
        .with_capacities(names(2000).into_iter().map(|node| NodeCapacity::new(node, 2)));
    add("sites", hash(&by_site.solve().unwrap()));
    let mut planner = Planner::new();
    for (step, replicas) in [50, 52, 49].into_iter().enumerate() {
        add(&format!("planner {step}"), hash(&planner.plan(&problem(1500, 80, replicas)).unwrap()));
    }
    let mut app = Application::new("golden", costs(30)).with_demand("w0", [("n0003".into(), 8.0), ("n0017".into(), 2.0)]);
    for workload in 0..9_usize {
        app = app.with_workload(Workload { needs: [("cpu".to_owned(), 1)].into(), ..Workload::named(format!("w{workload}")) });
        if workload > 0 {
            app = app.with_calls(format!("w{}", workload * 5 / 7), format!("w{workload}"), 1.0 + workload as f64 / 8.0, 0.0);
        }
    }
    app = app.with_calls("w1", "w8", 0.5, 0.0).with_calls("w2", "w7", 0.75, 0.0);
    add("application", hash(&app.solve().unwrap()));
    let room = names(30).into_iter().map(|node| (node, [("cpu".to_owned(), 2)].into()));
    add("application with room", hash(&app.with_room(room).solve().unwrap()));
    lines
}

#[test]
fn plans_are_equal_to_the_last_bit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.txt");
    let found = hashes();
    if std::env::var_os("KANTAI_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "a plan has changed; if that is meant, run with KANTAI_BLESS=1");
}
