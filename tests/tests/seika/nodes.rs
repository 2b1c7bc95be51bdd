//! Nodes that are unknown, leave, come back, flap, or take no pods.

use std::time::{Duration, Instant};

use k8s_api::seika::Seika;
use k8s_openapi::api::core::v1::Node;
use kantai_tests::seika::cluster::{Cluster, node_of, until};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::condition;

pub(crate) async fn an_unknown_node_gets_a_condition_and_no_pod(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut sample = case.sample(&[1])?;
    sample["spec"]["repurika"]["no-such-node"] = json!(2);
    case.create(sample).await?;
    case.until_per_node(&[1]).await?;
    let seika =
        case.until_status("the unknown node is told of", |seika| condition(seika, "Degraded").1 == "NodeNotFound").await?;
    let status = seika.status.unwrap_or_default();
    let of_node = status.per_node.iter().find(|node| node.node == "no-such-node").expect("it is in the spec");
    anyhow::ensure!((of_node.desired, of_node.current, of_node.reason.as_deref()) == (2, 0, Some("NodeNotFound")));
    anyhow::ensure!(case.active().await?.len() == 1, "a pod for a node that is not there");

    // It need not stay unknown.
    case.add_node("no-such-node").await?;
    until("the node's pods are there", async || Ok(case.active().await?.len() == 3)).await?;
    case.remove_node("no-such-node").await
}

pub(crate) async fn pods_of_a_vanished_node_are_cleaned_up(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    // One of the two is bound, so that without force it would wait for a kubelet for ever.
    case.make_ready(&case.active().await?[0]).await?;
    let gone = case.nodes[0].clone();
    case.remove_node(&gone).await?;
    let begun = Instant::now();
    until("the vanished node's pods are gone", async || {
        let pods = case.pods.list(&Default::default()).await?;
        Ok(pods.items.iter().all(|pod| node_of(pod) != gone))
    })
    .await?;
    case.until_status("the vanished node is told of", |seika| condition(seika, "Degraded").1 == "NodeNotFound").await?;
    println!("       cleaned {:.1} s after the node went", begun.elapsed().as_secs_f64());
    case.add_node(&gone).await?;
    case.until_per_node(&[2, 1]).await?;

    // One that leaves and comes back at once keeps its pods.
    let before = case.uids().await?;
    case.remove_node(&gone).await?;
    case.add_node(&gone).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    anyhow::ensure!(case.uids().await? == before, "a node that was away for an instant lost its pods");
    Ok(())
}

pub(crate) async fn a_cordoned_node_keeps_what_serves_and_says_why(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    let mut sample = case.sample(&[1, 1])?;
    // Without a surge the old pod would have to go first.
    sample["spec"]["rollout"] = json!({ "maxSurgePerNode": 0, "maxUnavailablePerNode": 1 });
    case.create(sample).await?;
    case.until_per_node(&[1, 1]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let nodes: Api<Node> = Api::all(case.client.clone());
    let cordon = |unschedulable: bool| Patch::Merge(json!({ "spec": { "unschedulable": unschedulable } }));
    nodes.patch(&case.nodes[0], &PatchParams::default(), &cordon(true)).await?;
    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    let old = case.uids().await?;
    // Before the controller knows of the cordon it could not heed it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    let on_node = |seika: &Seika, node: usize| {
        let status = seika.status.clone().unwrap_or_default();
        status.per_node.into_iter().find(|status| status.node == case.nodes[node]).unwrap_or_default()
    };
    let told = |seika: &Seika| {
        (on_node(seika, 1).updated, on_node(seika, 0).ready, on_node(seika, 0).reason.as_deref()) == (1, 1, Some("NodeCordoned"))
    };
    case.until_status("the usable node has the new template, the cordoned one its old pod", told).await?;
    let kept: Vec<String> =
        case.uids().await?.into_iter().filter(|(name, uid)| old.get(name) == Some(uid)).map(|(name, _)| name).collect();
    anyhow::ensure!(kept.len() == 1 && kept[0].contains(&case.nodes[0]), "{kept:?}");

    nodes.patch(&case.nodes[0], &PatchParams::default(), &cordon(false)).await?;
    case.until_status("the node that takes pods again has the new template", |seika| on_node(seika, 0).updated == 1).await?;
    Ok(())
}

pub(crate) async fn a_node_that_flaps_keeps_its_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let observer = case.observe().await?;
    let nodes: Api<Node> = Api::all(case.client.clone());
    let on_node = |seika: &Seika| {
        let status = seika.status.clone().unwrap_or_default();
        status.per_node.into_iter().find(|status| status.node == case.nodes[0]).unwrap_or_default()
    };
    for _ in 0..3 {
        // What the node lifecycle controller does when a kubelet is silent, and when it is heard
        // again.
        for (ready, reason) in [("Unknown", Some("NodeNotReady")), ("True", None)] {
            let condition = json!({ "type": "Ready", "status": ready, "reason": "Told", "message": "", "lastHeartbeatTime": null, "lastTransitionTime": null });
            let status = json!({ "status": { "conditions": [condition] } });
            nodes.patch_status(&case.nodes[0], &PatchParams::default(), &Patch::Merge(status)).await?;
            let pods = case.active().await?;
            for pod in pods.iter().filter(|pod| node_of(pod) == case.nodes[0]) {
                let readiness = if ready == "True" { "True" } else { "False" };
                let status =
                    json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": readiness }] } });
                case.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
            }
            case.until_status("the node's state is told", |seika| {
                let told = on_node(seika);
                (told.current, told.reason.as_deref()) == (2, reason)
            })
            .await?;
        }
    }
    let seen = observer.seen();
    anyhow::ensure!((seen.created, seen.deleted) == (0, 0), "{seen:?}");
    Ok(())
}
