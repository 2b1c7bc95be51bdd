//! What is tried, and what must hold of every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use latency_matrix::Row;
use placement::apps::{Application, Workload};
use placement::latency::completion::Completion;
use placement::latency::{PairState, PairStats, SiteCosts, Statistic};
use placement::plan::trace::{TraceEntry, TraceInputs, replay};
use placement::plan::{MoveHistory, Planner, Proof, Stability};
use placement::problem::{CostModel, Effort, ProblemSpec, Segment, ServingCurve};
use placement::routing::FactoredWeights;
use placement::score::{PlacedDependency, demand_into, dependencies_into, requirements_into};
use placement::{CostMatrix, CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, Plan, Problem, WeightMatrix};

use crate::input::Input;

type Target = fn(&mut Input<'_>) -> Result<(), String>;

pub(crate) const TARGETS: [(&str, Target); 7] = [
    ("text", text),
    ("trace", trace),
    ("matrix", matrix),
    ("scores", scores),
    ("problem", problem),
    ("planner", planner),
    ("application", application),
];

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

const SPEC: &str = r#"{"version":1,"service":"s","replicas":2,"replica_concurrency":10.0,
"costs":{"nodes":["n0","n1"],"seconds":[[0.0,0.02],[null,0.0]]},
"nodes":[{"node":"n0","max_replicas":3},{"node":"n1","max_replicas":3,"min_replicas":1,"schedulable":false,"excluded":"not_ready"}],
"demand":{"n1":4.0},"running":{"n0":1},"serving":[{"width":1.0,"marginal_seconds":0.004}],"model":"uniform","move_seconds":0.001,
"keep_running":true,"effort":"quick","most_steps":3,"zones":{"n0":"a"},"least_zones":1,"node_share":0.5}"#;
const SITES: &str =
    r#"{"nodes":["n0","n1","n2"],"sites":[0,0,1],"between":[[0.001,0.02],[null,0.001]],"access":[0.0,0.1,-0.001],"cut":[[0,1]]}"#;
const ROW: &str = r#"{"from":"node1","peers":[{"to":"node2","state":"known","age_seconds":0.4,"samples":30,"loss_ratio":0.0,
"jitter_seconds":0.0001,"rtt_seconds":{"min":0.001,"p50":0.0011,"p90":0.0012,"p99":0.002,"ewma":0.0011}},{"to":"node3","state":"unreachable"}]}"#;

/// Specs, costs and rows as text.
fn text(input: &mut Input<'_>) -> Result<(), String> {
    match input.below(3) {
        0 => {
            let bytes = input.mutated(SPEC);
            let Ok(spec) = serde_json::from_slice::<ProblemSpec>(&bytes) else { return Ok(()) };
            // Few nodes, however many replicas: time is bounded, but not for a million inputs.
            if spec.replicas > 100 || spec.nodes.iter().any(|node| node.max_replicas > 100) {
                return Ok(());
            }
            match Problem::try_from(spec) {
                Ok(problem) => problem.solve().map_or(Ok(()), |plan| is_sound(&plan, &problem)),
                Err(_) => Ok(()),
            }
        }
        1 => {
            let bytes = input.mutated(SITES);
            let Ok(costs) = serde_json::from_slice::<SiteCosts>(&bytes) else { return Ok(()) };
            for from in 0..4 {
                for to in 0..4 {
                    let seconds = costs.seconds(from, to);
                    ensure(seconds >= 0.0, "a cost is negative or no number")?;
                }
            }
            let again: SiteCosts = serde_json::to_string(&costs)
                .and_then(|text| serde_json::from_str(&text))
                .map_err(|error| format!("costs cannot be read back: {error}"))?;
            ensure(again == costs, "costs differ when read back")
        }
        _ => {
            let bytes = input.mutated(ROW);
            let Ok(row) = serde_json::from_slice::<Row>(&bytes) else { return Ok(()) };
            let credible =
                |measurement: latency_matrix::Measurement| measurement.state.stats().is_none_or(PairStats::is_credible);
            ensure(row.measurements().all(credible), "a row gives statistics that no link has")
        }
    }
}

