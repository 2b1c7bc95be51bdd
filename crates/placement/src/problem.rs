//! The question: which nodes get how many replicas of a service? Beside it the inputs that it is
//! made of, and larger questions: service levels, many services.

mod capacity;
mod demand;
pub mod many;
mod serving;
mod slo;
mod spec;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::latency::Costs;
pub use capacity::{Exclusion, NodeCapacity};
pub use demand::{Demand, DemandError};
use latency_matrix::NodeName;
pub use serving::{Segment, ServingCurve, ServingError};
pub use slo::{Blocker, LevelPlan, ServiceLevel};
pub use spec::{ProblemSpec, SPEC_VERSION, SpecError};

/// How gateways choose a replica for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CostModel {
    /// Each source node sends to the replicas that the plan assigns to it.
    #[default]
    LocalFirst,
    /// Each source node spreads evenly over all replicas, as stock gateways do.
    Uniform,
}

/// Why a problem cannot be solved as stated.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ProblemError {
    /// The concurrency that one replica serves is not a number from 1e-9 to 1e12.
    #[error("failed to plan {service}: one replica cannot serve {value} requests at a time")]
    ReplicaConcurrency {
        /// The service.
        service: String,
        /// The number given.
        value: f64,
    },
    /// A move cost that is NaN, infinite or negative.
    #[error("failed to plan {service}: a move cost of {value} seconds is not a finite time of at least 0")]
    MoveCost {
        /// The service.
        service: String,
        /// The number given.
        value: f64,
    },
}

/// How long to search where no proof is near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// For one of many services that are planned together: a good plan, little is known of how
    /// good.
    Quick,
    /// Milliseconds for hundreds of nodes and sources.
    #[default]
    Usual,
    /// About a minute for hundreds of nodes and sources.
    Thorough,
}

/// The default of the smallest gain for which a running replica is moved: a microsecond of mean
/// response time.
pub(crate) const TIE_SECONDS: f64 = 1e-6;

/// One service, and all that its placement depends on.
///
/// # Objective
///
/// With `f[s][n]` the demand of source `s` served on node `n` and `x[n]` the replicas on `n`, the
/// plan minimises
///
/// ```text
/// sum f[s][n] * cost(s, n)                       network: requests in flight x seconds
/// + sum of serving time at each node's utilisation    (ServingCurve)
/// + move seconds x share x (replicas to start)        share = demand / replicas
/// + 3600 s x demand that no node can take
/// ```
///
/// subject to `sum_n x[n] = replicas`, `x[n]` within the node's limit and
/// `sum_s f[s][n] <= x[n] * replica concurrency`. Demand above the concurrency of all replicas
/// stretches every replica evenly. With [`CostModel::Uniform`], `f[s][n]` is fixed at
/// `demand[s] * x[n] / replicas`.
///
/// The plan says whether its optimum is proven ([`Proof`](crate::plan::Proof)). Among equals,
/// running replicas stay; then nodes nearer to the demand win; then nodes in the order of a hash of
/// service and node name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub(crate) service: String,
    pub(crate) costs: Costs,
    pub(crate) replicas: u32,
    pub(crate) replica_concurrency: f64,
    pub(crate) demand: Demand,
    pub(crate) capacities: BTreeMap<NodeName, NodeCapacity>,
    pub(crate) running: BTreeMap<NodeName, u32>,
    pub(crate) serving: ServingCurve,
    pub(crate) model: CostModel,
    pub(crate) move_seconds: f64,
    pub(crate) keep_running: bool,
    #[serde(rename = "diligence")]
    pub(crate) effort: Effort,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) most_steps: Option<u32>,
    pub(crate) zones: BTreeMap<NodeName, String>,
    pub(crate) least_zones: u32,
    pub(crate) node_share: Option<f64>,
}

impl Problem {
    /// A problem for `replicas` replicas in all, each serving `replica_concurrency` requests at a
    /// time; so far without demand or nodes.
    #[must_use]
    pub fn new(service: impl Into<String>, costs: impl Into<Costs>, replicas: u32, replica_concurrency: f64) -> Self {
        Self {
            service: service.into(),
            costs: costs.into(),
            replicas,
            replica_concurrency,
            demand: Demand::default(),
            capacities: BTreeMap::new(),
            running: BTreeMap::new(),
            serving: ServingCurve::default(),
            model: CostModel::default(),
            move_seconds: TIE_SECONDS,
            keep_running: false,
            effort: Effort::Usual,
            most_steps: None,
            zones: BTreeMap::new(),
            least_zones: 0,
            node_share: None,
        }
    }

    /// Demand per source node. Without any, running replicas stay, and more go where they are
    /// nearest to all nodes alike.
    #[must_use]
    pub fn with_demand(mut self, demand: Demand) -> Self {
        self.demand = demand;
        self
    }

