//! [`EndpointAssignment`]s as Envoy's `ClusterLoadAssignment`.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Locality as EnvoyLocality;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};

use super::held_log::stand_in_metadata;
use super::proto::{number, socket};
use crate::endpoints::locality::EndpointAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;

/// The assignment of the cluster `cluster_name`. A serving node is a sub-zone of its zone.
/// Activators are marked in the metadata of their endpoints, so that a request sent there is logged
/// at once (`super::held_log`).
#[must_use]
pub fn load_assignment(
    cluster_name: &str,
    assignment: &EndpointAssignment,
    zones: &BTreeMap<String, String>,
    stand_in: bool,
) -> ClusterLoadAssignment {
    let metadata = stand_in.then(stand_in_metadata);
    ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints: assignment
            .localities
            .iter()
            .map(|locality| LocalityLbEndpoints {
                locality: Some(EnvoyLocality {
                    zone: zones.get(&locality.node).cloned().unwrap_or_default(),
                    sub_zone: locality.node.clone(),
                    ..EnvoyLocality::default()
                }),
                lb_endpoints: locality
                    .endpoints
                    .iter()
                    .map(|&(address, port)| LbEndpoint {
                        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                            address: socket(address, port),
                            ..Endpoint::default()
                        })),
                        metadata: metadata.clone(),
                        ..LbEndpoint::default()
                    })
                    .collect(),
                load_balancing_weight: number(locality.weight),
                priority: locality.priority,
                ..LocalityLbEndpoints::default()
            })
            .collect(),
        policy: Some(Policy { overprovisioning_factor: number(overprovisioning_percent(assignment)), ..Policy::default() }),
        ..ClusterLoadAssignment::default()
    }
}

/// With Envoy's default factor of 140 %, a priority or locality gets its full share only while five
/// of seven endpoints are healthy. Here one healthy endpoint is enough: its share times this factor
/// is at least one.
fn overprovisioning_percent(assignment: &EndpointAssignment) -> u32 {
    // A higher factor would overflow Envoy's arithmetic; no cluster has more endpoints.
    const MOST: u32 = 1_000;
    let endpoints: usize = assignment.localities.iter().map(|locality| locality.endpoints.len()).sum();
    100 * u32::try_from(endpoints).map_or(MOST, |count| count.clamp(1, MOST))
}