/// A line of a trace: a decision about a small problem.
static LINE: LazyLock<Option<String>> = LazyLock::new(|| {
    let problem = Problem::try_from(serde_json::from_str::<ProblemSpec>(SPEC).ok()?).ok()?;
    let inputs =
        TraceInputs { time_seconds: 0.5, problem, stability: Some(Stability::default()), history: MoveHistory::default() };
    inputs.decide().ok()?.to_line().ok()
});

/// Lines of traces.
fn trace(input: &mut Input<'_>) -> Result<(), String> {
    let line = LINE.as_ref().ok_or("a decision cannot be written down")?;
    let bytes = input.mutated(line);
    let text = String::from_utf8_lossy(&bytes);
    if let Ok(TraceEntry { inputs, .. }) = serde_json::from_str::<TraceEntry>(&text) {
        let spec = ProblemSpec::from(&inputs.problem);
        // Few nodes, however many replicas: time is bounded, but not for a million inputs.
        if spec.replicas > 100 || spec.nodes.iter().any(|node| node.max_replicas > 100) {
            return Ok(());
        }
        drop(replay(&text));
        if let Ok(entry) = inputs.decide()
            && let Ok(line) = entry.to_line()
        {
            let differences = replay(&line).map_err(|error| format!("a line cannot be read back: {error}"))?;
            ensure(differences.is_empty(), "a decision differs when it is decided again")?;
        }
    }
    Ok(())
}

fn state(input: &mut Input<'_>) -> PairState {
    let base = input.number(0.2);
    let mut stats = PairStats::constant(base);
    if input.once_in(2) {
        stats = PairStats {
            min: input.number(0.1),
            p50: input.number(0.2),
            p90: input.number(0.3),
            p99: input.number(0.4),
            ewma: input.number(0.2),
            jitter: input.number(0.01),
            loss_ratio: input.number(1.0),
            age_seconds: input.number(100.0),
            samples: input.bits() % 3,
        };
    }
    match input.below(4) {
        0 => PairState::Unknown,
        1 => PairState::Unreachable,
        2 => PairState::Stale(stats),
        _ => PairState::Known(stats),
    }
}

/// Matrices of any numbers, to costs, estimates and weights.
fn matrix(input: &mut Input<'_>) -> Result<(), String> {
    let size = 1 + input.below(5);
    let nodes: Vec<NodeName> = (0..size).map(|node| NodeName::new(format!("n{node}"))).collect();
    let mut matrix = LatencyMatrix::new(nodes.clone()).map_err(|error| error.to_string())?;
    for _ in 0..size * size {
        let state = state(input);
        let (from, to) = (input.name(size + 1), input.name(size + 1));
        drop(matrix.set(&from, &to, state));
    }
    let statistic = Statistic::MeanPlusJitter { jitters: input.number(3.0) };
    let policy = if input.once_in(2) {
        CostPolicy::default()
    } else {
        CostPolicy { statistic, stale_factor: input.number(2.0), loss_seconds: input.number(0.2) }
    };
    let costs = policy.costs(&matrix);
    let sites: Vec<Option<u32>> = (0..input.below(size + 2)).map(|_| input.once_in(2).then(|| input.below(3) as u32)).collect();
    let completion = Completion::of(&matrix, &policy, &sites);
    let completed = completion.costs(&matrix, &policy);
    let by_site = completion.site_costs(nodes.clone());
    for from in 0..size + 1 {
        for to in 0..size + 1 {
            // Who measures a round trip of nothing gets it; who measures nothing does not.
            let is_measured = |from, to| {
                let state = matrix.pairs().get((from, to));
                state.is_some_and(|state| matches!(state, PairState::Known(_) | PairState::Stale(_)))
            };
            let either = is_measured(from, to) || is_measured(to, from);
            for (cost, is_measured) in
                [(costs.at(from, to), either), (completed.at(from, to), either), (by_site.seconds(from, to), false)]
            {
                ensure(cost >= 0.0, "a cost is negative or no number")?;
                ensure(from == to || cost > 0.0 || is_measured, "an unmeasured pair is free")?;
            }
        }
    }
    let with: BTreeSet<NodeName> = (0..input.below(4)).map(|_| input.name(size + 1)).collect();
    let weights = WeightMatrix::inverse_response_time(&nodes, &with, &completed, input.number(0.1));
    ensure(weights.rows().rows().into_iter().all(|row| row.sum() == 100), "a row of weights is not a hundred")?;
    let mut factored = FactoredWeights::new(&by_site, &with, input.number(0.1));
    let row: Vec<f64> = (0..input.below(size + 2)).map(|_| input.number(0.2)).collect();
    factored.set_row(input.below(size + 2), &row);
    for source in 0..size {
        let sum: u32 = factored.row(source).iter().sum();
        ensure(sum == 100 || sum == 0, "a factored row is not a hundred")?;
    }
    Ok(())
}

