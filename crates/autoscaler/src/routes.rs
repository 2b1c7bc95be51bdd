//! Which way: per source node, which share of its requests each serving node gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_link::{ROW_TOTAL, RevisionKey, RevisionRoutes, RouteStreamError};
use latency_matrix::NodeName;
use ndarray::Array2;
use placement::problem::{CostModel, ProblemError, Segment};
use placement::routing::{self, Server, apportion};
use placement::{Demand, NodeCapacity, Problem};
use serde::{Serialize, Serializer};

use crate::picture::Network;
use crate::rollout::Counts;

/// Serving takes no time: only the network counts.
const FLAT: [Segment; 1] = [Segment { width: 1.0, marginal_seconds: 0.0 }];

/// Shares of one source node: positions of serving nodes and their weights, which sum to 100.
type SourceShares = Arc<[(u32, u32)]>;

/// The routes of one revision. A row for every node; rows that are alike share their memory.
#[derive(Clone, Debug)]
pub struct Routes {
    nodes: Arc<[NodeName]>,
    rows: Vec<SourceShares>,
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && (Arc::ptr_eq(&self.nodes, &other.nodes) || self.nodes == other.nodes)
    }
}

impl Serialize for Routes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: BTreeMap<&NodeName, BTreeMap<&NodeName, u32>> =
            self.nodes.iter().enumerate().map(|(source, node)| (node, self.row(source).collect())).collect();
        rows.serialize(serializer)
    }
}

impl Routes {
    /// Every node to itself: what holds while nothing is decided.
    #[must_use]
    pub fn identity(nodes: &[NodeName]) -> Self {
        let rows = (0..nodes.len()).map(|node| SourceShares::from([(as_u32(node), ROW_TOTAL)])).collect();
        Self { nodes: nodes.into(), rows }
    }

    /// The nodes, in name order: rows and columns.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The shares of the source node at a position, in name order of the serving nodes. Empty where
    /// there is no such row.
    pub fn row(&self, source: usize) -> impl Iterator<Item = (&NodeName, u32)> {
        let row = self.rows.get(source).map_or(&[][..], |row| row);
        row.iter().filter_map(|(node, weight)| Some((self.nodes.get(*node as usize)?, *weight)))
    }

    /// Nodes that any request is routed to.
    #[must_use]
    pub fn serving(&self) -> BTreeSet<&NodeName> {
        let mut is_serving = vec![false; self.nodes.len()];
        for (node, _) in self.rows.iter().flat_map(|row| row.iter()) {
            if let Some(is_serving) = is_serving.get_mut(*node as usize) {
                *is_serving = true;
            }
        }
        self.nodes.iter().zip(is_serving).filter(|(_, is_serving)| *is_serving).map(|(node, _)| node).collect()
    }

    /// As they are sent to the gateways.
    ///
    /// # Errors
    /// Where a row does not sum to 100, which is a fault of this module.
    pub fn to_wire(&self, key: &RevisionKey) -> Result<RevisionRoutes, RouteStreamError> {
        let rows = self.nodes.iter().enumerate().map(|(source, node)| {
            let row: Vec<(&str, u32)> = self.row(source).map(|(node, weight)| (node.as_str(), weight)).collect();
            (node.as_str(), row)
        });
        RevisionRoutes::new(key.clone(), rows)
    }

    /// The square matrix of weights, rows and columns in name order.
    #[must_use]
    pub fn to_matrix(&self) -> Vec<Vec<u32>> {
        let size = self.nodes.len();
        let mut matrix = vec![vec![0; size]; size];
        for (source, row) in self.rows.iter().enumerate() {
            for (node, weight) in row.iter() {
                matrix[source][*node as usize] = *weight;
            }
        }
        matrix
    }
}

/// Routes to `serving`, the ready pods per node, of which one may get `capacity` of `demand`.
/// `None` where no pod is ready on a node that the network knows.
///
/// # Errors
/// Where the placement library refuses the numbers.
pub(crate) fn route(
    key: &RevisionKey,
    network: &Network,
    nodes: &Arc<[NodeName]>,
    serving: &Counts,
    demand: &[(NodeName, f64)],
    capacity: f64,
) -> Result<Option<Routes>, ProblemError> {
    let position = |node: &NodeName| nodes.binary_search(node).ok();
    let servers: Vec<(usize, u32)> =
        serving.iter().filter_map(|(node, count)| Some((position(node)?, *count))).filter(|(_, count)| *count > 0).collect();
    if servers.is_empty() {
        return Ok(None);
    }
    let mut load = vec![0.0; servers.len()];
    let nearest: Vec<usize> = (0..nodes.len()).map(|source| nearest(network, source, &servers, |_| true)).collect();
    let sent: Vec<(usize, f64)> =
        demand.iter().filter_map(|(node, amount)| Some((position(node)?, *amount))).filter(|(_, amount)| *amount > 0.0).collect();
    for (source, amount) in &sent {
        load[nearest[*source]] += amount;
    }
    let alone: Vec<SourceShares> = servers.iter().map(|(node, _)| SourceShares::from([(as_u32(*node), ROW_TOTAL)])).collect();
    let fits = |(load, (_, count)): (&f64, &(usize, u32))| *load <= f64::from(*count) * capacity + 1e-9;
    if network.model == CostModel::LocalFirst && load.iter().zip(&servers).all(fits) {
        // Every request goes the shortest way and no pod gets too much: no routing is better.
        let rows = nearest.into_iter().map(|server| alone[server].clone()).collect();
        return Ok(Some(Routes { nodes: nodes.clone(), rows }));
    }
    let (flows, pod_serves) = match network.model {
        CostModel::LocalFirst => shortest(network, &servers, &sent, capacity),
        CostModel::Uniform => spread(key, network, serving, demand, capacity, position)?,
    };
    let mut shares: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut load = vec![0.0; servers.len()];
    for (source, node, concurrency) in flows {
        let Ok(server) = servers.binary_search_by_key(&node, |(node, _)| *node) else { continue };
        shares.entry(source).or_insert_with(|| vec![0.0; servers.len()])[server] += concurrency;
        load[server] += concurrency;
    }
    let has_room = |server: usize| load[server] < f64::from(servers[server].1) * pod_serves - 1e-9;
    let any_room = (0..servers.len()).any(has_room);
    let rows = nearest.into_iter().enumerate().map(|(source, nearest)| match shares.get(&source) {
        Some(shares) => {
            let mut row = apportion(shares, |server| as_u32(server).into());
            row.sort_unstable();
            row.into_iter().map(|(server, weight)| (as_u32(servers[server].0), weight)).collect()
        }
        None if !any_room || has_room(nearest) => alone[nearest].clone(),
        None => alone[self::nearest(network, source, &servers, has_room)].clone(),
    });
    Ok(Some(Routes { nodes: nodes.clone(), rows: rows.collect() }))
}

