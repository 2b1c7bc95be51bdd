//! Where replicas of a service may run.

use std::fmt;

use serde::{Deserialize, Serialize};

use latency_matrix::NodeName;

/// Why no replica may run on a node, whatever else speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The node does not answer, or reports that it is not ready.
    NotReady,
    /// The service does not tolerate a taint of the node.
    Taint(String),
    /// The service's node selector or affinity does not match.
    Selector,
    /// Any other hard reason, as text.
    Other(String),
}

impl fmt::Display for Exclusion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => formatter.write_str("not ready"),
            Self::Taint(taint) => write!(formatter, "taint {taint} is not tolerated"),
            Self::Selector => formatter.write_str("does not match the service's node selector"),
            Self::Other(reason) => formatter.write_str(reason),
        }
    }
}

/// How many replicas of the service may run on one node. A node that has none of these is no
/// candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeCapacity {
    /// The node.
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "String"))]
    pub node: NodeName,
    /// Replicas of this service that may run there, those running now included.
    pub max_replicas: u32,
    /// Replicas of this service that shall run there in any case, as far as it may have them and
    /// there are so many in all; where all nodes' wishes together are too many, the order of a hash
    /// decides.
    #[serde(default)]
    pub min_replicas: u32,
    /// Whether new replicas may be started; where not (cordoned), those that run may stay.
    #[serde(default = "yes")]
    pub schedulable: bool,
    /// A hard reason against any replica, running ones included.
    #[serde(default)]
    pub excluded: Option<Exclusion>,
}

fn yes() -> bool {
    true
}

impl NodeCapacity {
    /// A schedulable node with room for `max_replicas` replicas.
    #[must_use]
    pub fn new(node: NodeName, max_replicas: u32) -> Self {
        Self { node, max_replicas, min_replicas: 0, schedulable: true, excluded: None }
    }

    /// The same node, with at least `min_replicas` replicas.
    ///
    /// ```
    /// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    ///
    /// let nodes: Vec<NodeName> = ["a", "b"].map(NodeName::from).to_vec();
    /// let costs = CostMatrix::new(nodes, ndarray::array![[0.0, 0.02], [0.02, 0.0]]);
    /// let problem = Problem::new("hello", costs, 3, 10.0)
    ///     .with_capacities([
    ///         NodeCapacity::new("a".into(), 5),
    ///         NodeCapacity::new("b".into(), 5).at_least(1),
    ///     ])
    ///     .with_demand(Demand::from_concurrency([("a".into(), 25.0)])?);
    /// assert_eq!(problem.solve()?.replicas, [("a".into(), 2), ("b".into(), 1)].into());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at_least(mut self, min_replicas: u32) -> Self {
        self.min_replicas = min_replicas;
        self
    }

    /// The same node, taking no new replicas.
    #[must_use]
    pub fn cordoned(mut self) -> Self {
        self.schedulable = false;
        self
    }

    /// The same node, excluded.
    #[must_use]
    pub fn excluded(mut self, reason: Exclusion) -> Self {
        self.excluded = Some(reason);
        self
    }

    /// The most replicas a plan may put here when `running` of them are here now.
    #[must_use]
    pub fn limit(&self, running: u32) -> u32 {
        if self.excluded.is_some() {
            0
        } else if self.schedulable {
            self.max_replicas
        } else {
            self.max_replicas.min(running)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node_keeps_what_runs_and_an_excluded_one_does_not() {
        let node = NodeCapacity::new("a".into(), 5);
        assert_eq!(node.limit(2), 5);
        assert_eq!(node.clone().cordoned().limit(2), 2);
        assert_eq!(node.cordoned().excluded(Exclusion::NotReady).limit(2), 0);
    }
}
