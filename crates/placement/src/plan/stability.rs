//! When a better plan is worth carrying out: gain thresholds, cooldown, and a budget of moves.
//!
//! Latency is noisy and demand moves; a plan that is better by a hair is not worth starting pods
//! for. [`Stability::choose`] compares the plan that is free to move with the one that keeps as
//! much as possible, and takes the former only where the rules allow.

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::problem::{Problem, ProblemError};
use crate::solver::solve::solve_priced;
use crate::solver::toward::toward;

/// Rules against moving too eagerly. A move starts a replica on one node so that one on another can
/// stop; scaling up or down is no move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// A plan with moves must lower the mean response time by at least this share of it.
    pub gain_ratio: f64,
    /// And by at least this many seconds.
    pub gain_seconds: f64,
    /// No moves for this long after the last one.
    pub cooldown_seconds: f64,
    /// Moves allowed in one window; the caller counts those made in it.
    pub moves_per_window: u32,
}

impl Default for Stability {
    /// A tenth of the response time and half a millisecond; a minute of rest; ten moves per window.
    fn default() -> Self {
        Self { gain_ratio: 0.1, gain_seconds: 0.000_5, cooldown_seconds: 60.0, moves_per_window: 10 }
    }
}

/// What was moved lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoveHistory {
    /// Seconds since the last move; none yet, if absent.
    pub since_last_seconds: Option<f64>,
    /// Moves made in the present window.
    pub moves_in_window: u32,
}

/// Why the plan that keeps more was taken, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The best plan needs no move.
    NoMoveNeeded,
    /// The moves are worth it.
    Moved,
    /// Kept: the gain is too small.
    GainTooSmall,
    /// Kept: the last move was too short a time ago.
    CoolingDown,
    /// The best plan needs more moves than are left in this window: those of them that gain most
    /// were made.
    MovedPartly,
    /// Kept: no moves are left in this window, or what they could do is too little.
    BudgetSpent,
    /// Moved against the rules, because keeping would leave demand unserved, replicas where
    /// none may run, or minima or zones unmet. Where the rest can be kept, it is.
    Forced,
}

/// A plan that was chosen, and the one that it was chosen over.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The plan to carry out.
    pub plan: Plan,
    /// Why it and no other.
    pub verdict: Verdict,
    /// The best plan that was found.
    pub best: Plan,
    /// What a served request of each source is worth, in seconds and in the order of
    /// [`Demand::iter`](crate::Demand::iter), for [`least_network`](super::least_network).
    pub prices: Vec<f64>,
}

impl Stability {
    /// The plan to carry out.
    ///
    /// ```
    /// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    /// use placement::plan::{MoveHistory, Stability, Verdict};
    ///
    /// let nodes: Vec<NodeName> = vec!["a".into(), "b".into()];
    /// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.0004], [0.0004, 0.0]]);
    /// let problem = Problem::new("hello", costs, 1, 10.0)
    ///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 3)))
    ///     .with_demand(Demand::from_concurrency([("b".into(), 1.0)])?)
    ///     .with_running([("a".into(), 1)]);
    /// // 0.4 ms are not worth a move.
    /// let (plan, verdict) = Stability::default().choose(&problem, &MoveHistory::default())?;
    /// assert_eq!((plan.replicas_on(&"a".into()), verdict), (1, Verdict::GainTooSmall));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the problem cannot be solved.
    pub fn choose(&self, problem: &Problem, history: &MoveHistory) -> Result<(Plan, Verdict), ProblemError> {
        let free = problem.solve()?;
        self.choose_from(problem, history, free)
    }

    /// The same, and the best plan that was found, whether or not it is worth its moves.
    ///
    /// # Errors
    /// When the problem cannot be solved.
    pub fn choose_and_show(&self, problem: &Problem, history: &MoveHistory) -> Result<Choice, ProblemError> {
        problem.check()?;
        let (best, prices) = solve_priced(problem);
        let (plan, verdict) = self.choose_from(problem, history, best.clone())?;
        Ok(Choice { plan, verdict, best, prices })
    }

    fn choose_from(&self, problem: &Problem, history: &MoveHistory, free: Plan) -> Result<(Plan, Verdict), ProblemError> {
        if moves(problem, &free) == 0 {
            return Ok((free, Verdict::NoMoveNeeded));
        }
        let kept = problem.clone().keeping_what_runs().solve()?;
        let forced = moves(problem, &kept);
        if forced >= moves(problem, &free) || unserved(&kept) > unserved(&free) + 1e-9 || lacks(&kept) > lacks(&free) {
            return Ok((free, Verdict::Forced));
        }
        // Replicas that cannot stay are moved regardless of the rules.
        let held = |verdict| if forced > 0 { Verdict::Forced } else { verdict };
        let worth_it = |plan: &Plan| response(&kept) - response(plan) >= self.gain_seconds.max(self.gain_ratio * response(&kept));
        if !worth_it(&free) {
            return Ok((kept, held(Verdict::GainTooSmall)));
        }
        if history.since_last_seconds.is_some_and(|since| since < self.cooldown_seconds) {
            return Ok((kept, held(Verdict::CoolingDown)));
        }
        let left = self.moves_per_window.saturating_sub(history.moves_in_window);
        if moves(problem, &free) <= left {
            return Ok((free, Verdict::Moved));
        }
        let partly = toward(problem, &kept, &free, left.saturating_sub(forced));
        if moves(problem, &partly) > forced && worth_it(&partly) {
            return Ok((partly, Verdict::MovedPartly));
        }
        Ok((kept, held(Verdict::BudgetSpent)))
    }
}

