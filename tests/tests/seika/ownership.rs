//! Whose pods are whose.

use std::time::Duration;

use kantai_tests::api_server::apply;
use kantai_tests::seika::cluster::{Cluster, until};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PropagationPolicy};
use seika_controller::crd::NODE_LABEL;
use serde_json::{Value, json};

use crate::condition;

pub(crate) async fn foreign_pods_are_left_alone(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let node = case.nodes[0].clone();
    let foreign = |name: &str, owner: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": case.namespace, "labels": { "app": "hello", NODE_LABEL: node }, "ownerReferences": owner },
            "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
        })
    };
    let account = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(case.client.clone(), &case.namespace);
    let uid = account.get("default").await?.uid();
    let owner = json!([{ "apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": uid, "controller": true }]);
    apply(&case.client, &foreign("owned", owner)).await?;
    case.create(case.sample(&[1])?).await?;
    until("one pod of its own", async || Ok(case.active().await?.len() == 2)).await?;
    case.until_status("the other owner is told of", |seika| condition(seika, "SelectorOverlap").0 == "True").await?;
    case.set(&[0]).await?;
    until("its own pod is gone", async || Ok(case.active().await?.len() == 1)).await?;
    anyhow::ensure!(case.uids().await?.contains_key("owned"), "a pod of another owner was deleted");
    Ok(())
}

pub(crate) async fn orphans_are_taken_in_and_relabelled_pods_let_go(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    let before = case.uids().await?;

    // A Seika that goes without its pods leaves orphans; the next one of the same selector has them.
    case.seikas
        .delete("hello", &DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..Default::default() })
        .await?;
    until("the pods are orphans", async || Ok(case.active().await?.iter().all(|pod| pod.owner_references().is_empty()))).await?;
    let observer = case.observe().await?;
    let seika = case.create(case.sample(&[2])?).await?;
    until("the orphans are its own", async || {
        let pods = case.active().await?;
        Ok(pods.iter().all(|pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == seika.uid().as_ref())))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    anyhow::ensure!(case.uids().await? == before, "other pods: {:?}, there were {before:?}", case.uids().await?);
    anyhow::ensure!(observer.seen().most_per_node[&case.nodes[0]] == 2, "{:?}", observer.seen());

    // Who relabels a pod takes it out, and gets another in its place.
    let taken_out = before.keys().next().expect("there are two").clone();
    let relabel = json!({ "metadata": { "labels": { "app": "debug" } } });
    case.pods.patch(&taken_out, &PatchParams::default(), &Patch::Merge(relabel)).await?;
    until("the pod is let go and replaced", async || {
        let released = case.pods.get(&taken_out).await?.owner_references().is_empty();
        Ok(released && case.per_node().await? == [2])
    })
    .await
}
