//! Moves that lead from where an application runs to a better plan, one after the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::Model;
use super::{AppError, AppPlan, Application};
use crate::latency::NodeName;
use crate::solver::flow::UNSERVED_SECONDS;

/// One workload that is to run elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The workload.
    pub workload: String,
    /// Where it runs.
    pub from: NodeName,
    /// Where it is to run.
    pub to: NodeName,
}

/// Moves that are worth it together, after those of the proposals before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// One move, or several of which none is worth it or has room alone.
    pub moves: Vec<Move>,
    /// Seconds of mean response time that they gain.
    pub gain_seconds: f64,
    /// Seconds that they cost: the application's move seconds, for each.
    pub cost_seconds: f64,
}

impl Application {
    /// The moves from where the workloads run to where a plan has them, as proposals: first the
    /// move that gains most, given the ones before, while there is room; then what only gains
    /// together. A workload that does not run yet counts where the plan has it. Proposals that gain
    /// less than they cost are left out.
    ///
    /// ```
    /// use placement::apps::{Application, Workload};
    /// use placement::{CostMatrix, NodeName};
    ///
    /// let nodes = ["edge", "cloud"].map(NodeName::from).to_vec();
    /// let costs = CostMatrix::new(nodes, ndarray::array![[0.0, 0.020], [0.020, 0.0]]);
    /// let at = |name: &str, node: &str| Workload {
    ///     running: Some(node.into()),
    ///     ..Workload::named(name)
    /// };
    /// let shop = Application::new("shop", costs)
    ///     .with_workload(at("front", "cloud"))
    ///     .with_workload(at("cart", "cloud"))
    ///     .with_calls("front", "cart", 2.0, 0.0)
    ///     .with_demand("front", [("edge".into(), 100.0)])
    ///     .with_move_seconds(0.001);
    /// let proposals = shop.propose_moves(&shop.solve()?)?;
    /// // The front end alone would be nearer to its users and twice as far from the cart.
    /// assert_eq!(proposals.len(), 1);
    /// assert_eq!(proposals[0].moves.len(), 2);
    /// assert!((proposals[0].gain_seconds - 0.020).abs() < 1e-9);
    /// assert!((proposals[0].cost_seconds - 0.002).abs() < 1e-9);
    /// # Ok::<(), placement::apps::AppError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Application::solve`].
    pub fn propose_moves(&self, plan: &AppPlan) -> Result<Vec<Proposal>, AppError> {
        let model = Model::new(self)?;
        let at: BTreeMap<&NodeName, usize> =
            model.places.iter().enumerate().map(|(label, place)| (&self.costs.nodes()[*place], label)).collect();
        let placed: Vec<(usize, usize)> = (self.workloads.iter().enumerate())
            .filter_map(|(workload, described)| Some((workload, *at.get(plan.placement.get(&described.name)?)?)))
            .collect();
        let kept: Vec<usize> = placed.iter().map(|(workload, _)| *workload).collect();
        let goal: Vec<usize> = placed.iter().map(|(_, label)| *label).collect();
        let model = model.keeping(&kept);
        let mut labels: Vec<usize> = model.running.iter().zip(&goal).map(|(running, goal)| running.unwrap_or(*goal)).collect();
        let describe = |moved: &[usize], labels: &[usize]| -> Vec<Move> {
            let node = |label: usize| self.costs.nodes()[model.places[label]].clone();
            let name = |workload: usize| self.workloads[kept[workload]].name.clone();
            moved.iter().map(|at| Move { workload: name(*at), from: node(labels[*at]), to: node(goal[*at]) }).collect()
        };
        let mean = |sum: f64| if model.demand > 0.0 { sum / model.demand } else { 0.0 };
        let mut proposals = Vec::new();
        loop {
            let left: Vec<usize> = (0..goal.len()).filter(|at| labels[*at] != goal[*at]).collect();
            let now = response(&model, &labels, self.move_seconds);
            let mut best: Option<(f64, usize)> = None;
            for workload in &left {
                let mut moved = labels.clone();
                moved[*workload] = goal[*workload];
                let gain = mean(now - response(&model, &moved, self.move_seconds));
                if gain > self.move_seconds + 1e-12 && best.is_none_or(|(most, _)| gain > most) && model.has_room(&moved) {
                    best = Some((gain, *workload));
                }
            }
            let (gain_seconds, moved) = match best {
                Some((gain, workload)) => (gain, vec![workload]),
                None => (mean(now - response(&model, &goal, self.move_seconds)), left),
            };
            let cost_seconds = self.move_seconds * moved.len() as f64;
            if moved.is_empty() || gain_seconds <= cost_seconds {
                return Ok(proposals);
            }
            proposals.push(Proposal { moves: describe(&moved, &labels), gain_seconds, cost_seconds });
            for workload in moved {
                labels[workload] = goal[workload];
            }
        }
    }
}

/// The objective without the cost of moves. A workload that runs where it may not run any more
/// costs as much there as if no request arrived.
fn response(model: &Model, labels: &[usize], move_seconds: f64) -> f64 {
    let own = labels.iter().zip(&model.unary).map(|(place, row)| row[*place]);
    let own: f64 = own.map(|cost| if cost.is_finite() { cost } else { UNSERVED_SECONDS * model.demand }).sum();
    let moved = labels.iter().zip(&model.running).filter(|(place, running)| running.is_some_and(|running| running != **place));
    own + model.calls(labels) - moved.count() as f64 * move_seconds * model.demand
}
