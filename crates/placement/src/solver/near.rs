//! A short look around a placement that is known to be good.

use std::collections::BTreeMap;

use crate::problem::{CostModel, Effort, Problem, ProblemError};
use crate::solver::posed::{MANY_NODES, Posed};
use crate::solver::search::{self, Budget};
use latency_matrix::NodeName;

/// Moves of one replica that are tried: what begins at the best placement of a moment ago is there
/// after few, or not at all.
const MOVES: usize = 3;

impl Problem {
    /// The mean response time, in seconds, of the best plan that a short search finds which begins
    /// at these `replicas` per node: what a plan that was good for a like problem comes to now.
    /// Demand that no node can take counts as an hour. The search is given up early where it will
    /// hardly come below `below_seconds`.
    ///
    /// It takes a small part of the time of [`Problem::solve`]. Where zones are asked for, gateways
    /// choose pods evenly or there are very many nodes, it is that of [`Effort::Quick`]'s plan.
    ///
    /// ```
    /// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    ///
    /// let nodes: Vec<NodeName> = ["a", "b", "c"].map(NodeName::from).to_vec();
    /// let seconds = ndarray::array![[0.0, 0.02, 0.02], [0.02, 0.0, 0.01], [0.02, 0.01, 0.0]];
    /// let problem = Problem::new("hello", CostMatrix::new(nodes.clone(), seconds), 1, 10.0)
    ///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 3)))
    ///     .with_demand(Demand::from_concurrency([("b".into(), 3.0), ("c".into(), 2.0)])?);
    /// // At b, requests from c travel for 10 ms.
    /// let near = problem.response_seconds_near(&[("a".into(), 1)].into(), 0.020)?;
    /// assert!((near - 0.004).abs() < 1e-6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Problem::solve`].
    pub fn response_seconds_near(&self, replicas: &BTreeMap<NodeName, u32>, below_seconds: f64) -> Result<f64, ProblemError> {
        if self.model != CostModel::LocalFirst || self.least_zones > 0 || self.capacities.len() > MANY_NODES {
            let cost = self.clone().with_effort(Effort::Quick).solve()?.cost;
            return Ok(cost.network_seconds + cost.serving_seconds);
        }
        self.check()?;
        let posed = Posed::new(self);
        let placement: Vec<u32> = posed.nodes.iter().map(|node| replicas.get(*node).copied().unwrap_or(0)).collect();
        let effort = Budget { width: MOVES, tries: MOVES, ..posed.budget(self) };
        let demand = posed.instance.demand();
        Ok(search::near(&posed.instance, &placement, effort, below_seconds * demand) / demand)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Proof;
    use crate::{CostMatrix, Demand, NodeCapacity};

    const NODES: usize = 8;

    proptest! {
        /// It is no better than the best plan, and no worse than where it began.
        #[test]
        fn it_lies_between_the_start_and_the_best(
            cells in prop::collection::vec(0.0..0.1_f64, NODES * NODES),
            amounts in prop::collection::vec(0.1..6.0_f64, 1..NODES),
            limits in prop::collection::vec(1..3_u32, NODES),
            replicas in 1..6_u32,
            begun in prop::collection::vec(0..3_u32, NODES),
            below_seconds in prop_oneof![Just(0.0), Just(f64::INFINITY), 0.0..0.1_f64],
        ) {
            let names: Vec<NodeName> = (0..NODES).map(|node| NodeName::new(format!("n{node}"))).collect();
            let problem = Problem::new("any", CostMatrix::from_row_major(names.clone(), cells), replicas, 4.0)
                .with_demand(Demand::from_concurrency(names.iter().cloned().zip(amounts.iter().copied())).unwrap())
                .with_capacities(names.iter().zip(&limits).map(|(node, most)| NodeCapacity::new(node.clone(), *most)));
            let best = problem.solve().unwrap();
            prop_assume!(best.proof == Proof::Optimal);
            let seconds = best.cost.network_seconds;
            let begun: BTreeMap<NodeName, u32> = names.iter().cloned().zip(begun).collect();
            for start in [&begun, &best.replicas] {
                let near = problem.response_seconds_near(start, below_seconds).unwrap();
                prop_assert!(near >= seconds * (1.0 - 1e-6) - 1e-5, "{near} {seconds}");
            }
            let kept = problem.response_seconds_near(&best.replicas, below_seconds).unwrap();
            prop_assert!(kept <= seconds * (1.0 + 1e-6) + 1e-5, "{kept} {seconds}");
        }
    }
}
