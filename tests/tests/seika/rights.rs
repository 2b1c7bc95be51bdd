//! What the controller may do where it looks after one namespace only.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, config_of, documents};
use kantai_tests::seika::cluster::{Cluster, Controller, until};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;

use crate::condition;

const RBAC: &str = include_str!("../../../deploy/seika-controller-namespaced/rbac.yaml");
const KUSTOMIZATION: &str = include_str!("../../../deploy/seika-controller-namespaced/kustomization.yaml");
const PATCH: &str = include_str!("../../../deploy/seika-controller-namespaced/watched-namespace.patch.yaml");

/// An account with the rights of the overlay in the case's namespace, and none else.
pub(crate) async fn rights_in_one_namespace_are_enough(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(2).await?;
    let account = format!("confined-to-{}", case.namespace);
    let metadata = json!({ "name": account, "namespace": SYSTEM_NAMESPACE });
    apply(&case.client, &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await?;
    for mut manifest in documents(RBAC)? {
        if manifest["metadata"]["namespace"] == "default" {
            manifest["metadata"]["namespace"] = json!(case.namespace);
        }
        if let Some(subject) = manifest.pointer_mut("/subjects/0") {
            subject["name"] = json!(account);
        }
        apply(&case.client, &manifest).await?;
    }
    let client = kube::Client::try_from(config_of(cluster.control_plane(), &account).await?)?;
    let elsewhere = Api::<Pod>::namespaced(client.clone(), SYSTEM_NAMESPACE).list(&ListParams::default()).await;
    anyhow::ensure!(matches!(&elsewhere, Err(kube::Error::Api(status)) if status.code == 403), "{elsewhere:?}");
    anyhow::ensure!(Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.is_err());

    let _controller = Controller::start(client, &case.namespace);
    case.create(case.sample(&[1, 1])?).await?;
    case.until_per_node(&[1, 1]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True" && seika.spec.replicas == Some(2))
        .await?;
    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    until("all are new", async || {
        case.make_all_ready().await?;
        let pods = case.active().await?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| pod.annotations().get("version").is_some_and(|version| version == "2")))
    })
    .await?;
    let before = case.uids().await?;
    let orphaning = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    case.seikas.delete("hello", &orphaning).await?;
    until("the pods are orphans", async || Ok(case.active().await?.iter().all(|pod| pod.owner_references().is_empty()))).await?;
    let mut paused = case.sample(&[1, 1])?;
    paused["spec"]["rollout"] = json!({ "paused": true });
    case.create(paused).await?;
    case.until_per_node(&[1, 1]).await?;
    anyhow::ensure!(case.uids().await? == before, "they were replaced and not adopted");
    case.until_status("nothing is wrong", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}

/// The overlay names the namespace in more than one place.
#[test]
fn the_overlay_is_about_one_namespace() {
    let kustomization: serde_json::Value = serde_saphyr::from_str(KUSTOMIZATION).unwrap();
    let moved = kustomization["patches"][3]["patch"].as_str().unwrap_or_default();
    let operations: serde_json::Value = serde_saphyr::from_str(moved).unwrap();
    let patch: serde_json::Value = serde_saphyr::from_str(PATCH).unwrap();
    let watched = &patch["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"];
    assert_eq!((&operations[0]["value"], watched), (&json!("default"), &json!("default")));
}
