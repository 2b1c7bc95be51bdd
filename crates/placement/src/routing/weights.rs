//! Routing weights: for each source node, which share of its requests goes to each serving node.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::apportion::{WHOLE, apportion};
use super::factored::serving_floor;
use crate::latency::CostMatrix;
use crate::plan::Plan;
use crate::solver::tie::stable_hash;
use latency_matrix::NodeName;

/// Integer weights, one row per source node, one column per serving node; every row sums to
/// exactly 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawWeights")]
pub struct WeightMatrix {
    nodes: Vec<NodeName>,
    rows: Array2<u32>,
}

/// Why numbers that were read are no matrix of weights.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WeightError {
    /// Rows or columns do not fit the list of nodes.
    #[error("failed to read weights of {nodes} nodes: there are {rows} rows and {columns} columns")]
    Shape {
        /// Length of the node list.
        nodes: usize,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
    },
    /// A row that does not sum to 100.
    #[error("failed to read weights: those of source node {node} sum to {sum}, not 100")]
    Sum {
        /// The source node.
        node: NodeName,
        /// The sum found.
        sum: u64,
    },
}

#[derive(Deserialize)]
struct RawWeights {
    nodes: Vec<NodeName>,
    rows: Array2<u32>,
}

impl TryFrom<RawWeights> for WeightMatrix {
    type Error = WeightError;

    fn try_from(RawWeights { nodes, rows }: RawWeights) -> Result<Self, WeightError> {
        if rows.dim() != (nodes.len(), nodes.len()) {
            return Err(WeightError::Shape { nodes: nodes.len(), rows: rows.nrows(), columns: rows.ncols() });
        }
        for (node, row) in nodes.iter().zip(rows.rows()) {
            let sum: u64 = row.iter().map(|weight| u64::from(*weight)).sum();
            if sum != u64::from(WHOLE) {
                return Err(WeightError::Sum { node: node.clone(), sum });
            }
        }
        Ok(Self { nodes, rows })
    }
}

impl WeightMatrix {
    /// Each node to itself: what holds while nothing runs.
    #[must_use]
    pub fn identity(nodes: &[NodeName]) -> Self {
        Self { nodes: nodes.to_vec(), rows: Array2::from_diag_elem(nodes.len(), WHOLE) }
    }

    /// From a plan's flows, so that no replica gets more than it can serve. The row of a node
    /// without demand goes to the nearest node that has a replica with room left, or failing that,
    /// a replica. Serving nodes that are not in `nodes` get nothing.
    #[must_use]
    pub fn assigned(nodes: &[NodeName], plan: &Plan, costs: &CostMatrix) -> Self {
        let assignment = Assignment::new(nodes, plan, costs);
        let mut matrix = Self::empty(nodes);
        for source in 0..nodes.len() {
            matrix.put(source, &assignment.serving, assignment.shares(source));
        }
        matrix
    }

    /// Recomputes the row of one source node from a plan's flows, as [`WeightMatrix::assigned`]
    /// does; all other rows stay as they are. False when there is no such row.
    ///
    /// ```
    /// # use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem, WeightMatrix};
    /// let nodes: Vec<NodeName> = ["a", "b", "c"].map(NodeName::from).to_vec();
    /// let costs = CostMatrix::new(
    ///     nodes.clone(),
    ///     ndarray::array![[0.0, 0.01, 0.02], [0.01, 0.0, 0.02], [0.02, 0.02, 0.0]],
    /// );
    /// let plan = Problem::new("hello", costs.clone(), 1, 10.0)
    ///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 1)))
    ///     .with_demand(Demand::from_concurrency([("b".into(), 2.0)])?)
    ///     .solve()?;
    /// let mut weights = WeightMatrix::identity(&nodes);
    /// assert!(weights.reassign_row(&"a".into(), &plan, &costs));
    /// assert_eq!(weights.row(&"a".into()), Some(vec![0, 100, 0]));
    /// assert_eq!(weights.row(&"c".into()), Some(vec![0, 0, 100])); // untouched
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reassign_row(&mut self, source: &NodeName, plan: &Plan, costs: &CostMatrix) -> bool {
        let Some(position) = self.nodes.iter().position(|node| node == source) else { return false };
        let (serving, shares) = {
            let assignment = Assignment::new(&self.nodes, plan, costs);
            let shares = assignment.shares(position);
            (assignment.serving, shares)
        };
        self.put(position, &serving, shares);
        true
    }

    /// The FaaSt/miporin formula: the weight of a node is proportional to
    /// `1 / (rtt + serving time)` over the nodes that have replicas. Kept for compatibility; it
    /// goes on sending requests far away however near a replica is.
    ///
    /// ```
    /// use placement::{CostMatrix, NodeName, WeightMatrix};
    ///
    /// let nodes: Vec<NodeName> = vec!["node1".into(), "node2".into()];
    /// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.030], [0.030, 0.0]]);
    /// // 1/10 ms against 1/40 ms.
    /// let weights = WeightMatrix::inverse_response_time(
    ///     &nodes,
    ///     &nodes.iter().cloned().collect(),
    ///     &costs,
    ///     0.010,
    /// );
    /// assert_eq!(weights.row(&"node1".into()), Some(vec![80, 20]));
    /// ```
    #[must_use]
    pub fn inverse_response_time(
        nodes: &[NodeName],
        with_replicas: &BTreeSet<NodeName>,
        costs: &CostMatrix,
        serving_seconds: f64,
    ) -> Self {
        let serving_seconds = serving_floor(serving_seconds);
        let serving: Vec<usize> = (0..nodes.len()).filter(|node| with_replicas.contains(&nodes[*node])).collect();
        let mut matrix = Self::empty(nodes);
        for source in 0..nodes.len() {
            let share = |node: &usize| (*node, 1.0 / (costs.seconds(&nodes[source], &nodes[*node]) + serving_seconds));
            matrix.put(source, &serving, serving.iter().map(share).collect());
        }
        matrix
    }