fn costs(input: &mut Input<'_>, size: usize) -> CostMatrix {
    let cells: Vec<f64> = (0..size * size + input.below(3)).map(|_| input.number(0.1)).collect();
    CostMatrix::from_row_major((0..size).map(|node| NodeName::new(format!("n{node}"))).collect(), cells)
}

/// Scores by position, positions beyond the list and short buffers included.
fn scores(input: &mut Input<'_>) -> Result<(), String> {
    let size = 1 + input.below(5);
    let costs = costs(input, size);
    let mut buffer = vec![0; input.below(6)];
    let best = input.bits() as u8;
    let candidates: Vec<usize> = (0..input.below(6)).map(|_| input.below(size + 2)).collect();
    let placed: Vec<PlacedDependency> =
        (0..input.below(4)).map(|_| PlacedDependency { node: input.below(size + 2), max_cost: input.number(0.1) }).collect();
    dependencies_into(&costs, &placed, &candidates, best, &mut buffer);
    ensure(buffer.iter().all(|score| *score <= best), "a score is above the best")?;
    let sources: Vec<(usize, f64)> = (0..input.below(4)).map(|_| (input.below(size + 2), input.number(5.0))).collect();
    demand_into(&costs, &sources, input.number(0.1), &candidates, best, &mut buffer);
    ensure(buffer.iter().all(|score| *score <= best), "a score is above the best")?;
    let mut found = vec![Default::default(); input.below(6)];
    requirements_into(&costs, &placed, &candidates, &mut found);
    Ok(())
}

fn small_problem(input: &mut Input<'_>, size: usize) -> Option<Problem> {
    let likely = 4 + input.below(3) as u32 * 4;
    let mut demand = Vec::new();
    for _ in 0..input.below(5) {
        demand.push((input.name(size + 1), input.amount(9.0)));
    }
    let mut problem = Problem::new("any", costs(input, size), input.count(likely).min(200), input.number(8.0))
        .with_demand(Demand::from_concurrency(demand).ok()?)
        .with_effort(if input.once_in(2) { Effort::Quick } else { Effort::Usual })
        .with_model(if input.once_in(4) { CostModel::Uniform } else { CostModel::LocalFirst });
    for _ in 0..size {
        let mut capacity = NodeCapacity::new(input.name(size + 1), input.count(4).min(1_000));
        if input.once_in(4) {
            capacity = capacity.at_least(input.count(3));
        }
        capacity.schedulable = !input.once_in(5);
        problem = problem.with_capacities([capacity]);
    }
    if input.once_in(2) {
        let running: Vec<(NodeName, u32)> = (0..input.below(4)).map(|_| (input.name(size + 1), input.count(3))).collect();
        problem = problem.with_running(running).with_move_seconds(input.number(0.01));
    }
    if input.once_in(4) {
        problem = problem.keeping_what_runs();
    }
    if input.once_in(3) {
        let zones: Vec<(NodeName, String)> =
            (0..input.below(6)).map(|_| (input.name(size), format!("z{}", input.below(3)))).collect();
        problem = problem.with_zones(zones, input.count(3));
    }
    if input.once_in(3) {
        problem = problem.with_node_share(input.number(1.0));
    }
    if input.once_in(3) {
        let segments =
            (0..1 + input.below(3)).map(|_| Segment { width: input.number(1.0), marginal_seconds: input.number(0.05) });
        if let Ok(curve) = ServingCurve::from_segments(segments.collect()) {
            problem = problem.with_serving(curve);
        }
    }
    if input.once_in(3) {
        problem = problem.with_most_steps(input.count(5));
    }
    Some(problem)
}