    /// The nodes that are candidates. A later entry for the same node replaces an earlier one.
    #[must_use]
    pub fn with_capacities(mut self, capacities: impl IntoIterator<Item = NodeCapacity>) -> Self {
        self.capacities.extend(capacities.into_iter().map(|capacity| (capacity.node.clone(), capacity)));
        self
    }

    /// Replicas that run now.
    #[must_use]
    pub fn with_running(mut self, running: impl IntoIterator<Item = (NodeName, u32)>) -> Self {
        self.running.extend(running);
        self
    }

    /// Serving time by utilisation; default: none.
    #[must_use]
    pub fn with_serving(mut self, serving: ServingCurve) -> Self {
        self.serving = serving;
        self
    }

    /// How gateways spread requests; default: [`CostModel::LocalFirst`].
    #[must_use]
    pub fn with_model(mut self, model: CostModel) -> Self {
        self.model = model;
        self
    }

    /// Seconds of response time, averaged over the requests that one replica serves, that starting
    /// a replica on a new node must gain. Default: one microsecond, which makes ties keep what
    /// runs.
    #[must_use]
    pub fn with_move_seconds(mut self, move_seconds: f64) -> Self {
        self.move_seconds = move_seconds;
        self
    }

    /// Keeps every running replica that may stay, as far as the number of replicas allows; only the
    /// difference is decided.
    #[must_use]
    pub fn keeping_what_runs(mut self) -> Self {
        self.keep_running = true;
        self
    }

    /// The zone of each node, and in how many zones at least there shall be replicas, as far as
    /// there are enough replicas and enough zones with room; the plan lists missing zones with the
    /// reason. Nodes without a zone are in none. The best such plan is found, and proven, for
    /// up to 16 nodes; with more it is a good one.
    ///
    /// ```
    /// # use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    /// # let nodes: Vec<NodeName> = ["a", "b", "c"].map(NodeName::from).to_vec();
    /// # let costs = CostMatrix::new(
    /// #     nodes.clone(),
    /// #     ndarray::array![[0.0, 0.001, 0.03], [0.001, 0.0, 0.03], [0.03, 0.03, 0.0]],
    /// # );
    /// # let problem = Problem::new("hello", costs, 2, 10.0)
    /// #     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 5)))
    /// #     .with_demand(Demand::from_concurrency([("a".into(), 9.0)])?);
    /// // All requests come in at a; b is near to it and in the same zone, c is far away in
    /// // another.
    /// assert_eq!(problem.solve()?.replicas_on(&"a".into()), 2);
    /// let spread = problem
    ///     .with_zones(
    ///         [("a", "west"), ("b", "west"), ("c", "east")]
    ///             .map(|(node, zone)| (node.into(), zone.into())),
    ///         2,
    ///     )
    ///     .solve()?;
    /// assert_eq!((spread.replicas_on(&"a".into()), spread.replicas_on(&"c".into())), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_zones(mut self, zones: impl IntoIterator<Item = (NodeName, String)>, at_least: u32) -> Self {
        self.zones.extend(zones);
        self.least_zones = at_least;
        self
    }

    /// The largest share of all replicas that may be on one node, above 0 and at most 1; one
    /// replica may be anywhere.
    #[must_use]
    pub fn with_node_share(mut self, at_most: f64) -> Self {
        // NaN could not be written down; like 0 it allows one.
        self.node_share = Some(if at_most.is_nan() { 0.0 } else { at_most.clamp(0.0, 1.0) });
        self
    }

    /// Searches for longer where the best plan is not easily proven: about a minute instead of tens
    /// of milliseconds for hundreds of nodes and sources. Beside a better plan this gives a better
    /// bound, by branching over how many replicas whole regions have. For plans that are made
    /// rarely, and to learn how good the fast ones are. How far it goes is counted in steps, never
    /// by a clock: equal problems get equal plans. Default: the usual search.
    #[must_use]
    pub fn searching_thoroughly(self) -> Self {
        self.with_effort(Effort::Thorough)
    }

    /// How long to search; default: [`Effort::Usual`].
    #[must_use]
    pub fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// Limits the steps of each kind: prices adjusted, moves of a replica tried, placements
    /// routed for a proof. With 0 the first placement is the plan. Equal problems get equal plans,
    /// on any machine; how long a step takes depends on the machine and grows with nodes x sources.
    #[must_use]
    pub fn with_most_steps(mut self, steps: u32) -> Self {
        self.most_steps = Some(steps);
        self
    }

    pub(crate) fn check(&self) -> Result<(), ProblemError> {
        let service = || self.service.clone();
        if !(1e-9..=1e12).contains(&self.replica_concurrency) {
            return Err(ProblemError::ReplicaConcurrency { service: service(), value: self.replica_concurrency });
        }
        if !(self.move_seconds.is_finite() && self.move_seconds >= 0.0) {
            return Err(ProblemError::MoveCost { service: service(), value: self.move_seconds });
        }
        Ok(())
    }
}
