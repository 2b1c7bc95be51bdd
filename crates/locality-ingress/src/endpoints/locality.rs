//! Which endpoints a gateway uses, and in which proportion, per source node and cluster. Pure.
//!
//! A locality is a serving node. Priority 0 gets all requests while one of its endpoints is
//! healthy; the next priorities are used when none is, so that no request fails while any pod
//! serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kubernetes::objects::Endpoint;

/// How gateways choose among endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalityPolicy {
    /// By the routes; without routes the nearest.
    #[default]
    Locality,
    /// Evenly over all endpoints, like gateways that know no localities.
    Spread,
}

impl std::str::FromStr for LocalityPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "locality" => Ok(Self::Locality),
            "spread" => Ok(Self::Spread),
            other => Err(format!("unknown policy {other:?}: locality or spread")),
        }
    }
}

/// The endpoints that one gateway uses for one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointAssignment {
    /// In order of priority, without gaps.
    pub localities: Vec<Locality>,
}

/// The endpoints of one serving node, or of all of them under [`LocalityPolicy::Spread`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// 0 first; the next is used when the previous one has no healthy endpoint.
    pub priority: u32,
    /// The serving node; empty if it is unknown.
    pub node: String,
    /// Its share among the localities of its priority; above zero.
    pub weight: u32,
    /// Address and port; never empty.
    pub endpoints: Vec<(IpAddr, u16)>,
}

