//! Decisions that follow each other: what one has learnt, the next begins with.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::problem::{Problem, ProblemError};
use crate::solver::large::{Large, Survey};
use crate::solver::posed::Posed;
use crate::solver::search::{Found, Hint};
use crate::solver::solve::{assemble, find_priced, finish, solve};
use latency_matrix::NodeName;

/// After this many warm starts, one decision starts from scratch.
const AFRESH: u32 = 32;
/// Few enough nodes that the best plan is found and proven each time.
const FEW_NODES: usize = 16;
/// How much farther from its bound a plan may be than the last one from scratch was, as a factor
/// and as a share of its objective.
const SLACK: (f64, f64) = (1.25, 0.002);
/// How much farther from its bound a placement may be that is kept without a search, as a share of
/// its objective.
const KEPT: f64 = 0.005;

/// Plans one service again and again: keeps where replicas were and what a served request of each
/// source was worth, so that the next search begins there and takes a part of the steps. Plans are
/// about as good as [`Problem::solve`]'s: one that is farther from its bound than usual is searched
/// for from scratch, and so is every thirty-second. Equal sequences of problems get equal plans; a
/// plan depends on those before it where the best one is not proven.
///
/// ```
/// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
/// use placement::plan::Planner;
///
/// let nodes: Vec<NodeName> = ["a", "b"].map(NodeName::from).to_vec();
/// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.02], [0.02, 0.0]]);
/// let mut planner = Planner::new();
/// for busy in ["a", "b"] {
///     let problem = Problem::new("hello", costs.clone(), 1, 10.0)
///         .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 3)))
///         .with_demand(Demand::from_concurrency([(busy.into(), 4.0)])?);
///     assert_eq!(planner.plan(&problem)?.replicas_on(&busy.into()), 1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Planner {
    learnt: Option<Learnt>,
    survey: Option<Survey>,
}

#[derive(Clone, Debug)]
struct Learnt {
    worth: BTreeMap<NodeName, f64>,
    placement: BTreeMap<NodeName, u32>,
    /// How far the last plan from scratch was from its bound, as a share of its objective.
    gap: f64,
    /// Decisions since then.
    age: u32,
}

impl Planner {
    /// A planner that knows nothing yet: its first plan is [`Problem::solve`]'s.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan for a problem.
    ///
    /// # Errors
    /// When the problem's numbers make no sense; what is known is kept.
    pub fn plan(&mut self, problem: &Problem) -> Result<Plan, ProblemError> {
        problem.check()?;
        if problem.capacities.len() <= FEW_NODES {
            return problem.solve();
        }
        let known = self.learnt.take().filter(|learnt| learnt.age < AFRESH);
        if let Some((plan, learnt)) = known.as_ref().and_then(|learnt| self.as_before(problem, learnt)) {
            self.learnt = Some(learnt);
            return Ok(plan);
        }
        let also: Vec<&NodeName> = known.iter().flat_map(|learnt| learnt.placement.keys()).collect();
        if let Some(large) = Large::new(problem, &also) {
            return Ok(self.plan_large(problem, &large, known.as_ref()));
        }
        let mut posed = Posed::new(problem);
        if let Some(learnt) = known {
            let hint = learnt.hint(&posed);
            let (found, worth) = find_priced(problem, &mut posed, Some(&hint));
            if gap(&found) <= learnt.gap * SLACK.0 + SLACK.1 {
                self.learnt = Some(Learnt::of(&posed, &found, &worth, learnt.gap, learnt.age + 1));
                return Ok(finish(problem, &posed, &found));
            }
        }
        let (found, worth) = find_priced(problem, &mut posed, None);
        self.learnt = Some(Learnt::of(&posed, &found, &worth, gap(&found), 0));
        Ok(finish(problem, &posed, &found))
    }
}

impl Planner {
    /// The placement before, where that is as good as it was.
    fn as_before(&self, problem: &Problem, learnt: &Learnt) -> Option<(Plan, Learnt)> {
        let large = Large::again(problem, self.survey.as_ref()?, learnt.placement.keys())?;
        let (found, routed) = large.placed(&learnt.hint(&large.posed))?;
        let near = gap(&found) <= learnt.gap + KEPT;
        near.then(|| (assemble(&large.posed, problem, &found, &routed), Learnt { age: learnt.age + 1, ..learnt.clone() }))
    }

    fn plan_large(&mut self, problem: &Problem, large: &Large<'_>, known: Option<&Learnt>) -> Plan {
        let warm = known.and_then(|learnt| {
            let (found, worth) = large.search(Some(&learnt.hint(&large.posed)));
            let near = gap(&found) <= learnt.gap * SLACK.0 + SLACK.1;
            near.then(|| (Learnt::of(&large.posed, &found, &worth, learnt.gap, learnt.age + 1), found))
        });
        let (learnt, found) = warm.unwrap_or_else(|| {
            let (found, worth) = large.search(None);
            (Learnt::of(&large.posed, &found, &worth, gap(&found), 0), found)
        });
        self.learnt = Some(learnt);
        self.survey = large.survey();
        large.finish(&found).unwrap_or_else(|| solve(problem))
    }
}

fn gap(found: &Found) -> f64 {
    if found.total > 0.0 { (found.total - found.lower_bound).max(0.0) / found.total } else { 0.0 }
}

