//! Routing weights: for each source node, which share of its requests goes to each serving node.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use serde::Serialize;

use crate::cost::CostMatrix;
use crate::node::NodeName;
use crate::plan::Plan;
use crate::tie::stable_hash;

/// What every row sums to.
const WHOLE: u32 = 100;

/// Integer weights, one row per source node, one column per serving node; every row sums to exactly 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightMatrix {
    nodes: Vec<NodeName>,
    rows: Array2<u32>,
}

impl WeightMatrix {
    /// Each node to itself: what holds while nothing runs.
    #[must_use]
    pub fn identity(nodes: &[NodeName]) -> Self {
        Self { nodes: nodes.to_vec(), rows: Array2::from_diag_elem(nodes.len(), WHOLE) }
    }

    /// From a plan's flows, so that no replica gets more than it can serve. The row of a node without demand goes to the nearest node that has
    /// a replica with room left, or failing that, a replica. Serving nodes that are not in `nodes` get nothing.
    #[must_use]
    pub fn assigned(nodes: &[NodeName], plan: &Plan, costs: &CostMatrix) -> Self {
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
        let has_room = |node: usize| {
            let capacity = f64::from(plan.replicas_on(&nodes[node])) * plan.replica_capacity;
            loads[node] < capacity * (1.0 - 1e-6)
        };
        Self::from_rows(nodes, &serving, |source| {
            if let Some(shares) = sent.get(&nodes[source]) {
                return shares.clone();
            }
            let distance = |node: &usize| {
                let cost = costs.seconds(&nodes[source], &nodes[*node]);
                (!has_room(*node), cost, stable_hash(nodes[source].as_str(), nodes[*node].as_str()))
            };
            let reachable = serving.iter().filter(|node| costs.seconds(&nodes[source], &nodes[**node]).is_finite());
            let nearest = reachable.min_by(|one, other| {
                let (one, other) = (distance(one), distance(other));
                one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.cmp(&other.2))
            });
            nearest.map(|node| vec![(*node, 1.0)]).unwrap_or_default()
        })
    }

    /// The FaaSt/miporin formula: the weight of a node is proportional to `1 / (rtt + serving time)` over the nodes that have replicas. Kept for
    /// compatibility; it goes on sending requests far away however near a replica is.
    ///
    /// ```
    /// use placement::{CostMatrix, NodeName, WeightMatrix};
    ///
    /// let nodes: Vec<NodeName> = vec!["node1".into(), "node2".into()];
    /// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.030], [0.030, 0.0]]);
    /// // 1/10 ms against 1/40 ms.
    /// let weights = WeightMatrix::inverse_response_time(&nodes, &nodes.iter().cloned().collect(), &costs, 0.010);
    /// assert_eq!(weights.row(&"node1".into()), Some(vec![80, 20]));
    /// ```
    #[must_use]
    pub fn inverse_response_time(
        nodes: &[NodeName],
        with_replicas: &BTreeSet<NodeName>,
        costs: &CostMatrix,
        serving_seconds: f64,
    ) -> Self {
        // A node's own response time must not be zero, or nothing would ever go elsewhere; a microsecond is less than any real serving time.
        let serving_seconds = if serving_seconds.is_finite() { serving_seconds.max(1e-6) } else { 1e-6 };
        let serving: Vec<usize> = (0..nodes.len()).filter(|node| with_replicas.contains(&nodes[*node])).collect();
        Self::from_rows(nodes, &serving, |source| {
            let share = |node: &usize| (*node, 1.0 / (costs.seconds(&nodes[source], &nodes[*node]) + serving_seconds));
            serving.iter().map(share).collect()
        })
    }

    /// Rows from shares; a row without shares goes evenly to all serving nodes, or to itself when nothing runs.
    fn from_rows(nodes: &[NodeName], serving: &[usize], shares: impl Fn(usize) -> Vec<(usize, f64)>) -> Self {
        let mut matrix = Self { nodes: nodes.to_vec(), rows: Array2::zeros((nodes.len(), nodes.len())) };
        for source in 0..nodes.len() {
            let mut row = shares(source);
            if row.iter().all(|(_, share)| *share <= 0.0) {
                row = serving.iter().map(|node| (*node, 1.0)).collect();
            }
            if row.is_empty() {
                row.push((source, 1.0));
            }
            for (node, weight) in whole_shares(nodes, source, &row) {
                matrix.rows[(source, node)] = weight;
            }
        }
        matrix
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

/// Shares as integers that sum to 100, by largest remainder; equal remainders in the order of a hash.
fn whole_shares(nodes: &[NodeName], source: usize, shares: &[(usize, f64)]) -> Vec<(usize, u32)> {
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    let mut whole: Vec<(usize, u32, f64)> = shares
        .iter()
        .map(|(node, share)| {
            let exact = f64::from(WHOLE) * share / sum;
            (*node, exact.floor() as u32, exact - exact.floor())
        })
        .collect();
    let given: u32 = whole.iter().map(|(_, weight, _)| weight).sum();
    let order = |node: usize| stable_hash(nodes[source].as_str(), nodes[node].as_str());
    whole.sort_by(|one, other| other.2.total_cmp(&one.2).then_with(|| order(one.0).cmp(&order(other.0))));
    for (_, weight, _) in whole.iter_mut().take(WHOLE.saturating_sub(given) as usize) {
        *weight += 1;
    }
    whole.into_iter().map(|(node, weight, _)| (node, weight)).collect()
}
