//! What went wrong with the controller that this one replaces, each fault as a test. Those that are
//! not here:
//!
//! - pods of others whose labels match are deleted:
//!   [`crate::ownership::foreign_pods_are_left_alone`]
//! - a lagging cache makes pods twice: [`crate::counts::a_restart_creates_nothing_twice`], chaos
//! - a node that is no longer named keeps its pods for ever:
//!   [`crate::counts::a_key_that_goes_takes_its_pods_along`]
//! - a new template changes nothing:
//!   [`crate::rollout::a_new_template_rolls_without_losing_a_ready_pod`]
//! - the name of a node is taken for its host name: [`crate::placement`]
//! - nodes are listed, not watched; an unknown one is only logged: [`crate::nodes`]
//! - failed pods are replaced and never removed:
//!   [`crate::counts::failed_pods_are_replaced_and_tidied_up`]
//! - the status is text only, without conditions: [`crate::counts::readiness_reaches_the_status`]

use std::time::{Duration, Instant};

use k8s_api::seika::NODE_LABEL;
use kantai_tests::api_server::apply;
use kantai_tests::seika::cluster::{Cluster, until};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::condition;

/// Pods were found by the node they ran on, so that one that could not be placed was made again and
/// again.
pub(crate) async fn what_nobody_can_schedule_is_counted(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    for pod in case.active().await? {
        let refused = json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu." }] } });
        case.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(refused)).await?;
    }
    let told = case.until_status("it is told of", |seika| {
        let status = seika.status.as_ref();
        status.is_some_and(|status| status.per_node.iter().any(|node| node.reason.as_deref() == Some("Unschedulable")))
    });
    told.await?;
    for round in 0..10 {
        let touched = json!({ "metadata": { "annotations": { "round": round.to_string() } } });
        case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(touched)).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = observer.seen();
    anyhow::ensure!((seen.created, seen.deleted) == (2, 0), "{seen:?}");
    Ok(())
}

/// Only `matchLabels` were read, so that expressions matched everything.
pub(crate) async fn a_selector_of_expressions_is_heeded(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    let pod = |name: &str, tier: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": case.namespace, "labels": { "tier": tier, NODE_LABEL: case.nodes[0] } },
            "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
        })
    };
    apply(&case.client, &pod("front", "front")).await?;
    apply(&case.client, &pod("back", "back")).await?;
    let mut sample = case.sample(&[2])?;
    sample["spec"]["selector"] =
        json!({ "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["front", "middle"] }] });
    sample["spec"]["template"]["metadata"]["labels"] = json!({ "tier": "middle" });
    // What is taken in is of another template, and would be replaced at once.
    sample["spec"]["rollout"] = json!({ "paused": true });
    case.create(sample).await?;
    let _controller = cluster.controller(&case.namespace).await?;
    case.until_per_node(&[2]).await?;
    let owned = async |name: &str| anyhow::Ok(!case.pods.get(name).await?.owner_references().is_empty());
    anyhow::ensure!(owned("front").await? && !owned("back").await?, "of the two orphans, one matches");
    case.set(&[0]).await?;
    case.until_per_node(&[0]).await?;
    anyhow::ensure!(case.uids().await?.keys().eq(["back"]), "{:?}", case.uids().await?);
    Ok(())
}

/// The first listed went first, with no time to end.
pub(crate) async fn what_serves_least_goes_first_and_gently(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut sample = case.sample(&[3])?;
    sample["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(45);
    case.create(sample).await?;
    case.until_per_node(&[3]).await?;
    let pods = case.active().await?;
    // The first in the list serves, the second is bound to its node.
    case.make_ready(&pods[0]).await?;
    case.bind(&pods[1]).await?;
    let told = case.until_status("one is ready", |seika| seika.status.as_ref().is_some_and(|status| status.ready_replicas == 1));
    told.await?;
    for left in [2, 1] {
        case.set(&[left]).await?;
        let wanted: Vec<String> = pods[..usize::try_from(left)?].iter().map(kube::ResourceExt::name_any).collect();
        until("those that serve most are left", async || Ok(case.uids().await?.keys().eq(&wanted))).await?;
    }
    case.set(&[0]).await?;
    until("none is left", async || Ok(case.uids().await?.is_empty())).await?;
    for bound in &pods[..2] {
        let going = case.pods.get(&bound.name_any()).await?.metadata;
        anyhow::ensure!(going.deletion_timestamp.is_some() && going.deletion_grace_period_seconds == Some(45), "{going:?}");
    }
    Ok(())
}

/// A pod counted as ready as soon as it ran.
pub(crate) async fn running_is_not_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[1])?).await?;
    case.until_per_node(&[1]).await?;
    let pod = case.active().await?.remove(0);
    case.bind(&pod).await?;
    let runs = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "False", "reason": "ContainersNotReady" }],
        "containerStatuses": [{ "name": "hello", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } } }] } });
    case.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(runs)).await?;
    let told = case.until_status("why it is not ready is told", |seika| {
        let nodes = seika.status.as_ref().map(|status| &status.per_node[..]).unwrap_or_default();
        nodes.iter().any(|node| node.reason.as_deref() == Some("CrashLoopBackOff"))
    });
    let seika = told.await?;
    anyhow::ensure!(condition(&seika, "Available").0 == "False");
    let status = seika.status.unwrap_or_default();
    anyhow::ensure!((status.current_replicas, status.ready_replicas) == (1, 0), "{status:?}");
    case.make_ready(&case.pods.get(&pod.name_any()).await?).await?;
    case.until_status("it is ready", |seika| condition(seika, "Available").0 == "True").await?;
    Ok(())
}

/// The template's own `nodeSelector` was replaced.
pub(crate) async fn the_templates_own_constraints_stay(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut sample = case.sample(&[1])?;
    let ssd = json!({ "key": "disk", "operator": "In", "values": ["ssd"] });
    let apart = json!([{ "topologyKey": "zone", "labelSelector": { "matchLabels": { "app": "hello" } } }]);
    sample["spec"]["template"]["spec"]["nodeSelector"] = json!({ "zone": "a" });
    sample["spec"]["template"]["spec"]["affinity"] = json!({
        "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": [ssd] }] } },
        "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": apart },
    });
    case.create(sample).await?;
    case.until_per_node(&[1]).await?;
    let spec: Value = serde_json::to_value(case.active().await?.remove(0).spec)?;
    let here = json!({ "key": "metadata.name", "operator": "In", "values": [case.nodes[0]] });
    let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    anyhow::ensure!(*terms == json!([{ "matchExpressions": [ssd], "matchFields": [here] }]), "{terms}");
    anyhow::ensure!(spec["nodeSelector"] == json!({ "zone": "a" }), "{}", spec["nodeSelector"]);
    anyhow::ensure!(spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == apart, "{spec}");
    Ok(())
}

/// Failed pods were replaced at once and for ever.
pub(crate) async fn pods_that_always_fail_do_not_fill_the_namespace(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[1])?).await?;
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        most = most.max(case.pods.list(&Default::default()).await?.items.len());
        for pod in case.active().await? {
            let failed = json!({ "status": { "phase": "Failed", "reason": "Error" } });
            // It may have gone meanwhile.
            let _ = case.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // At once, after one second, two and four: never more, however slow the machine is.
    anyhow::ensure!(observer.created() <= 4, "{} pods in {:?}", observer.created(), begun.elapsed());
    anyhow::ensure!(most <= 2, "{most} pods at once, one of them to be looked at");
    Ok(())
}