impl Learnt {
    fn of(posed: &Posed<'_>, found: &Found, worth: &[f64], gap: f64, age: u32) -> Self {
        let worth = posed.sources.iter().zip(worth).map(|(source, worth)| ((*source).clone(), *worth)).collect();
        let used = posed.nodes.iter().zip(&found.placement).filter(|(_, count)| **count > 0);
        Self { worth, placement: used.map(|(node, count)| ((*node).clone(), *count)).collect(), gap, age }
    }

    fn hint(&self, posed: &Posed<'_>) -> Hint {
        let placement: Vec<u32> = posed.nodes.iter().map(|node| self.placement.get(*node).copied().unwrap_or(0)).collect();
        let used: Vec<usize> = (0..placement.len()).filter(|node| placement[*node] > 0).collect();
        // A new source is worth at least its way to the nearest replica.
        let nearest = |source: usize| {
            let costs = used.iter().map(|node| posed.instance.costs[(*node, source)]);
            costs.fold(crate::solver::flow::UNSERVED_SECONDS, f64::min)
        };
        let worth = posed.sources.iter().enumerate();
        let worth = worth.map(|(at, source)| self.worth.get(*source).copied().unwrap_or_else(|| nearest(at))).collect();
        Hint { worth, placement }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
    use crate::plan::Proof;
    use crate::problem::ServingCurve;
    use crate::{CostMatrix, Demand, NodeCapacity};

    #[test]
    fn plans_that_follow_each_other_are_as_good_as_plans_from_scratch() {
        let network = SyntheticNetwork::new(Shape { sites: 8, nodes_per_site: 3, ..Shape::default() }, 4);
        let names: Vec<NodeName> = (0..24).map(|node| NodeName::new(format!("n{node:02}"))).collect();
        let mut random = Random::new(6);
        let mut shares = zipf_demand(24, 60.0, &mut random);
        let mut planner = Planner::new();
        let mut running = BTreeMap::new();
        for step in 0..6_u64 {
            let cells = ndarray::Array2::from_shape_fn((24, 24), |(from, to)| network.measured_seconds(from, to, step));
            for share in &mut shares {
                *share *= random.between(0.8, 1.25);
            }
            if step == 3 {
                // Demand moves to other sources.
                random.shuffle(&mut shares);
            }
            let problem = Problem::new("any", CostMatrix::new(names.clone(), cells), 6 + (step % 3) as u32, 13.0)
                .with_demand(Demand::from_concurrency(names.iter().cloned().zip(shares.iter().copied())).unwrap())
                .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                .with_serving(ServingCurve::flat(0.004).unwrap())
                .with_running(running);
            let (plan, scratch) = (planner.plan(&problem).unwrap(), problem.solve().unwrap());
            if step == 0 {
                assert_eq!(plan, scratch);
            }
            assert_eq!(plan.total_replicas(), scratch.total_replicas());
            assert!(plan.cost.objective <= 1.01 * scratch.cost.objective, "{step}: {:?} {:?}", plan.cost, scratch.cost);
            let bound = match plan.proof {
                Proof::Optimal => plan.cost.objective,
                Proof::AtLeast { objective } => objective,
            };
            assert!(bound <= scratch.cost.objective * (1.0 + 1e-9));
            running = plan.replicas;
        }
        assert!(planner.plan(&Problem::new("any", CostMatrix::new(Vec::new(), ndarray::array![[]]), 1, f64::NAN)).is_err());
    }
    #[test]
    fn decisions_about_a_large_fleet_are_as_good_as_plans_from_scratch() {
        let network = SyntheticNetwork::new(Shape { sites: 30, nodes_per_site: 20, ..Shape::default() }, 3);
        let size = network.nodes();
        let names: Vec<NodeName> = (0..size).map(|node| NodeName::new(format!("n{node:03}"))).collect();
        let cells = ndarray::Array2::from_shape_fn((size, size), |(from, to)| network.rtt_seconds(from, to));
        let costs = CostMatrix::new(names.clone(), cells);
        let mut random = Random::new(4);
        let mut sources: Vec<usize> = (0..size).step_by(15).collect();
        let shares = zipf_demand(sources.len(), 200.0, &mut random);
        let mut planner = Planner::new();
        let mut running = BTreeMap::new();
        for step in 0..10_u32 {
            if step == 5 {
                random.shuffle(&mut sources);
            }
            let asked = shares.iter().map(|share| share * random.between(0.9, 1.1));
            let demand: Vec<(NodeName, f64)> = sources.iter().map(|node| names[*node].clone()).zip(asked).collect();
            // Later a node is gone, and more replicas are wanted.
            let capacities = names.iter().skip(usize::from(step > 7)).map(|node| NodeCapacity::new(node.clone(), 2));
            let problem = Problem::new("any", costs.clone(), 30 + step / 4, 10.0)
                .with_demand(Demand::from_concurrency(demand).unwrap())
                .with_capacities(capacities)
                .with_serving(ServingCurve::flat(0.004).unwrap())
                .with_running(running);
            let (plan, scratch) = (planner.plan(&problem).unwrap(), problem.solve().unwrap());
            assert_eq!(plan.total_replicas(), problem.replicas);
            let ratio = plan.cost.objective / scratch.cost.objective;
            assert!(ratio <= 1.02, "{step}: {:?} {:?}", plan.cost, scratch.cost);
            if let Proof::AtLeast { objective } = plan.proof {
                assert!(objective <= scratch.cost.objective * (1.0 + 1e-9), "{step}");
            }
            running = plan.replicas;
        }
    }
}
