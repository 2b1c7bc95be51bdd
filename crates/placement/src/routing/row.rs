//! The weights of one source, for costs in either form.

use std::collections::BTreeSet;

use crate::latency::{CostMatrix, Costs};
use crate::plan::Plan;
use crate::routing::WeightMatrix;
use latency_matrix::NodeName;

/// The row of [`WeightMatrix::assigned`] of one source: the nodes that get something, by position,
/// with weights that sum to 100. It takes no matrix of all nodes, so costs by site will do. Empty
/// for a position beyond the list.
///
/// ```
/// use placement::latency::{Costs, SiteCosts};
/// use placement::routing::assigned_row;
/// use placement::{Demand, NodeCapacity, NodeName, Problem};
///
/// let nodes: Vec<NodeName> = ["a1", "a2", "b1"].map(NodeName::from).to_vec();
/// let between = ndarray::array![[0.0002, 0.030], [0.030, 0.0002]];
/// let costs: Costs = SiteCosts::new(nodes.clone(), vec![0, 0, 1], between, vec![0.0; 3]).into();
/// let plan = Problem::new("hello", costs.clone(), 1, 10.0)
///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 1)))
///     .with_demand(Demand::from_concurrency([("b1".into(), 4.0)])?)
///     .solve()?;
/// assert_eq!(assigned_row(&plan, &costs, 0), [(2, 100)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn assigned_row(plan: &Plan, costs: &Costs, source: usize) -> Vec<(usize, u32)> {
    if source >= costs.nodes().len() {
        return Vec::new();
    }
    let mut listed: BTreeSet<usize> = plan.replicas.keys().filter_map(|node| costs.position(node)).collect();
    listed.insert(source);
    let listed: Vec<usize> = listed.into_iter().collect();
    let names: Vec<NodeName> = listed.iter().map(|node| costs.nodes()[*node].clone()).collect();
    let own = listed.binary_search(&source).unwrap_or_default();
    // Only the ways of this source are looked at.
    let mut seconds = vec![f64::NAN; listed.len() * listed.len()];
    for (at, to) in listed.iter().enumerate() {
        seconds[own * listed.len() + at] = costs.at(source, *to);
    }
    let needed = CostMatrix::from_row_major(names.clone(), seconds);
    let mut weights = WeightMatrix::identity(&names);
    weights.reassign_row(&names[own], plan, &needed);
    let row = weights.row(&names[own]).unwrap_or_default();
    listed.into_iter().zip(row).filter(|(_, weight)| *weight > 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Demand, NodeCapacity, Problem};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_row_is_that_of_the_matrix_of_all_weights(
            seconds in prop::collection::vec(prop_oneof![8 => 0.0002..0.1_f64, 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)], 36),
            demands in prop::collection::vec(prop_oneof![1 => Just(0.0), 2 => 0.0..9.0_f64], 6),
            replicas in 0..6_u32,
        ) {
            let names: Vec<NodeName> = (0..6).map(|node| NodeName::new(format!("n{node}"))).collect();
            let costs = CostMatrix::from_row_major(names.clone(), seconds);
            let plan = Problem::new("any", costs.clone(), replicas, 10.0)
                .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                .with_demand(Demand::from_concurrency(names.iter().cloned().zip(demands)).unwrap())
                .solve()
                .unwrap();
            let whole = WeightMatrix::assigned(&names, &plan, &costs);
            let costs = Costs::from(costs);
            for (source, name) in names.iter().enumerate() {
                let mut found = vec![0; names.len()];
                for (target, weight) in assigned_row(&plan, &costs, source) {
                    found[target] = weight;
                }
                prop_assert_eq!(found, whole.row(name).unwrap());
            }
            prop_assert!(assigned_row(&plan, &costs, names.len()).is_empty());
        }
    }
}