/// What holds of every plan.
fn is_sound(plan: &Plan, problem: &Problem) -> Result<(), String> {
    let cost = &plan.cost;
    let numbers = [cost.network_seconds, cost.serving_seconds, cost.objective, plan.utilisation, plan.replica_capacity];
    ensure(numbers.iter().all(|number| number.is_finite() && *number >= 0.0), "a figure of a plan is no number")?;
    ensure(plan.flows.iter().all(|flow| flow.concurrency.is_finite() && flow.concurrency >= 0.0), "a flow is no number")?;
    if let Proof::AtLeast { objective } = plan.proof {
        ensure(objective <= cost.objective * (1.0 + 1e-9) + 1e-9, "the bound is above the plan")?;
    }
    let spec = ProblemSpec::from(problem);
    let limits: BTreeMap<&NodeName, &NodeCapacity> = spec.nodes.iter().map(|node| (&node.node, node)).collect();
    let mut placed = 0;
    for (node, count) in &plan.replicas {
        let limit = limits.get(node).map_or(0, |capacity| capacity.max_replicas);
        ensure(*count > 0 && *count <= limit, "a node has more replicas than it may have")?;
        placed += u64::from(*count);
    }
    let missing = plan.unplaced.as_ref().map_or(0, |unplaced| unplaced.replicas);
    ensure(placed + u64::from(missing) == u64::from(spec.replicas), "replicas are neither placed nor unplaced")?;
    Ok(())
}

/// Problems by their builder.
fn problem(input: &mut Input<'_>) -> Result<(), String> {
    let size = 1 + input.below(4);
    let Some(problem) = small_problem(input, size) else { return Ok(()) };
    let Ok(plan) = problem.solve() else { return Ok(()) };
    is_sound(&plan, &problem)
}

/// Decisions that follow each other, on problems that have little in common.
fn planner(input: &mut Input<'_>) -> Result<(), String> {
    let mut planner = Planner::new();
    for _ in 0..2 {
        // Enough nodes that it is no matter of trying all.
        let size = 17 + input.below(4);
        let Some(problem) = small_problem(input, size).map(|problem| problem.with_most_steps(3)) else { continue };
        if let Ok(plan) = planner.plan(&problem) {
            is_sound(&plan, &problem)?;
        }
    }
    Ok(())
}

/// Applications by their builder.
fn application(input: &mut Input<'_>) -> Result<(), String> {
    let (size, count) = (1 + input.below(4), 1 + input.below(5));
    let mut app = Application::new("any", costs(input, size));
    for workload in 0..count {
        let running = input.once_in(2).then(|| input.name(size + 1));
        let allowed = if input.once_in(4) { vec![input.name(size + 1)] } else { Vec::new() };
        let needs = [("cpu".to_owned(), u64::from(input.count(4)))].into();
        let serving_seconds = if input.once_in(8) { input.number(0.1) } else { 0.001 };
        app = app.with_workload(Workload { name: format!("w{workload}"), needs, serving_seconds, running, allowed });
    }
    for _ in 0..input.below(7) {
        let (from, to) = (input.below(count), input.below(count));
        let (from, to) = if input.once_in(9) { (to, from) } else { (from.min(to), from.max(to)) };
        app = app.with_calls(format!("w{from}"), format!("w{to}"), input.amount(3.0), input.amount(1e4));
    }
    app = app.with_demand("w0", [(input.name(size + 1), input.amount(50.0)), (input.name(size), input.amount(50.0))]);
    if input.once_in(2) {
        let room: Vec<_> =
            (0..size).map(|_| (input.name(size + 1), [("cpu".to_owned(), u64::from(input.count(9)))].into())).collect();
        app = app.with_room(room);
    }
    app = app.with_move_seconds(input.amount(0.01)).with_seconds_per_byte(input.amount(1e-6));
    let Ok(plan) = app.solve() else { return Ok(()) };
    let numbers = [plan.response_seconds, plan.entry_seconds, plan.call_seconds, plan.objective_seconds];
    ensure(numbers.iter().all(|number| number.is_finite()), "a figure of an application's plan is no number")?;
    ensure(plan.placement.len() + plan.unplaced.len() == count, "a workload is neither placed nor unplaced")?;
    if let Proof::AtLeast { objective } = plan.proof {
        ensure(objective <= plan.objective_seconds * (1.0 + 1e-9) + 1e-9, "the bound is above the plan")?;
    }
    let proposals = app.propose_moves(&plan).map_err(|error| error.to_string())?;
    ensure(proposals.iter().all(|proposal| proposal.gain_seconds.is_finite()), "the gain of a proposal is no number")
}