/// Source, node and concurrency of each share, and what one pod takes.
type Shares = (Vec<(usize, usize, f64)>, f64);

/// The least network time over all ways to share `sent` among the servers.
fn shortest(network: &Network, servers: &[(usize, u32)], sent: &[(usize, f64)], capacity: f64) -> Shares {
    let supplies: Vec<f64> = sent.iter().map(|(_, amount)| *amount).collect();
    let pods: u32 = servers.iter().map(|(_, count)| count).sum();
    // Where there is more demand than pods can take, each takes its share of the excess.
    let pod_serves = capacity.max(supplies.iter().sum::<f64>() / f64::from(pods.max(1)) * (1.0 + 1e-9));
    let costs = Array2::from_shape_fn((servers.len(), sent.len()), |(server, source)| {
        network.costs.at(sent[source].0, servers[server].0)
    });
    let rows: Vec<Server> =
        servers.iter().enumerate().map(|(row, (_, count))| Server { row, capacity: f64::from(*count) * pod_serves }).collect();
    let routing = routing::route(&costs, &supplies, &rows, &FLAT);
    let tenants = servers.iter().zip(&routing.tenants);
    let flows = tenants.flat_map(|((node, _), tenants)| tenants.iter().map(|(source, amount)| (sent[*source].0, *node, *amount)));
    (flows.collect(), pod_serves)
}

/// As gateways share requests that choose any pod.
fn spread(
    key: &RevisionKey,
    network: &Network,
    serving: &Counts,
    demand: &[(NodeName, f64)],
    capacity: f64,
    position: impl Fn(&NodeName) -> Option<usize>,
) -> Result<Shares, ProblemError> {
    let plan = Problem::new(key.to_string(), network.costs.clone(), serving.values().sum(), capacity)
        .with_demand(Demand::from_concurrency(demand.iter().cloned()).unwrap_or_default())
        .with_capacities(serving.iter().map(|(node, count)| NodeCapacity::new(node.clone(), *count)))
        .with_running(serving.iter().map(|(node, count)| (node.clone(), *count)))
        .with_model(network.model)
        .solve()?;
    let flows = plan.flows.iter().filter_map(|flow| Some((position(&flow.source)?, position(&flow.node)?, flow.concurrency)));
    Ok((flows.collect(), plan.replica_capacity))
}

/// Serialises routes exactly, for replaying decisions. The other form is for reading.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Arc, NodeName, Routes};

    #[derive(Serialize, Deserialize)]
    struct Exact {
        nodes: Vec<NodeName>,
        rows: Vec<Vec<(u32, u32)>>,
    }

    #[allow(clippy::ref_option)] // What serde asks for.
    pub(crate) fn serialize<S: Serializer>(routes: &Option<Arc<Routes>>, serializer: S) -> Result<S::Ok, S::Error> {
        let exact = routes
            .as_ref()
            .map(|routes| Exact { nodes: routes.nodes.to_vec(), rows: routes.rows.iter().map(|row| row.to_vec()).collect() });
        exact.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Routes>>, D::Error> {
        let exact: Option<Exact> = Option::deserialize(deserializer)?;
        Ok(exact
            .map(|exact| Arc::new(Routes { nodes: exact.nodes.into(), rows: exact.rows.into_iter().map(Into::into).collect() })))
    }
}

/// Position of the server nearest to `source` among those that `may` take more. Ties are broken by
/// a hash of both, so that sources with unknown latency do not all choose the same one.
fn nearest(network: &Network, source: usize, servers: &[(usize, u32)], may: impl Fn(usize) -> bool) -> usize {
    let tie = |server: usize| mix(source as u64, servers[server].0 as u64);
    let candidates = (0..servers.len()).filter(|server| may(*server));
    let distances = candidates.map(|server| (network.costs.at(source, servers[server].0), server));
    let nearest = distances.min_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| tie(*one).cmp(&tie(*other))));
    nearest.map_or(0, |(_, server)| server)
}

/// Mixes two numbers well enough to break ties.
/// Source: the finaliser of `splitmix64` (Steele, Lea, Flood 2014).
fn mix(one: u64, other: u64) -> u64 {
    let mut mixed = (one << 32 | other).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

fn as_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