/// Replicas started beyond what scaling up needs.
fn moves(problem: &Problem, plan: &Plan) -> u32 {
    let running = problem.running.values().fold(0_u32, |sum, count| sum.saturating_add(*count));
    plan.cost.starts.saturating_sub(plan.total_replicas().saturating_sub(running))
}

fn unserved(plan: &Plan) -> f64 {
    plan.unserved.iter().map(|left| left.concurrency).sum()
}

/// What is missing to minima and zones.
fn lacks(plan: &Plan) -> u32 {
    let zones = plan.zones_missing.as_ref().map_or(0, |missing| missing.asked.saturating_sub(missing.used));
    plan.below_minimum.values().fold(zones, |sum, lacking| sum.saturating_add(*lacking))
}

fn response(plan: &Plan) -> f64 {
    plan.cost.network_seconds + plan.cost.serving_seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Exclusion;
    use crate::{CostMatrix, Demand, NodeCapacity};

    fn problem(rtt_seconds: f64) -> Problem {
        let costs = CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, rtt_seconds], [rtt_seconds, 0.0]]);
        Problem::new("hello", costs, 1, 10.0)
            .with_capacities([NodeCapacity::new("a".into(), 3), NodeCapacity::new("b".into(), 3)])
            .with_demand(Demand::from_concurrency([("b".into(), 1.0)]).unwrap())
            .with_running([("a".into(), 1)])
    }

    fn verdict(problem: &Problem, history: MoveHistory) -> Verdict {
        Stability::default().choose(problem, &history).unwrap().1
    }

    #[test]
    fn each_rule_holds_a_move_back() {
        assert_eq!(verdict(&problem(0.05), MoveHistory::default()), Verdict::Moved);
        let resting = MoveHistory { since_last_seconds: Some(5.0), moves_in_window: 0 };
        assert_eq!(verdict(&problem(0.05), resting), Verdict::CoolingDown);
        let spent = MoveHistory { since_last_seconds: Some(500.0), moves_in_window: 10 };
        assert_eq!(verdict(&problem(0.05), spent), Verdict::BudgetSpent);
    }

    #[test]
    fn the_budget_goes_to_the_moves_that_gain_most() {
        // Three replicas at a; all demand is elsewhere, most of it at c.
        let far = |from: usize, to: usize| if from == to { 0.0 } else { 0.05 };
        let costs = CostMatrix::new(
            ["a", "b", "c", "d"].map(Into::into).to_vec(),
            ndarray::Array2::from_shape_fn((4, 4), |(i, j)| far(i, j)),
        );
        let problem = Problem::new("hello", costs, 3, 10.0)
            .with_capacities(["a", "b", "c", "d"].map(|node| NodeCapacity::new(node.into(), 3)))
            .with_demand(Demand::from_concurrency([("b".into(), 4.0), ("c".into(), 9.0), ("d".into(), 5.0)]).unwrap())
            .with_running([("a".into(), 3)]);
        let rules = Stability { moves_per_window: 2, ..Stability::default() };
        let (plan, verdict) = rules.choose(&problem, &MoveHistory::default()).unwrap();
        assert_eq!(verdict, Verdict::MovedPartly);
        assert_eq!(plan.replicas, [("a".into(), 1), ("c".into(), 1), ("d".into(), 1)].into());
        assert_eq!(plan.cost.starts, 2);
        let one_left = MoveHistory { since_last_seconds: None, moves_in_window: 1 };
        let (plan, _) = rules.choose(&problem, &one_left).unwrap();
        assert_eq!(plan.replicas, [("a".into(), 2), ("c".into(), 1)].into());
    }

    #[test]
    fn scaling_up_is_no_move_and_a_lost_node_forces_one() {
        let two = Problem { replicas: 2, ..problem(0.05) };
        assert_eq!(verdict(&two, MoveHistory { since_last_seconds: Some(0.0), moves_in_window: 99 }), Verdict::NoMoveNeeded);
        let lost = problem(0.05).with_capacities([NodeCapacity::new("a".into(), 3).excluded(Exclusion::NotReady)]);
        assert_eq!(verdict(&lost, MoveHistory { since_last_seconds: Some(0.0), moves_in_window: 99 }), Verdict::Forced);
    }
}
