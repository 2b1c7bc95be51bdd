//! The reasons behind a plan, as data.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, UnplacedReason};
use crate::problem::{CostModel, Problem};
use crate::solver::posed::Posed;
use crate::solver::zones;
use latency_matrix::NodeName;

/// Why replicas are on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The node.
    pub node: NodeName,
    /// Replicas there.
    pub replicas: u32,
    /// Demand x network seconds of what is served there.
    pub network: f64,
    /// Demand x serving seconds of what is served there.
    pub serving: f64,
    /// What starting its new replicas costs, in the same unit.
    pub moves: f64,
    /// Where one of its replicas would go otherwise; none if there is no room elsewhere, or none
    /// that leaves enough zones in use.
    pub runner_up: Option<NodeName>,
    /// How much worse the whole plan would then be, in the same unit.
    pub margin: Option<f64>,
}

/// Why no replica is on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// It may not or cannot have one.
    Blocked(UnplacedReason),
    /// With a replica there instead of on the least useful node, the plan would be worse by this
    /// much (demand x seconds).
    Costlier(f64),
    /// No replica can be taken from another node for it: none is there, or it would leave a zone
    /// empty that counts.
    NothingToMove,
}

/// A plan explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Nodes with replicas, in name order.
    pub chosen: Vec<Chosen>,
    /// Nodes without.
    pub left_out: BTreeMap<NodeName, LeftOut>,
}

/// One line per node, in name order of those with replicas and then of those without. Differences
/// are demand x seconds of the whole plan.
///
/// ```
/// use placement::plan::explain::{Explanation, LeftOut};
///
/// let explanation = Explanation {
///     chosen: Vec::new(),
///     left_out: [("far".into(), LeftOut::Costlier(0.04))].into(),
/// };
/// let line = "far: no replica; one here instead of elsewhere would add 0.040000";
/// assert_eq!(explanation.to_string(), format!("{line} demand x seconds\n"));
/// ```
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chosen in &self.chosen {
            let Chosen { node, replicas, network, serving, .. } = chosen;
            write!(f, "{node}: {replicas} replicas; network {network:.6}, serving {serving:.6} demand x seconds; ")?;
            match (&chosen.runner_up, chosen.margin) {
                (Some(other), Some(margin)) => writeln!(f, "one of them on {other} instead would add {margin:.6}")?,
                _ => writeln!(f, "none of them can be elsewhere")?,
            }
        }
        for (node, reason) in &self.left_out {
            write!(f, "{node}: no replica; ")?;
            match reason {
                LeftOut::Blocked(reason) => writeln!(f, "{reason}")?,
                LeftOut::Costlier(margin) => {
                    writeln!(f, "one here instead of elsewhere would add {margin:.6} demand x seconds")?;
                }
                LeftOut::NothingToMove => writeln!(f, "none can be taken from another node for it")?,
            }
        }
        Ok(())
    }
}

/// Explains a plan of this problem. Each alternative is priced exactly, by routing all demand
/// again, so on `n` nodes with `r` in use this costs `n x r` routings: meant for a human who asks,
/// not for every decision.
///
/// ```
/// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
/// use placement::plan::explain::explain;
///
/// let nodes: Vec<NodeName> = vec!["a".into(), "b".into()];
/// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.020], [0.020, 0.0]]);
/// let problem = Problem::new("hello", costs, 1, 10.0)
///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 3)))
///     .with_demand(Demand::from_concurrency([("b".into(), 2.0)])?);
/// let explanation = explain(&problem, &problem.solve()?);
/// assert_eq!(explanation.chosen[0].node, "b".into());
/// assert_eq!(explanation.chosen[0].runner_up, Some("a".into()));
/// // two requests, 20 ms each
/// assert!((explanation.chosen[0].margin.unwrap_or(0.0) - 0.040).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn explain(problem: &Problem, plan: &Plan) -> Explanation {
    let posed = Posed::new(problem);
    let placement: Vec<u32> = posed.nodes.iter().map(|node| plan.replicas_on(node)).collect();
    let base = total(&posed, problem, &placement);
    let mut chosen = Vec::new();
    let mut cheapest: BTreeMap<usize, f64> = BTreeMap::new();
    for (node, count) in placement.iter().enumerate().filter(|(_, count)| **count > 0) {
        let mut best: Option<(usize, f64)> = None;
        let open = |other: &usize| *other != node && placement[*other] < posed.instance.limits[*other];
        let held = *count <= posed.instance.floors[node];
        for other in (0..placement.len()).filter(|other| !held && open(other)) {
            let mut moved = placement.clone();
            moved[node] -= 1;
            moved[other] += 1;
            if !zones::allows(&posed, problem, &moved, &placement) {
                continue;
            }
            let margin = total(&posed, problem, &moved) - base;
            if best.is_none_or(|best| margin < best.1) {
                best = Some((other, margin));
            }
            let least = cheapest.entry(other).or_insert(f64::INFINITY);
            *least = least.min(margin);
        }
        let name = posed.nodes[node];
        let flows = plan.flows.iter().filter(|flow| flow.node == *name);
        let load = plan.load_on(name);
        let started = count.saturating_sub(posed.instance.running[node]);
        chosen.push(Chosen {
            node: name.clone(),
            replicas: *count,
            network: flows.map(|flow| flow.concurrency * problem.costs.seconds(&flow.source, name)).sum(),
            serving: load * problem.serving.mean_seconds(load / (f64::from(*count) * plan.replica_capacity)),
            moves: f64::from(started) * posed.instance.start_cost,
            runner_up: best.map(|(other, _)| posed.nodes[other].clone()),
            margin: best.map(|(_, margin)| margin),
        });
    }
    chosen.sort_by(|one, other| one.node.cmp(&other.node));
    let left_out = (0..placement.len()).filter(|node| placement[*node] == 0).map(|node| {
        let reason = if posed.instance.limits[node] == 0 {
            LeftOut::Blocked(posed.block(problem, node))
        } else {
            cheapest.get(&node).map_or(LeftOut::NothingToMove, |margin| LeftOut::Costlier(*margin))
        };
        (posed.nodes[node].clone(), reason)
    });
    Explanation { left_out: left_out.collect(), chosen }
}

fn total(posed: &Posed<'_>, problem: &Problem, placement: &[u32]) -> f64 {
    match problem.model {
        CostModel::LocalFirst => posed.instance.total(placement),
        CostModel::Uniform => crate::solver::uniform::total(&posed.instance, placement),
    }
}
