//! Waiting until nodes and workloads are ready, and saying what is missing when they are not.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::error::ClusterError;
use super::node::{NodeHandle, check};

/// Long enough for a machine that compiles at the same time.
const WITHIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(250);

/// Waits until every node of the lab is one of the cluster, and ready.
pub(super) async fn wait_for_nodes(client: &Client, nodes: &[NodeHandle]) -> Result<(), ClusterError> {
    let api: Api<Node> = Api::all(client.clone());
    let begun = Instant::now();
    loop {
        nodes.iter().try_for_each(check)?;
        let ready: Vec<String> = api
            .list(&ListParams::default())
            .await
            .map_err(ClusterError::ask("the nodes"))?
            .items
            .iter()
            .filter(|node| is_ready(node))
            .map(ResourceExt::name_any)
            .collect();
        let missing: Vec<&str> =
            nodes.iter().map(|node| node.name.as_str()).filter(|name| !ready.iter().any(|ready| ready == name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        give_up("the nodes", begun, || missing.join(", "))?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

/// Waits until all Deployments and DaemonSets of these namespaces are as they should be.
pub(super) async fn wait_for_workloads(client: &Client, nodes: &[NodeHandle], namespaces: &[&str]) -> Result<(), ClusterError> {
    let begun = Instant::now();
    loop {
        nodes.iter().try_for_each(check)?;
        let mut unready = Vec::new();
        for namespace in namespaces {
            let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
            let everything = ListParams::default();
            let (deployments, daemon_sets) = futures::try_join!(deployments.list(&everything), daemon_sets.list(&everything))
                .map_err(ClusterError::ask("the workloads"))?;
            unready.extend(deployments.items.iter().filter_map(deployment_lacks));
            unready.extend(daemon_sets.items.iter().filter_map(|set| daemon_set_lacks(set, nodes.len())));
        }
        if unready.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > WITHIN {
            unready.extend(unready_pods(client, namespaces).await?);
        }
        give_up("the workloads", begun, || unready.join("\n"))?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

pub(crate) fn deployment_lacks(deployment: &Deployment) -> Option<String> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let current = status.observed_generation >= deployment.metadata.generation;
    let complete = current && available >= wanted && status.updated_replicas.unwrap_or(0) >= wanted;
    (!complete).then(|| format!("{}: {available} of {wanted} available", deployment.name_any()))
}

/// A DaemonSet that was just made knows of no node yet, so the number that counts is ours. None
/// leaves out a node.
pub(crate) fn daemon_set_lacks(set: &DaemonSet, nodes: usize) -> Option<String> {
    let status = set.status.clone().unwrap_or_default();
    let current = status.observed_generation >= set.metadata.generation;
    let wanted = i32::try_from(nodes).unwrap_or(i32::MAX);
    let complete = current && status.number_ready >= wanted && status.updated_number_scheduled.unwrap_or(0) >= wanted;
    (!complete).then(|| format!("{}: {} of {wanted} ready", set.name_any(), status.number_ready))
}

async fn unready_pods(client: &Client, namespaces: &[&str]) -> Result<Vec<String>, ClusterError> {
    let mut lines = Vec::new();
    for namespace in namespaces {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let pods = pods.list(&ListParams::default()).await.map_err(ClusterError::ask("the pods"))?;
        lines.extend(pods.items.iter().filter_map(|pod| pod_lacks(pod).map(|lack| format!("  pod {}: {lack}", pod.name_any()))));
    }
    Ok(lines)
}

/// What a pod waits for, as far as its status says it.
fn pod_lacks(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unmet = conditions.iter().find(|condition| condition.status != "True")?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            return Some(format!("{} {}", waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()));
        }
        state.terminated.as_ref().map(|terminated| format!("ended with {}", terminated.exit_code))
    });
    Some(match waiting {
        Some(waiting) => waiting,
        None => format!("{} is {}: {}", unmet.type_, unmet.status, unmet.message.as_deref().unwrap_or_default()),
    })
}

fn give_up(what: &str, begun: Instant, missing: impl FnOnce() -> String) -> Result<(), ClusterError> {
    let waited = begun.elapsed();
    if waited <= WITHIN {
        return Ok(());
    }
    Err(ClusterError::NotReady { what: what.to_owned(), waited, missing: missing() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_complete_when_its_newest_pods_are_available() {
        let deployment = |observed: i64, available: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "name": "a", "generation": 2 },
                "spec": { "replicas": 2, "selector": {}, "template": {} },
                "status": { "observedGeneration": observed, "availableReplicas": available, "updatedReplicas": 2 },
            }))
            .expect("a Deployment")
        };
        assert_eq!(deployment_lacks(&deployment(2, 2)), None);
        assert_eq!(deployment_lacks(&deployment(2, 1)).as_deref(), Some("a: 1 of 2 available"));
        assert!(deployment_lacks(&deployment(1, 2)).is_some());
    }

    #[test]
    fn a_daemon_set_that_has_not_seen_the_nodes_is_not_complete() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": { "name": "a" },
            "spec": { "selector": {}, "template": {} },
            "status": { "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0 },
        }))
        .expect("a DaemonSet");
        assert_eq!(daemon_set_lacks(&set, 3).as_deref(), Some("a: 0 of 3 ready"));
    }

    #[test]
    fn a_pod_says_what_it_waits_for() {
        let pod: Pod = serde_json::from_value(json!({
            "status": {
                "conditions": [{ "type": "Ready", "status": "False" }],
                "containerStatuses": [{
                    "name": "a", "image": "a", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } },
                }],
            },
        }))
        .expect("a Pod");
        assert_eq!(pod_lacks(&pod).as_deref(), Some("ErrImagePull no such image"));
    }
}
