//! Applications of several workloads that call each other.

use std::collections::{BTreeMap, VecDeque};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::score::PlacedDependency;

/// A call from one workload to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The workload that calls.
    pub from: String,
    /// The workload that is called: the dependency.
    pub to: String,
    /// What the way between them may cost at most, in the unit of the costs that nodes are judged
    /// by.
    pub max_cost: f64,
}

/// In which order the workloads of an application are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Callers first, breadth first (Kahn 1962).
    #[default]
    Kahn,
    /// Callers first, depth first (Tarjan 1976).
    Tarjan,
    /// Kahn's order backwards: dependencies first.
    ReverseKahn,
    /// Tarjan's order backwards.
    ReverseTarjan,
    /// By turns from the front and the back of Kahn's order.
    AlternateKahn,
    /// By turns from the front and the back of Tarjan's order.
    AlternateTarjan,
}

/// Why a graph of calls cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppGraphError {
    /// Workloads that call each other in a circle have no order.
    #[error("failed to order the workloads of an application: {0} calls itself, by way of others or directly")]
    Cycle(String),
    /// A call names a workload that is not listed.
    #[error("failed to read the calls of an application: workload {0} is not listed")]
    UnknownWorkload(String),
    /// A workload is listed twice.
    #[error("failed to read the workloads of an application: {0} is listed twice")]
    DuplicateWorkload(String),
}

/// The workloads of an application and who calls whom.
///
/// ```
/// use placement::score::{AppGraph, Call, Order};
///
/// let call = |from: &str, to: &str| Call { from: from.into(), to: to.into(), max_cost: 15.0 };
/// let shop = AppGraph::new(
///     ["front", "cart", "stock", "db"].map(String::from),
///     [call("front", "cart"), call("front", "stock"), call("cart", "db"), call("stock", "db")],
/// )?;
/// assert_eq!(shop.order(Order::Kahn)?, ["front", "cart", "stock", "db"]);
/// assert_eq!(shop.order(Order::ReverseTarjan)?, ["db", "cart", "stock", "front"]);
/// assert_eq!(shop.order(Order::AlternateKahn)?, ["front", "db", "cart", "stock"]);
/// # Ok::<(), placement::score::AppGraphError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AppGraph {
    graph: DiGraph<String, f64>,
    index: BTreeMap<String, NodeIndex>,
}

impl AppGraph {
    /// From workloads, in an order that settles ties, and calls between them. A `max_cost` that is
    /// NaN allows nothing.
    ///
    /// # Errors
    /// When a workload is listed twice or a call names one that is not listed.
    pub fn new(
        workloads: impl IntoIterator<Item = String>,
        calls: impl IntoIterator<Item = Call>,
    ) -> Result<Self, AppGraphError> {
        let mut graph = DiGraph::new();
        let mut index = BTreeMap::new();
        for workload in workloads {
            let node = graph.add_node(workload.clone());
            if index.insert(workload.clone(), node).is_some() {
                return Err(AppGraphError::DuplicateWorkload(workload));
            }
        }
        for call in calls {
            let find = |name: &String| index.get(name).copied().ok_or_else(|| AppGraphError::UnknownWorkload(name.clone()));
            graph.add_edge(find(&call.from)?, find(&call.to)?, call.max_cost);
        }
        Ok(Self { graph, index })
    }

    /// The workloads in an order in which to place them.
    ///
    /// # Errors
    /// When workloads call each other in a circle.
    pub fn order(&self, order: Order) -> Result<Vec<&str>, AppGraphError> {
        let mut nodes = match order {
            Order::Kahn | Order::ReverseKahn | Order::AlternateKahn => self.kahn()?,
            Order::Tarjan | Order::ReverseTarjan | Order::AlternateTarjan => petgraph::algo::toposort(&self.graph, None)
                .map_err(|cycle| AppGraphError::Cycle(self.graph[cycle.node_id()].clone()))?,
        };
        match order {
            Order::Kahn | Order::Tarjan => {}
            Order::ReverseKahn | Order::ReverseTarjan => nodes.reverse(),
            Order::AlternateKahn | Order::AlternateTarjan => {
                let mut rest = VecDeque::from(nodes);
                nodes = Vec::with_capacity(rest.len());
                while let Some(first) = rest.pop_front() {
                    nodes.push(first);
                    nodes.extend(rest.pop_back());
                }
            }
        }
        Ok(nodes.into_iter().map(|node| self.graph[node].as_str()).collect())
    }

