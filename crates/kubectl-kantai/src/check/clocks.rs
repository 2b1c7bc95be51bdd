//! The clocks of the nodes, by the Leases that their kubelets renew.
//!
//! A kubelet writes the time of its node into its Lease, and the API server notes beside it when it
//! took the write, by its own clock. The difference is the skew, to a second: that is how exactly
//! the API server notes it.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::ListParams;

use crate::cluster::{Cluster, Scope};
use crate::error::PluginError;

/// Where the kubelets' Leases are.
const NAMESPACE: &str = "kube-node-lease";

/// How far a node's clock is ahead of the API server's, in seconds, by node. A node whose Lease
/// does not tell both times is left out.
pub(super) type Skews = BTreeMap<String, f64>;

pub(super) async fn read(cluster: &Cluster) -> Result<Skews, PluginError> {
    let leases = cluster.api::<Lease>(&Scope::One(NAMESPACE.to_owned()));
    let leases = cluster.list("list the Leases of nodes", leases, ListParams::default()).await?;
    Ok(leases.iter().filter_map(|lease| Some((lease.name_any(), skew_seconds(lease)?))).collect())
}

fn skew_seconds(lease: &Lease) -> Option<f64> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
    let taken = lease.managed_fields().iter().filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()?;
    // The API server drops fractions of a second; on average that is half of one.
    const HALF_A_SECOND: f64 = 0.5;
    Some(renewed.duration_since(taken).as_secs_f64() - HALF_A_SECOND)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(renewed: &str, taken: &[&str]) -> Lease {
        let entries: Vec<_> =
            taken.iter().map(|time| json!({"manager": "kubelet", "operation": "Update", "time": time})).collect();
        serde_json::from_value(json!({"metadata": {"name": "node1", "managedFields": entries}, "spec": {"renewTime": renewed}}))
            .unwrap()
    }

    #[test]
    fn the_skew_is_what_lies_between_the_two_clocks_at_the_same_write() {
        let ahead = lease("2026-01-01T00:01:00.500000Z", &["2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"]);
        assert_eq!(skew_seconds(&ahead), Some(60.0));
        assert_eq!(skew_seconds(&lease("2026-01-01T00:00:00.500000Z", &["2026-01-01T00:00:10Z"])), Some(-10.0));
        assert_eq!(skew_seconds(&lease("2026-01-01T00:00:00.500000Z", &[])), None);
    }
}
