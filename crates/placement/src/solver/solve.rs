//! From a problem to its plan.

use std::cell::RefCell;

use crate::plan::{Flow, Plan, PlanCost, Proof, Unplaced, Unserved};
use crate::problem::{CostModel, Problem, ProblemError};
use crate::solver::flow::{Routing, Server};
use crate::solver::large::Large;
use crate::solver::posed::Posed;
use crate::solver::search::{self, Found, Hint};
use crate::solver::{uniform, zones};

impl Problem {
    /// The best plan.
    ///
    /// ```
    /// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    /// use placement::plan::Proof;
    ///
    /// // Requests come in at both ends of a line; the middle is 10 ms from either, and one replica
    /// // can serve all.
    /// let nodes: Vec<NodeName> = ["left", "middle", "right"].map(NodeName::from).to_vec();
    /// let costs = CostMatrix::new(
    ///     nodes.clone(),
    ///     ndarray::array![[0.0, 0.01, 0.03], [0.01, 0.0, 0.01], [0.03, 0.01, 0.0]],
    /// );
    /// let problem = Problem::new("hello", costs, 1, 10.0)
    ///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
    ///     .with_demand(Demand::from_concurrency([("left".into(), 4.0), ("right".into(), 4.0)])?);
    /// let plan = problem.solve()?;
    /// // 10 ms for everybody; at an end it would be 15 on average
    /// assert_eq!(plan.replicas_on(&"middle".into()), 1);
    /// assert!((plan.cost.network_seconds - 0.010).abs() < 1e-12);
    /// assert_eq!(plan.proof, Proof::Optimal);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the concurrency of a replica or the move cost is not a sensible number.
    pub fn solve(&self) -> Result<Plan, ProblemError> {
        self.check()?;
        Ok(solve(self))
    }
}

/// The plan of a problem whose numbers make sense, from nothing.
pub(crate) fn solve(problem: &Problem) -> Plan {
    solve_priced(problem).0
}

/// The same, and what a served request of each source is worth.
pub(crate) fn solve_priced(problem: &Problem) -> (Plan, Vec<f64>) {
    if let Some(large) = Large::new(problem, &[]) {
        let (found, worth) = large.search(None);
        if let Some(plan) = large.finish(&found) {
            return (plan, worth);
        }
    }
    // Of a large problem also where replicas found no place: why is said of every node.
    let mut posed = Posed::new(problem);
    let (found, worth) = find_priced(problem, &mut posed, None);
    (finish(problem, &posed, &found), worth)
}

/// The best placement that a search finds, and what a served request of each source is worth.
pub(crate) fn find_priced(problem: &Problem, posed: &mut Posed<'_>, hint: Option<&Hint>) -> (Found, Vec<f64>) {
    let learnt = RefCell::new(vec![0.0; posed.sources.len()]);
    let found = find(problem, posed, |posed| {
        let (found, worth) = search::solve_from(&posed.instance, posed.budget(problem), hint);
        learnt.replace(worth);
        found
    });
    (found, learnt.into_inner())
}

/// The best placement in the required number of zones, where each source is served where it is
/// best;
/// `search` finds it where zones do not matter.
pub(crate) fn find(problem: &Problem, posed: &mut Posed<'_>, search: impl Fn(&Posed<'_>) -> Found) -> Found {
    let mut found = zones::spread(posed, problem, |posed| match problem.model {
        CostModel::LocalFirst => search(posed),
        CostModel::Uniform => {
            let (placement, total) = uniform::solve(&posed.instance);
            Found { placement, total, lower_bound: total, proven: true }
        }
    });
    if posed.cut {
        // What the room left aside could do is not known.
        (found.lower_bound, found.proven) = (0.0, false);
    }
    found
}

/// The plan that a placement makes.
pub(crate) fn finish(problem: &Problem, posed: &Posed<'_>, found: &Found) -> Plan {
    let routed = routed(posed, problem, &found.placement);
    assemble(posed, problem, found, &routed)
}

