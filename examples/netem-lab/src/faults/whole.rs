//! Whether the cluster is whole: what is missing, in words.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};

use super::FaultError;
use super::lab::{Lab, ask};
use super::service;
use crate::cluster::readiness;

/// What is missing of the nodes, of all workloads, and of the service.
pub(super) async fn lacks(lab: &Lab) -> Result<Vec<String>, FaultError> {
    let nodes = lab.node_objects().await?;
    let mut missing: Vec<String> = nodes
        .iter()
        .filter(|node| !readiness::is_ready(node))
        .map(|node| format!("node {} is not ready", node.name_any()))
        .collect();
    let everything = ListParams::default();
    let deployments = Api::<Deployment>::all(lab.client.clone()).list(&everything).await.map_err(ask("list Deployments"))?;
    missing.extend(deployments.iter().filter_map(readiness::deployment_lacks));
    let daemon_sets = Api::<DaemonSet>::all(lab.client.clone()).list(&everything).await.map_err(ask("list DaemonSets"))?;
    missing.extend(daemon_sets.iter().filter_map(|set| readiness::daemon_set_lacks(set, nodes.len())));
    if let Some(instead) = service_lacks(lab).await? {
        missing.push(instead);
    }
    Ok(missing)
}

/// What the service says of itself where it is not ready.
pub(super) async fn service_lacks(lab: &Lab) -> Result<Option<String>, FaultError> {
    let found = knative_services(lab).get_opt(service::NAME).await.map_err(ask("read the service"))?;
    let conditions = found.and_then(|object| object.data["status"]["conditions"].as_array().cloned()).unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    Ok((ready["status"] != "True").then(|| format!("the service is not ready: {} {}", text("reason"), text("message"))))
}

pub(super) fn knative_services(lab: &Lab) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("serving.knative.dev", "v1", "Service"), "services");
    Api::namespaced_with(lab.client.clone(), service::NAMESPACE, &kind)
}

/// Whether Kubernetes no longer hears of a node.
pub(super) fn is_silent(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown"))
}
