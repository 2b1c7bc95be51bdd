//! The answer: which nodes get how many replicas, who is served where, and what could not be done.

pub mod explain;
mod planner;
mod prices;
mod stability;
#[cfg(feature = "trace")]
pub mod trace;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::Exclusion;
use latency_matrix::NodeName;
pub use planner::Planner;
pub use prices::{PricedSource, least_network};
pub use stability::{Choice, MoveHistory, Stability, Verdict};

/// Demand of one source that is served on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Where requests come in.
    pub source: NodeName,
    /// Where they are served.
    pub node: NodeName,
    /// How many are in flight.
    pub concurrency: f64,
}

/// Demand that no node can take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unserved {
    /// Where requests come in.
    pub source: NodeName,
    /// How many are in flight.
    pub concurrency: f64,
}

/// Why a node takes no further replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnplacedReason {
    /// It has as many as it may have.
    Full {
        /// How many that is.
        max_replicas: u32,
    },
    /// It takes no new replicas.
    Cordoned,
    /// It is excluded.
    Excluded(Exclusion),
    /// No source with demand can reach it.
    Unreachable,
}

impl fmt::Display for UnplacedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { max_replicas } => write!(f, "it has as many as it may have: {max_replicas}"),
            Self::Cordoned => f.write_str("it takes no new replicas"),
            Self::Excluded(exclusion) => write!(f, "it is excluded: {exclusion}"),
            Self::Unreachable => f.write_str("no source with demand can reach it"),
        }
    }
}

/// Replicas for which there is no place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// How many.
    pub replicas: u32,
    /// Why each node takes none of them; empty when there is no candidate node at all.
    pub reasons: BTreeMap<NodeName, UnplacedReason>,
}

/// Why no replica is in a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneReason {
    /// None of its nodes may or can have one, each for its own reason.
    NoRoom(BTreeMap<NodeName, UnplacedReason>),
    /// There is room, but no replica for it: there are too few, or they must stay where they are.
    NoReplica,
}

/// Required zones in which there is no replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesMissing {
    /// Zones with replicas.
    pub used: u32,
    /// The number of zones required.
    pub asked: u32,
    /// Why there is none in each of the other zones; empty when no candidate node is in another
    /// zone.
    pub reasons: BTreeMap<String, ZoneReason>,
}

/// What a plan costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanCost {
    /// Mean network time of a served request, seconds.
    pub network_seconds: f64,
    /// Mean serving time of a served request, seconds.
    pub serving_seconds: f64,
    /// Replicas that have to be started.
    pub starts: u32,
    /// The whole objective (see [`crate::Problem`]), requests in flight x seconds.
    pub objective: f64,
}

/// What is known about how good a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// No placement has an objective smaller by more than a nanosecond of mean response time.
    Optimal,
    /// No placement has an objective below this.
    AtLeast {
        /// The lower bound.
        objective: f64,
    },
}

/// A placement of one service and the routing that goes with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Replicas per node; nodes that get none are not listed.
    pub replicas: BTreeMap<NodeName, u32>,
    /// Who is served where, by source and node name.
    pub flows: Vec<Flow>,
    /// Replicas for which there is no place.
    pub unplaced: Option<Unplaced>,
    /// The zones that the plan lacks; `None` when there are replicas in the required number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones_missing: Option<ZonesMissing>,
    /// Nodes with fewer replicas than they shall have in any case
    /// ([`crate::NodeCapacity::at_least`]), and how many they lack: they may not have so many, or
    /// there are too few in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub below_minimum: BTreeMap<NodeName, u32>,
    /// Demand that no node can take, because nothing runs, none that runs replicas is reachable, or
    /// those that are reachable are full.
    pub unserved: Vec<Unserved>,
    /// Demand over the concurrency of all placed replicas; above 1 all of them are overloaded
    /// alike. 0 when nothing runs. Demand of sources that reach no node where replicas may run is
    /// left out: it is no load.
    pub utilisation: f64,
    /// Demand that one replica may get in this plan: its concurrency, or more when there is too
    /// much demand.
    pub replica_capacity: f64,
    /// What the plan costs.
    pub cost: PlanCost,
    /// How good it is.
    pub proof: Proof,
}

impl Plan {
    /// Replicas on a node.
    #[must_use]
    pub fn replicas_on(&self, node: &NodeName) -> u32 {
        self.replicas.get(node).copied().unwrap_or(0)
    }

    /// Replicas on all nodes.
    #[must_use]
    pub fn total_replicas(&self) -> u32 {
        self.replicas.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Demand served on a node.
    #[must_use]
    pub fn load_on(&self, node: &NodeName) -> f64 {
        self.flows.iter().filter(|flow| flow.node == *node).map(|flow| flow.concurrency).sum()
    }
}