/// Chooses the endpoints for a gateway on `source_node`.
///
/// `row` is serving node -> weight for requests from that node: of the routes, or the shares of
/// activators. Its nodes with an endpoint have priority 0, in that proportion.
/// If there is no row, or none of its nodes has an endpoint, priority 0 is the source node itself,
/// else its zone, else everything.
///
/// ```
/// use std::collections::BTreeMap;
/// use locality_ingress::endpoints::{LocalityPolicy, assign};
/// use locality_ingress::kubernetes::Endpoint;
///
/// let on = |node: &str, last: u8| Endpoint {
///     address: [10, 0, 0, last].into(),
///     port: 8012,
///     node: Some(node.into()),
///     stand_in: false,
/// };
/// let endpoints = [on("node1", 1), on("node2", 2), on("node3", 3)];
/// let row = BTreeMap::from([("node1".to_owned(), 80), ("node2".to_owned(), 20)]);
/// let (policy, zones) = (LocalityPolicy::Locality, BTreeMap::new());
/// let chosen = assign(policy, "node1", &zones, &endpoints, Some(&row));
/// let short: Vec<_> =
///     chosen.localities.iter().map(|l| (l.priority, l.node.as_str(), l.weight)).collect();
/// assert_eq!(short, [(0, "node1", 80), (0, "node2", 20), (1, "node3", 1)]);
/// ```
#[must_use]
pub fn assign(
    policy: LocalityPolicy,
    source_node: &str,
    zones: &BTreeMap<String, String>,
    endpoints: &[Endpoint],
    row: Option<&BTreeMap<String, u32>>,
) -> EndpointAssignment {
    if policy == LocalityPolicy::Spread {
        let all: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.address, endpoint.port)).collect();
        let one = (!all.is_empty()).then(|| Locality { priority: 0, node: String::new(), weight: 1, endpoints: all });
        return EndpointAssignment { localities: one.into_iter().collect() };
    }
    let mut by_node: BTreeMap<&str, Vec<(IpAddr, u16)>> = BTreeMap::new();
    for endpoint in endpoints {
        by_node.entry(endpoint.node.as_deref().unwrap_or_default()).or_default().push((endpoint.address, endpoint.port));
    }
    let planned = |node: &str| row?.get(node).copied().filter(|&weight| weight > 0);
    let own_zone = zones.get(source_node);
    // Lower is nearer.
    let distance = |node: &str| match node {
        _ if planned(node).is_some() => 0,
        _ if node == source_node && !node.is_empty() => 1,
        _ if own_zone.is_some() && zones.get(node) == own_zone => 2,
        _ => 3,
    };
    let distances: BTreeSet<u32> = by_node.keys().map(|node| distance(node)).collect();
    let mut localities: Vec<Locality> = by_node
        .into_iter()
        .map(|(node, endpoints)| {
            // Without routes each pod has the same weight.
            let priority = distances.range(..distance(node)).count();
            let weight = planned(node).unwrap_or(u32::try_from(endpoints.len()).unwrap_or(u32::MAX));
            Locality { priority: u32::try_from(priority).unwrap_or(u32::MAX), node: node.to_owned(), weight, endpoints }
        })
        .collect();
    localities.sort_by(|a, b| (a.priority, &a.node).cmp(&(b.priority, &b.node)));
    EndpointAssignment { localities }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(node: &str, last: u8) -> Endpoint {
        let node = (!node.is_empty()).then(|| node.to_owned());
        Endpoint { address: [10, 0, 0, last].into(), port: 8012, node, stand_in: false }
    }

    fn row(weights: &[(&str, u32)]) -> BTreeMap<String, u32> {
        weights.iter().map(|&(node, weight)| (node.to_owned(), weight)).collect()
    }

    fn short(assignment: &EndpointAssignment) -> Vec<(u32, &str, u32)> {
        assignment.localities.iter().map(|l| (l.priority, l.node.as_str(), l.weight)).collect()
    }

    #[test]
    fn without_a_plan_the_own_node_then_the_zone_then_the_rest() {
        let endpoints = [on("a", 1), on("b", 2), on("b", 3), on("c", 4), on("", 5)];
        let zones = [("a", "z1"), ("b", "z1"), ("c", "z2")].map(|(n, z)| (n.to_owned(), z.to_owned())).into();
        let chosen = assign(LocalityPolicy::Locality, "a", &zones, &endpoints, None);
        assert_eq!(short(&chosen), [(0, "a", 1), (1, "b", 2), (2, "", 1), (2, "c", 1)]);
        let elsewhere = assign(LocalityPolicy::Locality, "d", &zones, &endpoints, None);
        assert_eq!(short(&elsewhere), [(0, "", 1), (0, "a", 1), (0, "b", 2), (0, "c", 1)]);
    }

    #[test]
    fn planned_nodes_without_endpoints_are_left_out_and_the_own_node_falls_back_before_others() {
        let endpoints = [on("a", 1), on("b", 2), on("c", 3)];
        let plan = row(&[("b", 70), ("gone", 30)]);
        let chosen = assign(LocalityPolicy::Locality, "a", &BTreeMap::new(), &endpoints, Some(&plan));
        assert_eq!(short(&chosen), [(0, "b", 70), (1, "a", 1), (2, "c", 1)]);
        let gone = row(&[("gone", 100)]);
        let chosen = assign(LocalityPolicy::Locality, "a", &BTreeMap::new(), &endpoints, Some(&gone));
        assert_eq!(short(&chosen), [(0, "a", 1), (1, "b", 1), (1, "c", 1)]);
    }

    #[test]
    fn spread_knows_no_places() {
        let chosen = assign(LocalityPolicy::Spread, "a", &BTreeMap::new(), &[on("a", 1), on("b", 2)], Some(&row(&[("b", 100)])));
        assert_eq!(short(&chosen), [(0, "", 1)]);
        assert_eq!(chosen.localities[0].endpoints.len(), 2);
    }

    proptest! {
        // What Envoy refuses: weights of 0, priorities with a gap. And no endpoint is ever left out
        // or doubled.
        #[test]
        fn every_endpoint_once_and_nothing_that_envoy_refuses(
            nodes in prop::collection::vec("[a-e]?", 0..12),
            plan in prop::option::of(prop::collection::btree_map("[a-g]", 0_u32..101, 0..6)),
            zones in prop::collection::btree_map("[a-e]", "[xy]", 0..5),
            spread: bool,
        ) {
            let endpoints: Vec<_> = nodes.iter().enumerate().map(|(i, node)| on(node, u8::try_from(i).unwrap())).collect();
            let policy = if spread { LocalityPolicy::Spread } else { LocalityPolicy::Locality };
            let chosen = assign(policy, "a", &zones, &endpoints, plan.as_ref());
            let mut seen: Vec<_> = chosen.localities.iter().flat_map(|l| l.endpoints.iter().copied()).collect();
            seen.sort_unstable();
            let mut all: Vec<_> = endpoints.iter().map(|e| (e.address, e.port)).collect();
            all.sort_unstable();
            prop_assert_eq!(seen, all);
            prop_assert!(chosen.localities.iter().all(|l| l.weight > 0 && !l.endpoints.is_empty()));
            let priorities: BTreeSet<_> = chosen.localities.iter().map(|l| l.priority).collect();
            prop_assert!(priorities.iter().enumerate().all(|(i, &p)| u32::try_from(i).unwrap() == p));
        }
    }
}
