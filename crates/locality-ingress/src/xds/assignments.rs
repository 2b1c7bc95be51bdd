//! [`Assignment`]s as Envoy's `ClusterLoadAssignment`.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Locality as EnvoyLocality;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};

use super::proto::{number, socket};
use crate::locality::Assignment;

/// The assignment for the cluster `cluster_name`. A serving node is a sub-zone of its zone.
#[must_use]
pub fn load_assignment(cluster_name: &str, assignment: &Assignment, zones: &BTreeMap<String, String>) -> ClusterLoadAssignment {
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
                        ..LbEndpoint::default()
                    })
                    .collect(),
                load_balancing_weight: number(locality.weight),
                priority: locality.priority,
                ..LocalityLbEndpoints::default()
            })
            .collect(),
        ..ClusterLoadAssignment::default()
    }
}
