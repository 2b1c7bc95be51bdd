//! A problem in numbers: what the solvers see.

use ndarray::Array2;

use crate::problem::Segment;
use crate::solver::flow::{Routing, Server, route};

/// Which nodes get how many of `replicas` replicas, so that [`Instance::total`] is least.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// `costs[(node, source)]`, seconds; infinite where nothing may be sent. In memory by node, or
    /// by source where there are more nodes than a search looks at.
    pub(crate) costs: Array2<f64>,
    /// Demand per source.
    pub(crate) supplies: Vec<f64>,
    /// Fewest replicas per node.
    pub(crate) floors: Vec<u32>,
    /// Most replicas per node.
    pub(crate) limits: Vec<u32>,
    /// Replicas that run now, per node.
    pub(crate) running: Vec<u32>,
    /// What a replica costs that has to be started, in the objective's unit (demand x seconds).
    pub(crate) start_cost: f64,
    /// What each replica on a node costs: small, to order equals; less than `start_cost`.
    pub(crate) rank_costs: Vec<f64>,
    /// Demand that one replica serves.
    pub(crate) replica_capacity: f64,
    /// Serving time by utilisation.
    pub(crate) segments: Vec<Segment>,
    /// Replicas to place; between the sums of floors and limits.
    pub(crate) replicas: u32,
}

impl Instance {
    pub(crate) fn nodes(&self) -> usize {
        self.limits.len()
    }

    pub(crate) fn demand(&self) -> f64 {
        self.supplies.iter().sum()
    }

    /// What the `count`-th replica on a node costs by itself. Never decreases with `count`.
    pub(crate) fn opening(&self, node: usize, count: u32) -> f64 {
        self.rank_costs[node] + if count > self.running[node] { self.start_cost } else { 0.0 }
    }

    /// What the replicas of a placement cost by themselves.
    pub(crate) fn openings(&self, placement: &[u32]) -> f64 {
        let mut sum = 0.0;
        for (node, count) in placement.iter().enumerate() {
            if *count > 0 {
                sum += f64::from(*count) * self.rank_costs[node]
                    + f64::from(count.saturating_sub(self.running[node])) * self.start_cost;
            }
        }
        sum
    }

    /// A node with the replicas that a placement gives it, as a server.
    pub(crate) fn server(&self, node: usize, placement: &[u32]) -> Server {
        Server { row: node, capacity: f64::from(placement[node]) * self.replica_capacity }
    }

    /// The nodes with replicas, in node order, as servers.
    pub(crate) fn servers(&self, placement: &[u32]) -> Vec<Server> {
        (0..placement.len()).filter(|node| placement[*node] > 0).map(|node| self.server(node, placement)).collect()
    }

    /// The best routing for a placement.
    pub(crate) fn route(&self, placement: &[u32]) -> (Vec<Server>, Routing) {
        let servers = self.servers(placement);
        let routing = route(&self.costs, &self.supplies, &servers, &self.segments);
        (servers, routing)
    }

    /// The objective: routing plus what the replicas cost by themselves.
    pub(crate) fn total(&self, placement: &[u32]) -> f64 {
        self.route(placement).1.total() + self.openings(placement)
    }

    /// Differences below this are none: a nanosecond of mean response, or rounding.
    pub(crate) fn tolerance(&self, total: f64) -> f64 {
        1e-9 * self.demand() + 1e-12 * total.abs()
    }
}
