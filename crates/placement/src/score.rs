//! Node scores from 0 to 100, for schedulers that place one pod at a time.

mod dependencies;

use std::collections::BTreeMap;

pub use dependencies::{CallCosts, PlacedDependency, Requirements, for_dependencies, requirements};

use crate::cost::CostMatrix;
use crate::demand::Demand;
use crate::node::NodeName;

/// The best score.
pub const MAX_SCORE: u8 = 100;

/// Scores nodes for one more replica of a service, by the mean response time that its demand would see there: the best node gets 100, a node
/// with twice its response time 50. A node that no source can reach gets 0. Without demand all nodes count alike as sources.
///
/// A node's score depends on its own costs and those of the best node only, and never rises when a measurement to it is lost or spoilt.
///
/// ```
/// use placement::{CostMatrix, Demand, NodeName, score};
///
/// let nodes: Vec<NodeName> = vec!["near".into(), "far".into()];
/// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.030], [0.030, 0.0]]);
/// let demand = Demand::from_concurrency([("near".into(), 3.0)])?;
/// let scores = score::for_demand(&nodes, &costs, &demand, 0.010);
/// assert_eq!((scores["near"], scores["far"]), (100, 25));
/// # Ok::<(), placement::DemandError>(())
/// ```
#[must_use]
pub fn for_demand(nodes: &[NodeName], costs: &CostMatrix, demand: &Demand, serving_seconds: f64) -> BTreeMap<NodeName, u8> {
    let serving_seconds = if serving_seconds.is_finite() { serving_seconds.max(1e-6) } else { 1e-6 };
    let sources: Vec<(NodeName, f64)> = if demand.is_zero() {
        nodes.iter().map(|node| (node.clone(), 1.0)).collect()
    } else {
        demand.iter().map(|(node, demand)| (node.clone(), demand)).collect()
    };
    let total: f64 = sources.iter().map(|(_, demand)| demand).sum();
    let responses: Vec<f64> = nodes
        .iter()
        .map(|node| {
            let sum: f64 = sources.iter().map(|(source, demand)| demand * costs.seconds(source, node)).sum();
            sum / total + serving_seconds
        })
        .collect();
    let best = responses.iter().copied().fold(f64::INFINITY, f64::min);
    nodes.iter().cloned().zip(responses.iter().map(|response| relative(best, *response))).collect()
}

/// 100 x best / response, rounded down; 0 where the response is infinite.
fn relative(best: f64, response: f64) -> u8 {
    if response.is_finite() { (f64::from(MAX_SCORE) * (best / response)).clamp(0.0, 100.0) as u8 } else { 0 }
}