    fn kahn(&self) -> Result<Vec<NodeIndex>, AppGraphError> {
        let mut callers: Vec<usize> =
            self.graph.node_indices().map(|node| self.graph.edges_directed(node, Direction::Incoming).count()).collect();
        let mut free: VecDeque<NodeIndex> = self.graph.node_indices().filter(|node| callers[node.index()] == 0).collect();
        let mut order = Vec::with_capacity(callers.len());
        while let Some(node) = free.pop_front() {
            order.push(node);
            // Edges come latest first; the order of the calls settles ties.
            let mut called: Vec<NodeIndex> = self.graph.edges(node).map(|edge| edge.target()).collect();
            called.reverse();
            for next in called {
                callers[next.index()] -= 1;
                if callers[next.index()] == 0 {
                    free.push_back(next);
                }
            }
        }
        match callers.iter().position(|count| *count > 0) {
            Some(node) => Err(AppGraphError::Cycle(self.circle(NodeIndex::new(node), &callers))),
            None => Ok(order),
        }
    }

    /// A workload that calls itself: a caller of a caller and so on, all of which are left, comes
    /// round sooner or later.
    fn circle(&self, start: NodeIndex, callers: &[usize]) -> String {
        let mut node = start;
        for _ in 0..callers.len() {
            let before = self.graph.neighbors_directed(node, Direction::Incoming);
            node = before.filter(|caller| callers[caller.index()] > 0).min().unwrap_or(node);
        }
        self.graph[node].clone()
    }

    /// The placed pods that a workload's pods will call, from where each workload's pods are
    /// (positions of nodes, one entry a pod). A workload that is not in the graph has none.
    #[must_use]
    pub fn placed_dependencies(&self, workload: &str, pods: &BTreeMap<String, Vec<usize>>) -> Vec<PlacedDependency> {
        let Some(node) = self.index.get(workload) else { return Vec::new() };
        let mut placed: Vec<PlacedDependency> = (self.graph.edges(*node))
            .flat_map(|edge| {
                let at = pods.get(&self.graph[edge.target()]).map_or(&[][..], Vec::as_slice);
                at.iter().map(move |node| PlacedDependency { node: *node, max_cost: *edge.weight() })
            })
            .collect();
        placed.sort_by_key(|placed| placed.node);
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(from: &str, to: &str) -> Call {
        Call { from: from.into(), to: to.into(), max_cost: 5.0 }
    }

    #[test]
    fn every_order_puts_callers_before_or_after_what_they_call() {
        let calls = [call("a", "c"), call("b", "c"), call("c", "d"), call("a", "d"), call("d", "e")];
        let graph = AppGraph::new(["e", "d", "c", "b", "a"].map(String::from), calls.clone()).unwrap();
        for (order, reversed) in
            [(Order::Kahn, false), (Order::Tarjan, false), (Order::ReverseKahn, true), (Order::ReverseTarjan, true)]
        {
            let order = graph.order(order).unwrap();
            let at = |name: &str| order.iter().position(|found| *found == name).unwrap();
            for call in &calls {
                assert_eq!(at(&call.from) > at(&call.to), reversed, "{order:?}");
            }
        }
        assert_eq!(graph.order(Order::AlternateTarjan).unwrap().len(), 5);
    }

    #[test]
    fn circles_and_unknown_names_are_refused() {
        let graph = AppGraph::new(["a", "b"].map(String::from), [call("a", "b"), call("b", "a")]).unwrap();
        assert!(matches!(graph.order(Order::Kahn), Err(AppGraphError::Cycle(_))));
        assert!(matches!(graph.order(Order::Tarjan), Err(AppGraphError::Cycle(_))));
        // Whoever is only called from the circle is not in it.
        let called = AppGraph::new(["c", "a", "b"].map(String::from), [call("a", "b"), call("b", "a"), call("a", "c")]).unwrap();
        let named = |order| match called.order(order) {
            Err(AppGraphError::Cycle(workload)) => workload,
            other => panic!("{other:?}"),
        };
        assert_ne!(named(Order::Kahn), "c");
        assert_ne!(named(Order::Tarjan), "c");
        assert!(AppGraph::new(["a".to_owned()], [call("a", "x")]).is_err());
        assert!(AppGraph::new(["a", "a"].map(String::from), []).is_err());
    }

    #[test]
    fn each_pod_of_each_dependency_counts() {
        let graph = AppGraph::new(["a", "b", "c"].map(String::from), [call("a", "b"), call("a", "c"), call("b", "c")]).unwrap();
        let pods = BTreeMap::from([("b".to_owned(), vec![4, 2]), ("c".to_owned(), vec![4])]);
        let nodes = |workload| graph.placed_dependencies(workload, &pods).iter().map(|placed| placed.node).collect::<Vec<_>>();
        assert_eq!(nodes("a"), [2, 4, 4]);
        assert_eq!(nodes("b"), [4]);
        assert!(nodes("c").is_empty() && nodes("x").is_empty());
    }
}
