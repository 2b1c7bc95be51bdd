//! Part of the way from one plan to a better one.

use crate::plan::{Plan, Proof};
use crate::problem::{CostModel, Problem};
use crate::solver::posed::Posed;
use crate::solver::search::Found;
use crate::solver::solve::{assemble, routed};
use crate::solver::{uniform, zones};

/// Applies at most `moves` of the moves that lead from plan `from` to plan `to`: again and again
/// the one that lowers the objective most, as long as one does and enough zones stay in use.
pub(crate) fn toward(problem: &Problem, from: &Plan, to: &Plan, moves: u32) -> Plan {
    let posed = Posed::new(problem);
    let total = |placement: &[u32]| match problem.model {
        CostModel::LocalFirst => posed.instance.total(placement),
        CostModel::Uniform => uniform::total(&posed.instance, placement),
    };
    let counts = |plan: &Plan| -> Vec<u32> { posed.nodes.iter().map(|node| plan.replicas_on(node)).collect() };
    let (mut placement, goal) = (counts(from), counts(to));
    let mut now = total(&placement);
    for _ in 0..moves {
        let mut best: Option<(f64, Vec<u32>)> = None;
        for less in (0..goal.len()).filter(|node| placement[*node] > goal[*node]) {
            for more in (0..goal.len()).filter(|node| placement[*node] < goal[*node]) {
                let mut moved = placement.clone();
                moved[less] -= 1;
                moved[more] += 1;
                let total = total(&moved);
                let better = best.as_ref().map_or(now - posed.instance.tolerance(now), |(best, _)| *best);
                if total < better && zones::allows(&posed, problem, &moved, &placement) {
                    best = Some((total, moved));
                }
            }
        }
        let Some((total, moved)) = best else { break };
        (now, placement) = (total, moved);
    }
    let lower_bound = match to.proof {
        Proof::Optimal => to.cost.objective,
        Proof::AtLeast { objective } => objective,
    };
    let routed = routed(&posed, problem, &placement);
    let found = Found { placement, total: now, lower_bound: lower_bound.min(now), proven: false };
    assemble(&posed, problem, &found, &routed)
}
