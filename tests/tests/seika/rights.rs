//! What the controller may do where it looks after one namespace only.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, config_of, documents};
use kantai_tests::seika::cluster::{Cluster, Controller, until};
use kantai_tests::seika::kubectl::Kubectl;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::condition;

const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/seika-controller-namespaced");

/// An account with the rights of the overlay in the case's namespace, and none else.
pub(crate) async fn rights_in_one_namespace_are_enough(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(2).await?;
    let manifests = documents(&Kubectl::of(cluster).await?.done(&case, &["kustomize", OVERLAY]).await?)?;
    let deployment = manifests.iter().find(|manifest| manifest["kind"] == "Deployment").expect("it has one");
    let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("it has some");
    anyhow::ensure!(environment.contains(&json!({ "name": "KANTAI_NAMESPACE", "value": "default" })), "{environment:?}");

    let account = format!("confined-to-{}", case.namespace);
    let metadata = json!({ "name": account, "namespace": SYSTEM_NAMESPACE });
    apply(&case.client, &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await?;
    let rights = |manifest: &Value| manifest["kind"].as_str().is_some_and(|kind| kind.contains("Role"));
    for mut manifest in manifests.into_iter().filter(rights) {
        // Beside what the other cases stand on.
        let name = format!("{}-{}", manifest["metadata"]["name"].as_str().unwrap_or_default(), case.namespace);
        manifest["metadata"]["name"] = json!(name);
        if manifest["metadata"]["namespace"] == "default" {
            manifest["metadata"]["namespace"] = json!(case.namespace);
        }
        if manifest["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding")) {
            anyhow::ensure!(manifest["subjects"].as_array().is_some_and(|subjects| subjects.len() == 1), "{manifest}");
            manifest["subjects"][0]["name"] = json!(account);
            let role = format!("{}-{}", manifest["roleRef"]["name"].as_str().unwrap_or_default(), case.namespace);
            manifest["roleRef"]["name"] = json!(role);
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
    until("the Seika is gone", async || Ok(case.seikas.get_opt("hello").await?.is_none())).await?;
    let mut paused = case.sample(&[1, 1])?;
    paused["spec"]["rollout"] = json!({ "paused": true });
    case.create(paused).await?;
    case.until_per_node(&[1, 1]).await?;
    anyhow::ensure!(case.uids().await? == before, "they were replaced and not adopted");
    case.until_status("nothing is wrong", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}
