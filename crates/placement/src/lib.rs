//! Latency-aware placement as a library: no I/O, no clock, no cluster.
//!
//! Data goes one way:
//!
//! ```text
//! measurements -> LatencyMatrix -> CostMatrix -> Problem -> Plan -> WeightMatrix, scores
//!   (matrix)        (matrix)         (cost)     (problem)  (plan)    (weights)  (score)
//! ```
//!
//! A controller that runs one service on several nodes uses it like this, once per decision:
//!
//! 1. Put what the probes say into a [`LatencyMatrix`]. A pair that was never measured, whose
//!    measurement is old, or whose numbers make no sense is a *state* of the matrix and never looks
//!    better than a measured pair.
//! 2. Choose what a pair costs with a [`CostPolicy`] (a quantile, or mean and jitter) and get a
//!    [`CostMatrix`].
//! 3. Say who asks ([`Demand`] per source node), where replicas may run ([`NodeCapacity`]), what
//!    runs now, how many replicas there shall be, and how much one of them serves: a [`Problem`].
//! 4. [`Problem::solve`] gives a [`Plan`]: replicas per node, the flow from each source node to
//!    each serving node, and what could not be placed with the reason.
//! 5. [`WeightMatrix::assigned`] turns the plan into routing weights per source node, and
//!    [`score::for_demand`] into node scores for a scheduler that places one pod at a time.
//!
//! ```
//! use placement::{
//!     CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, PairState, PairStats, Problem,
//!     WeightMatrix,
//! };
//!
//! // node1 and node2 are 1 ms apart, node3 is 50 ms away from both.
//! let nodes: Vec<NodeName> = ["node1", "node2", "node3"].map(NodeName::from).to_vec();
//! let mut matrix = LatencyMatrix::new(nodes.clone())?;
//! let round_trips =
//!     [("node1", "node2", 0.001), ("node1", "node3", 0.050), ("node2", "node3", 0.050)];
//! for (from, to, rtt_seconds) in round_trips {
//!     let rtt = PairState::Known(PairStats::constant(rtt_seconds));
//!     matrix.set_symmetric(&from.into(), &to.into(), rtt)?;
//! }
//!
//! // All requests come in at node3; one replica serves ten at a time.
//! let costs = CostPolicy::default().costs(&matrix);
//! let plan = Problem::new("hello", costs.clone(), 1, 10.0)
//!     .with_demand(Demand::from_concurrency([("node3".into(), 4.0)])?)
//!     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 10)))
//!     .solve()?;
//! assert_eq!(plan.replicas_on(&"node3".into()), 1);
//!
//! // Whichever node a request enters, it is answered on node3.
//! let weights = WeightMatrix::assigned(&nodes, &plan, &costs);
//! assert_eq!(weights.row(&"node1".into()), Some(vec![0, 0, 100]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod anneal;
#[cfg(feature = "app-graph")]
mod app_graph;
mod apportion;
mod bound;
mod branch;
mod capacity;
#[cfg(feature = "completion")]
pub mod completion;
mod cost;
mod costs;
mod demand;
pub mod explain;
mod factored;
pub mod flow;
mod instance;
pub mod many;
mod plan;
mod planner;
mod posed;
mod problem;
mod reduce;
mod regions;
pub mod score;
mod search;
mod serving;
mod site_costs;
mod slo;
mod solve;
mod spec;
mod stability;
pub mod synthetic;
mod tie;
mod topology;
mod toward;
#[cfg(feature = "trace")]
pub mod trace;
mod uniform;
mod weights;
mod zones;

#[cfg(feature = "app-graph")]
pub use app_graph::{AppGraph, AppGraphError, Call, Order};
pub use apportion::apportion;
pub use capacity::{Exclusion, NodeCapacity};
pub use cost::{CostMatrix, CostPolicy, Statistic};
pub use costs::Costs;
pub use demand::{Demand, DemandError};
pub use factored::FactoredWeights;
pub use latency_matrix::{Freshness, LatencyMatrix, MatrixError, NodeName, PairState, PairStats, Quantile, Rtt, RttError};
pub use plan::{Flow, Plan, PlanCost, Proof, Unplaced, UnplacedReason, Unserved, ZoneReason, ZonesMissing};
pub use planner::Planner;
pub use problem::{CostModel, Effort, Problem, ProblemError};
pub use serving::{Segment, ServingCurve, ServingError};
pub use site_costs::SiteCosts;
pub use slo::{Blocker, LevelPlan, ServiceLevel};
pub use spec::{ProblemSpec, SPEC_VERSION, SpecError};
pub use stability::{MoveHistory, Stability, Verdict};
pub use topology::{MAX_COST, Place, SAME_ZONE_COST, TableCost, TopologyCosts};
pub use weights::{WeightError, WeightMatrix};
