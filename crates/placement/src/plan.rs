//! The answer: which nodes get how many replicas, who is served where, and what could not be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capacity::Exclusion;
use crate::node::NodeName;
use crate::problem::{CostModel, Posed, Problem};
use crate::search::{self, Found};
use crate::{uniform, zones};

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

/// Replicas for which there is no place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// How many.
    pub replicas: u32,
    /// Why each node takes none of them; empty when there is no candidate node at all.
    pub reasons: BTreeMap<NodeName, UnplacedReason>,
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
    /// The whole objective (see [`Problem`]), requests in flight x seconds.
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
    /// Demand that no node can take, because none is reachable or nothing runs.
    pub unserved: Vec<Unserved>,
    /// Demand over the concurrency of all placed replicas; above 1 all of them are overloaded alike. 0 when nothing runs.
    pub utilisation: f64,
    /// Demand that one replica may get in this plan: its concurrency, or more when there is too much demand.
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
        self.replicas.values().sum()
    }

    /// Demand served on a node.
    #[must_use]
    pub fn load_on(&self, node: &NodeName) -> f64 {
        self.flows.iter().filter(|flow| flow.node == *node).map(|flow| flow.concurrency).sum()
    }

    pub(crate) fn of(posed: &mut Posed, problem: &Problem) -> Self {
        let found = zones::spread(posed, problem, |posed| match problem.model {
            CostModel::LocalFirst => search::solve(&posed.instance, posed.effort(problem.diligence)),
            CostModel::Uniform => {
                let (placement, total) = uniform::solve(&posed.instance);
                Found { placement, total, lower_bound: total, proven: true }
            }
        });
        let routed = match problem.model {
            CostModel::LocalFirst => local_first(posed, &found.placement),
            CostModel::Uniform => spread(posed, problem, &found.placement),
        };
        Self::assemble(posed, problem, &found, &routed)
    }

    /// The plan that a placement and its routing make.
    pub(crate) fn assemble(posed: &Posed, problem: &Problem, found: &Found, routed: &Routed) -> Self {
        let instance = &posed.instance;
        let placed: u32 = found.placement.iter().sum();
        let demand = if posed.idle { 0.0 } else { instance.demand() };
        let served: f64 = routed.flows.iter().map(|flow| flow.2).sum();
        let mean = |sum: f64| if served > 0.0 { sum / served } else { 0.0 };
        let starts = found.placement.iter().zip(&instance.running).map(|(count, running)| count.saturating_sub(*running)).sum();
        let mut flows: Vec<Flow> = Vec::new();
        let mut unserved = Vec::new();
        if !posed.idle {
            flows = routed
                .flows
                .iter()
                .map(|(source, node, concurrency)| Flow {
                    source: posed.sources[*source].clone(),
                    node: posed.nodes[*node].clone(),
                    concurrency: *concurrency,
                })
                .collect();
            flows.sort_by(|one, other| (&one.source, &one.node).cmp(&(&other.source, &other.node)));
            let dust = 1e-9 * demand;
            unserved = (posed.sources.iter().zip(&routed.unserved))
                .filter(|(_, left)| **left > dust)
                .map(|(source, left)| Unserved { source: source.clone(), concurrency: *left })
                .collect();
        }
        Self {
            replicas: (posed.nodes.iter().zip(&found.placement))
                .filter(|(_, count)| **count > 0)
                .map(|(node, count)| (node.clone(), *count))
                .collect(),
            flows,
            unplaced: unplaced(posed, problem, problem.replicas.saturating_sub(placed)),
            unserved,
            utilisation: if placed > 0 { demand / (f64::from(placed) * problem.replica_concurrency) } else { 0.0 },
            replica_capacity: instance.replica_capacity,
            cost: PlanCost {
                network_seconds: mean(routed.network),
                serving_seconds: mean(routed.serving),
                starts,
                objective: found.total,
            },
            proof: if found.proven { Proof::Optimal } else { Proof::AtLeast { objective: found.lower_bound } },
        }
    }
}

/// A routing in numbers.
#[derive(Default)]
pub(crate) struct Routed {
    /// Source, node, demand.
    pub(crate) flows: Vec<(usize, usize, f64)>,
    pub(crate) unserved: Vec<f64>,
    /// Sum of demand x network seconds.
    pub(crate) network: f64,
    /// Sum of demand x serving seconds.
    pub(crate) serving: f64,
}

fn local_first(posed: &Posed, placement: &[u32]) -> Routed {
    let (servers, routing) = posed.instance.route(placement);
    let flows = servers
        .iter()
        .zip(&routing.tenants)
        .flat_map(|(server, tenants)| tenants.iter().map(|(source, concurrency)| (*source, server.row, *concurrency)));
    Routed { flows: flows.collect(), network: routing.network, serving: routing.serving, unserved: routing.unserved }
}

fn spread(posed: &Posed, problem: &Problem, placement: &[u32]) -> Routed {
    let instance = &posed.instance;
    let placed = f64::from(placement.iter().sum::<u32>());
    let mut routed = Routed { unserved: instance.supplies.clone(), ..Routed::default() };
    if placed == 0.0 {
        return routed;
    }
    for (node, count) in placement.iter().enumerate().filter(|(_, count)| **count > 0) {
        for (source, supply) in instance.supplies.iter().enumerate() {
            let cost = instance.costs[(node, source)];
            if cost.is_finite() {
                let concurrency = supply * f64::from(*count) / placed;
                routed.flows.push((source, node, concurrency));
                routed.unserved[source] -= concurrency;
                routed.network += concurrency * cost;
            }
        }
    }
    let served: f64 = routed.flows.iter().map(|flow| flow.2).sum();
    routed.serving = served * problem.serving.mean_seconds(served / (placed * instance.replica_capacity));
    routed
}

fn unplaced(posed: &Posed, problem: &Problem, replicas: u32) -> Option<Unplaced> {
    let reasons = || (0..posed.nodes.len()).map(|node| (posed.nodes[node].clone(), posed.block(problem, node))).collect();
    (replicas > 0).then(|| Unplaced { replicas, reasons: reasons() })
}