/// The plan that a placement and its routing make.
pub(crate) fn assemble(posed: &Posed<'_>, problem: &Problem, found: &Found, routed: &Routed) -> Plan {
    let instance = &posed.instance;
    let placed: u32 = found.placement.iter().sum();
    let (demand, load) = if posed.idle { (0.0, 0.0) } else { (instance.demand(), posed.reached) };
    let served: f64 = routed.flows.iter().map(|flow| flow.2).sum();
    let mean = |sum: f64| if served > 0.0 { sum / served } else { 0.0 };
    let starts = found.placement.iter().zip(&instance.running).map(|(count, running)| count.saturating_sub(*running)).sum();
    let mut flows: Vec<Flow> = Vec::new();
    let mut unserved = Vec::new();
    if !posed.idle {
        flows = routed
            .flows
            .iter()
            .map(|(source, node, concurrency)| Flow {
                source: posed.sources[*source].clone(),
                node: posed.nodes[*node].clone(),
                concurrency: *concurrency,
            })
            .collect();
        flows.sort_by(|one, other| (&one.source, &one.node).cmp(&(&other.source, &other.node)));
        let dust = 1e-9 * demand;
        unserved = (posed.sources.iter().zip(&routed.unserved))
            .filter(|(_, left)| **left > dust)
            .map(|(source, left)| Unserved { source: (*source).clone(), concurrency: *left })
            .collect();
    }
    Plan {
        replicas: (posed.nodes.iter().zip(&found.placement))
            .filter(|(_, count)| **count > 0)
            .map(|(node, count)| ((*node).clone(), *count))
            .collect(),
        flows,
        unplaced: unplaced(posed, problem, problem.replicas.saturating_sub(placed)),
        zones_missing: zones::missing(posed, problem, &found.placement),
        unserved,
        below_minimum: posed.below_minimum(&found.placement),
        utilisation: if placed > 0 { load / (f64::from(placed) * problem.replica_concurrency) } else { 0.0 },
        replica_capacity: instance.replica_capacity,
        cost: PlanCost {
            network_seconds: mean(routed.network),
            serving_seconds: mean(routed.serving),
            starts,
            objective: found.total,
        },
        proof: if found.proven { Proof::Optimal } else { Proof::AtLeast { objective: found.lower_bound.max(0.0) } },
    }
}

/// A routing in numbers.
#[derive(Default)]
pub(crate) struct Routed {
    /// Source, node, demand.
    pub(crate) flows: Vec<(usize, usize, f64)>,
    pub(crate) unserved: Vec<f64>,
    /// Sum of demand x network seconds.
    pub(crate) network: f64,
    /// Sum of demand x serving seconds.
    pub(crate) serving: f64,
}

/// Who is served where under a placement.
pub(crate) fn routed(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> Routed {
    match problem.model {
        CostModel::LocalFirst => local_first(posed, placement),
        CostModel::Uniform => spread(posed, problem, placement),
    }
}

fn local_first(posed: &Posed<'_>, placement: &[u32]) -> Routed {
    let (servers, routing) = posed.instance.route(placement);
    Routed::new(&servers, routing)
}

impl Routed {
    pub(crate) fn new(servers: &[Server], routing: Routing) -> Self {
        let flows = servers
            .iter()
            .zip(&routing.tenants)
            .flat_map(|(server, tenants)| tenants.iter().map(|(source, concurrency)| (*source, server.row, *concurrency)));
        Self { flows: flows.collect(), network: routing.network, serving: routing.serving, unserved: routing.unserved }
    }
}

fn spread(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> Routed {
    let instance = &posed.instance;
    let placed = f64::from(placement.iter().sum::<u32>());
    let mut routed = Routed { unserved: instance.supplies.clone(), ..Routed::default() };
    if placed == 0.0 {
        return routed;
    }
    for (node, count) in placement.iter().enumerate().filter(|(_, count)| **count > 0) {
        for (source, supply) in instance.supplies.iter().enumerate() {
            let cost = instance.costs[(node, source)];
            if cost.is_finite() {
                let concurrency = supply * f64::from(*count) / placed;
                routed.flows.push((source, node, concurrency));
                routed.unserved[source] -= concurrency;
                routed.network += concurrency * cost;
            }
        }
    }
    let served: f64 = routed.flows.iter().map(|flow| flow.2).sum();
    routed.serving = served * problem.serving.mean_seconds(served / (placed * instance.replica_capacity));
    routed
}

fn unplaced(posed: &Posed<'_>, problem: &Problem, replicas: u32) -> Option<Unplaced> {
    let reasons = || (0..posed.nodes.len()).map(|node| (posed.nodes[node].clone(), posed.block(problem, node))).collect();
    (replicas > 0).then(|| Unplaced { replicas, reasons: reasons() })
}
