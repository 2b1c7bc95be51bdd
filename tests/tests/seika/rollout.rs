//! New templates.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kantai_tests::api_server::{apply, documents};
use kantai_tests::seika::cluster::{Cluster, until};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt as _};
use local_control_plane::control_plane::User;
use serde_json::json;

use crate::condition;

const BUDGET: &str = include_str!("../../../examples/manifests/seika-budget.yaml");

pub(crate) async fn a_new_template_rolls_without_losing_a_ready_pod(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let old: BTreeSet<String> = case.uids().await?.into_values().collect();
    let observer = case.observe().await?;
    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    // The kubelet's part, until all are of the new template. At each step all that were promised
    // serve.
    until("all are new", async || {
        let pods = case.active().await?;
        let is_ready = |pod: &&Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|conditions| conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        let ready = pods.iter().filter(is_ready).count();
        anyhow::ensure!(ready >= 3, "only {ready} ready pods in the middle of the roll-out");
        for pod in pods.iter().filter(|pod| !is_ready(pod)) {
            case.make_ready(pod).await?;
        }
        let new = pods.iter().filter(|pod| pod.annotations().get("version").is_some_and(|version| version == "2")).count();
        // Nobody confirms deletions here but we.
        for pod in case.pods.list(&Default::default()).await?.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some())
        {
            let _ = case.pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        }
        Ok(new == 3 && pods.len() == 3)
    })
    .await?;
    let most = observer.seen().most_per_node;
    anyhow::ensure!(most[&case.nodes[0]] <= 3 && most[&case.nodes[1]] <= 2, "{most:?}");
    anyhow::ensure!(case.uids().await?.values().all(|uid| !old.contains(uid)), "old pods are still there");
    case.until_status("it is over", |seika| condition(seika, "Progressing").1 == "Settled").await?;
    Ok(())
}

pub(crate) async fn templates_of_the_past_are_kept(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut sample = case.sample(&[1])?;
    sample["spec"]["revisionHistoryLimit"] = json!(2);
    case.create(sample).await?;
    let kept: Api<ControllerRevision> = Api::namespaced(case.client.clone(), &case.namespace);
    for version in ["1", "2", "3", "4", "5"] {
        let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": version } } } } });
        case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
        until("the template is kept, and no more of the past than asked for", async || {
            let records = kept.list(&Default::default()).await?.items;
            let latest = records.iter().max_by_key(|record| record.revision);
            let data = latest.and_then(|latest| latest.data.as_ref()).map(|data| data.0.clone()).unwrap_or_default();
            let is_latest = data["spec"]["template"]["metadata"]["annotations"]["version"] == version;
            // The pod may be of the template before that.
            Ok(is_latest && records.len() <= 4)
        })
        .await?;
    }
    Ok(())
}

/// Whoever wrote a template that no pod can be made from may want it back, or the one before it.
pub(crate) async fn a_template_that_makes_no_pods_is_kept_all_the_same(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let namespaces: Api<Namespace> = Api::all(case.client.clone());
    let strict = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    namespaces.patch(&case.namespace, &PatchParams::default(), &Patch::Merge(strict)).await?;
    case.create(case.sample(&[1])?).await?;
    case.until_status("the refusal is told of", |seika| condition(seika, "Degraded").1 == "FailedCreate").await?;
    let kept: Api<ControllerRevision> = Api::namespaced(case.client.clone(), &case.namespace);
    until("the template is kept", async || Ok(kept.list(&Default::default()).await?.items.len() == 1)).await
}

pub(crate) async fn a_budget_holds_up_evictions_and_no_roll_out(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut budget = documents(BUDGET)?.remove(0);
    budget["metadata"]["namespace"] = json!(case.namespace);
    apply(&case.client, &budget).await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    case.make_all_ready().await?;
    let pods: Vec<(String, String)> = case.uids().await?.into_iter().collect();
    // The refusal is what this is about; the client would retry by itself.
    let kubeconfig = Kubeconfig::read_from(cluster.control_plane().kubeconfig(User::Admin))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let asks_once: Api<Pod> = Api::namespaced(Client::try_from(config)?, &case.namespace);
    let evict = async |pod: &str| asks_once.evict(pod, &EvictParams::default()).await;
    // Of two, one may go; as long as its replacement is not ready, the other must stay.
    until("the budget lets one go", async || match evict(&pods[0].0).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
        Err(error) => Err(error.into()),
    })
    .await?;
    let refused = evict(&pods[1].0).await;
    anyhow::ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");
    case.until_per_node(&[2]).await?;
    anyhow::ensure!(case.uids().await?.get(&pods[1].0) == Some(&pods[1].1), "the pod that must stay went");
    case.make_all_ready().await?;

    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    until("all are new", async || {
        case.make_all_ready().await?;
        let pods = case.active().await?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| pod.annotations().get("version").is_some_and(|version| version == "2")))
    })
    .await
}