    fn empty(nodes: &[NodeName]) -> Self {
        Self { nodes: nodes.to_vec(), rows: Array2::zeros((nodes.len(), nodes.len())) }
    }

    /// A row from shares; without any it goes evenly to all serving nodes, or to itself when
    /// nothing runs.
    fn put(&mut self, source: usize, serving: &[usize], mut shares: Vec<(usize, f64)>) {
        if shares.iter().all(|(_, share)| *share <= 0.0) {
            shares = serving.iter().map(|node| (*node, 1.0)).collect();
        }
        if shares.is_empty() {
            shares.push((source, 1.0));
        }
        let values: Vec<f64> = shares.iter().map(|(_, share)| *share).collect();
        let order = |at: usize| stable_hash(self.nodes[source].as_str(), self.nodes[shares[at].0].as_str());
        let whole = apportion(&values, order);
        self.rows.row_mut(source).fill(0);
        for (at, weight) in whole {
            self.rows[(source, shares[at].0)] = weight;
        }
    }

    /// The nodes, in the order of rows and columns.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The weights, rows are the source nodes.
    #[must_use]
    pub fn rows(&self) -> &Array2<u32> {
        &self.rows
    }

    /// The weights of one source node, in node order.
    #[must_use]
    pub fn row(&self, source: &NodeName) -> Option<Vec<u32>> {
        let position = self.nodes.iter().position(|node| node == source)?;
        Some(self.rows.row(position).to_vec())
    }

    /// The weights of one source node that are not zero.
    pub fn targets(&self, source: &NodeName) -> impl Iterator<Item = (&NodeName, u32)> {
        let row = self.nodes.iter().position(|node| node == source).map(|position| self.rows.row(position));
        row.into_iter().flat_map(|row| self.nodes.iter().zip(row.into_iter().copied())).filter(|(_, weight)| *weight > 0)
    }
}

/// A plan's flows by source, for rows of weights.
struct Assignment<'a> {
    nodes: &'a [NodeName],
    costs: &'a CostMatrix,
    /// Positions of the nodes that have replicas.
    serving: Vec<usize>,
    /// Whether all that a node's replicas can serve is not yet assigned to it.
    has_room: Vec<bool>,
    sent: BTreeMap<&'a NodeName, Vec<(usize, f64)>>,
}

impl<'a> Assignment<'a> {
    fn new(nodes: &'a [NodeName], plan: &'a Plan, costs: &'a CostMatrix) -> Self {
        let serving: Vec<usize> = (0..nodes.len()).filter(|node| plan.replicas_on(&nodes[*node]) > 0).collect();
        let position: BTreeMap<&NodeName, usize> = serving.iter().map(|node| (&nodes[*node], *node)).collect();
        let mut loads = vec![0.0; nodes.len()];
        let mut sent: BTreeMap<&NodeName, Vec<(usize, f64)>> = BTreeMap::new();
        for flow in &plan.flows {
            if let Some(node) = position.get(&flow.node) {
                loads[*node] += flow.concurrency;
                sent.entry(&flow.source).or_default().push((*node, flow.concurrency));
            }
        }
        let mut has_room = vec![false; nodes.len()];
        for node in &serving {
            let capacity = f64::from(plan.replicas_on(&nodes[*node])) * plan.replica_capacity;
            has_room[*node] = loads[*node] < capacity * (1.0 - 1e-6);
        }
        Self { nodes, costs, serving, has_room, sent }
    }

    fn shares(&self, source: usize) -> Vec<(usize, f64)> {
        let name = &self.nodes[source];
        if let Some(shares) = self.sent.get(name) {
            return shares.clone();
        }
        // Equal distances by hash, which is only computed where there are any.
        let order = |node: usize| stable_hash(name.as_str(), self.nodes[node].as_str());
        let distances = self.serving.iter().map(|node| (*node, self.costs.seconds(name, &self.nodes[*node])));
        let nearest = distances.filter(|(_, cost)| cost.is_finite()).min_by(|one, other| {
            (!self.has_room[one.0])
                .cmp(&!self.has_room[other.0])
                .then(one.1.total_cmp(&other.1))
                .then_with(|| order(one.0).cmp(&order(other.0)))
        });
        nearest.map(|(node, _)| vec![(node, 1.0)]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_judged() {
        let weights = WeightMatrix::identity(&["a".into(), "b".into()]);
        let text = serde_json::to_string(&weights).unwrap();
        assert_eq!(serde_json::from_str::<WeightMatrix>(&text).unwrap(), weights);
        assert!(serde_json::from_str::<WeightMatrix>(&text.replace("[100,0,0,100]", "[99,0,0,100]")).is_err());
        assert!(serde_json::from_str::<WeightMatrix>(&text.replace("\"a\",", "")).is_err());
    }
}
