//! The gateways: where they are, and how far behind.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::daemons::{self, DaemonPod, GATEWAY, INGRESS, OPS};
use crate::error::PluginError;
use crate::known::{Known, Unread};
use crate::metrics;

/// Since when each gateway has not confirmed all configuration, as locality-ingress exports it.
const BEHIND: &str = "kantai_locality_ingress_gateway_behind_seconds";

/// Gateway pods by node.
pub(crate) type GatewayPods = BTreeMap<String, Vec<DaemonPod>>;

/// The gateways' pods, by node.
pub(crate) async fn gateway_pods(cluster: &Cluster) -> Result<GatewayPods, PluginError> {
    let mut by_node = GatewayPods::new();
    for pod in daemons::pods(cluster, GATEWAY).await? {
        by_node.entry(pod.node.clone()).or_default().push(pod);
    }
    Ok(by_node)
}

/// How long the gateway of each node has lagged behind, in seconds; 0 for one in sync. A gateway
/// that is connected to no replica that answered is not in the map.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Lag {
    pub(crate) behind_seconds: BTreeMap<String, f64>,
    /// Replicas of locality-ingress that did not answer, and why: gateways that are missing above
    /// may be connected to them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) silent: BTreeMap<String, Unread>,
}

/// Asks every replica of locality-ingress.
pub(crate) async fn lags(cluster: &Cluster) -> Known<Lag> {
    let mut replicas = daemons::pods(cluster, INGRESS).await?;
    // No gateway is connected to one that has not started.
    replicas.retain(|replica| replica.is_started);
    if replicas.is_empty() {
        return Err(Unread::because(format!("no pod of {INGRESS} runs in namespace {}", cluster.system)));
    }
    let pages = daemons::ask_each(cluster, &replicas, OPS, "/metrics").await;
    let lag = lag_of(pages.iter().map(|(pod, page)| (pod.name.as_str(), page)));
    if lag.silent.len() == replicas.len() {
        let why: Vec<String> = lag.silent.iter().map(|(pod, why)| format!("{pod}: {why}")).collect();
        return Err(Unread::because(format!("no {INGRESS} answers: {}", why.join("; "))));
    }
    Ok(lag)
}

fn lag_of<'a>(pages: impl Iterator<Item = (&'a str, &'a Known<String>)>) -> Lag {
    let mut lag = Lag::default();
    for (replica, page) in pages {
        match page {
            Err(why) => drop(lag.silent.insert(replica.to_owned(), why.clone())),
            Ok(page) => {
                for one in metrics::series(page, BEHIND) {
                    let Some(node) = one.label("node") else { continue };
                    // A gateway that has changed replicas may still be known to the one before;
                    // the connection that serves it is the one that is least behind.
                    let seconds = lag.behind_seconds.entry(node.to_owned()).or_insert(one.value);
                    *seconds = seconds.min(one.value);
                }
            }
        }
    }
    lag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_lag_counts_and_silence_is_no_lag() {
        let one = Ok(format!("{BEHIND}{{node=\"node1\"}} 40\n{BEHIND}{{node=\"node2\"}} 0\n"));
        let two = Ok(format!("{BEHIND}{{node=\"node1\"}} 0.5\n"));
        let three = Err(Unread::because("late"));
        let lag = lag_of([("a", &one), ("b", &two), ("c", &three)].into_iter());
        assert_eq!(lag.behind_seconds, [("node1".to_owned(), 0.5), ("node2".to_owned(), 0.0)].into());
        assert_eq!(lag.silent.keys().collect::<Vec<_>>(), ["c"]);
    }
}
