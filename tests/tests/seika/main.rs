//! Seikas on a real API server with real controllers: exact counts, at every instant, whatever happens.

// A panic is how a test says that something is wrong.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply};
use kantai_tests::seika::chaos::Chaos;
use kantai_tests::seika::cluster::{Cluster, Controller, is_active, node_of, until};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PropagationPolicy};
use prometheus_client::registry::Registry;
use seika_controller::controller::{self, Settings};
use seika_controller::crd::{NODE_LABEL, REVISION_LABEL, Seika};
use seika_controller::leadership::{LeaseSettings, act_while_leading};
use seika_controller::metrics::Metrics;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// One control plane serves all cases, one after another, so that times mean something. Only that of deletion, which waits for the garbage
/// collector, runs beside the others.
#[tokio::test(flavor = "multi_thread")]
async fn seikas_on_a_real_api_server() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (others, deletion) = futures::join!(cases_in_turn(&cluster), deletion_takes_the_pods_along(&cluster));
    deletion?;
    others
}

async fn cases_in_turn(cluster: &Cluster) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            let begun = Instant::now();
            let result = $case(cluster).await;
            println!("{} {} {:.1} s", if result.is_ok() { "ok    " } else { "FAILED" }, stringify!($case), begun.elapsed().as_secs_f64());
            if let Err(error) = result {
                failed.push(format!("{}: {error:?}", stringify!($case)));
            }
        )*};
    }
    cases![
        the_definition_takes_the_sample_and_refuses_nonsense,
        the_sample_gets_six_pods_on_its_nodes,
        a_node_set_to_zero_loses_its_pods_and_no_others,
        a_key_that_goes_takes_its_pods_along,
        an_unknown_node_gets_a_condition_and_no_pod,
        readiness_reaches_the_status,
        rapid_changes_never_overshoot,
        a_restart_creates_nothing_twice,
        failed_pods_are_replaced_and_tidied_up,
        pods_of_a_vanished_node_are_cleaned_up,
        a_new_template_rolls_without_losing_a_ready_pod,
        a_cordoned_node_keeps_what_serves_and_says_why,
        templates_of_the_past_are_kept,
        foreign_pods_are_left_alone,
        orphans_are_taken_in_and_relabelled_pods_let_go,
        a_spec_that_cannot_be_acted_on_says_why,
        the_lease_passes_on,
        from_zero_to_one_takes_no_time,
        chaos_ends_with_exactly_the_pods_asked_for,
    ];
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

async fn the_definition_takes_the_sample_and_refuses_nonsense(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(3).await?;
    case.create(case.sample(&[1, 2, 3])?).await?;
    let refused = async |patch: Value, with: &str| {
        let answer = case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(patch)).await;
        let message = answer.err().map(|error| error.to_string()).unwrap_or_default();
        anyhow::ensure!(message.contains(with), "{message:?} does not say {with:?}");
        Ok(())
    };
    refused(json!({ "spec": { "repurika": { "node1": -1 } } }), "greater than or equal to 0").await?;
    refused(json!({ "spec": { "repurika": { "node1": 1001 } } }), "less than or equal to 1000").await?;
    refused(json!({ "spec": { "repurika": { "node1": "two" } } }), "must be of type integer").await?;
    refused(json!({ "spec": { "selector": { "matchLabels": { "app": "other" } } } }), "selector is immutable").await?;
    refused(json!({ "spec": { "template": { "metadata": { "labels": { "app": "other" } } } } }), "contradict").await?;
    refused(json!({ "spec": { "template": { "spec": { "containers": [] } } } }), "should have at least 1 items").await?;
    refused(json!({ "spec": { "rollout": { "maxSurgePerNode": 0 } } }), "must not both be 0").await?;

    // The seed's own sample has a template without labels: the pods get the selector's.
    let mut bare = case.sample(&[1])?;
    bare["metadata"]["name"] = json!("bare");
    bare["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    case.create(bare).await?;
    let mut empty = case.sample(&[1])?;
    empty["metadata"]["name"] = json!("empty");
    empty["spec"]["selector"] = json!({});
    anyhow::ensure!(case.create(empty).await.is_err(), "an empty selector was accepted");
    Ok(())
}

async fn the_sample_gets_six_pods_on_its_nodes(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(3).await?;
    let observer = case.observe().await?;
    let sample = case.sample(&[1, 2, 3])?;
    apply(&case.client, &sample).await?;
    case.until_per_node(&[1, 2, 3]).await?;
    let seika = case.seikas.get("hello").await?;
    for pod in case.active().await? {
        check_pod(&pod, &seika)?;
    }
    let status = case
        .until_status("six pods are told of", |seika| seika.status.as_ref().is_some_and(|status| status.current_replicas == 6));
    anyhow::ensure!(status.await?.status.is_some_and(|status| status.updated_replicas == 6 && status.ready_replicas == 0));

    let before = case.names().await?;
    apply(&case.client, &sample).await?;
    case.set(&[1, 2, 3]).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    anyhow::ensure!(case.names().await? == before, "re-applying changed the pods");
    anyhow::ensure!(observer.seen().created == 6, "{:?}", observer.seen());
    Ok(())
}

fn check_pod(pod: &Pod, seika: &Seika) -> anyhow::Result<()> {
    let node = &pod.labels()[NODE_LABEL];
    let name = pod.name_any();
    anyhow::ensure!(name.starts_with(&format!("hello-{node}-")), "name {name}");
    anyhow::ensure!(pod.labels()["app"] == "hello" && pod.labels().contains_key(REVISION_LABEL), "labels {:?}", pod.labels());
    let owner = &pod.owner_references()[0];
    anyhow::ensure!(owner.uid == seika.uid().unwrap_or_default() && owner.controller == Some(true), "owner {owner:?}");
    let affinity = serde_json::to_value(pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()))?;
    let terms = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let wanted = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
    anyhow::ensure!(*terms == wanted, "affinity {terms}");
    let container = serde_json::to_value(&pod.spec.as_ref().expect("every pod has a spec").containers[0])?;
    anyhow::ensure!(container["ports"][0]["containerPort"] == 8080, "container {container}");
    Ok(())
}

async fn a_node_set_to_zero_loses_its_pods_and_no_others(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(3).await?;
    case.create(case.sample(&[1, 2, 3])?).await?;
    case.until_per_node(&[1, 2, 3]).await?;
    let node2 = format!("hello-{}-", case.nodes[1]);
    let others = case.names().await?.into_iter().filter(|name| !name.starts_with(&node2)).collect();
    case.set(&[1, 0, 3]).await?;
    case.until_per_node(&[1, 0, 3]).await?;
    anyhow::ensure!(case.names().await? == others, "pods of other nodes were touched");
    Ok(())
}

async fn a_key_that_goes_takes_its_pods_along(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 2])?).await?;
    case.until_per_node(&[2, 2]).await?;
    let without = json!({ "spec": { "repurika": { case.nodes[0].clone(): null } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(without)).await?;
    case.until_per_node(&[0, 2]).await
}

async fn an_unknown_node_gets_a_condition_and_no_pod(cluster: &Cluster) -> anyhow::Result<()> {
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

async fn readiness_reaches_the_status(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(3).await?;
    case.create(case.sample(&[1, 2, 3])?).await?;
    case.until_per_node(&[1, 2, 3]).await?;
    case.make_all_ready().await?;
    let seika = case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let status = seika.status.unwrap_or_default();
    // Nodes of other cases are listed too; they have nothing of this Seika.
    let ready: Vec<&str> = status.ready.split('/').map(|side| side.trim_matches(|c| c == '0' || c == '-')).collect();
    anyhow::ensure!(ready == ["1-2-3", "1-2-3"], "{}", status.ready);
    anyhow::ensure!((status.ready_replicas, status.available_replicas) == (6, 6));
    anyhow::ensure!(status.observed_generation == seika.metadata.generation);
    let counts: Vec<i32> = status.repurika.values().copied().collect();
    anyhow::ensure!(counts == [1, 2, 3]);
    Ok(())
}

async fn deletion_takes_the_pods_along(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    case.seikas.delete("hello", &DeleteParams::background()).await?;
    case.until_per_node(&[0, 0]).await?;

    // One of the same name is another one.
    case.create(case.sample(&[1, 1])?).await?;
    case.until_per_node(&[1, 1]).await
}

async fn rapid_changes_never_overshoot(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[0, 0])?).await?;
    for round in 0..20 {
        case.set(&[3, 1 + round % 4]).await?;
        case.set(&[5, 4]).await?;
        case.set(&[2 + round % 3, 0]).await?;
    }
    case.set(&[4, 2]).await?;
    case.until_per_node(&[4, 2]).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    anyhow::ensure!(case.per_node().await? == [4, 2]);
    let seen = observer.seen();
    let most: Vec<usize> = case.nodes.iter().map(|node| seen.most_per_node.get(node).copied().unwrap_or(0)).collect();
    anyhow::ensure!(most[0] <= 5 && most[1] <= 4, "{most:?} pods at some instant, 5 and 4 were the most ever wanted");
    Ok(())
}

async fn a_restart_creates_nothing_twice(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(2).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[30, 10])?).await?;
    let client = cluster.controllers_client().await?;
    for round in 0..12 {
        case.controller = Some(Controller::start(client.clone(), &case.namespace));
        tokio::time::sleep(Duration::from_millis(10 + 15 * round)).await;
        case.controller = None;
    }
    // Two at once: what happens while one does not know yet that another leads.
    let rival = Controller::start(client.clone(), &case.namespace);
    case.controller = Some(Controller::start(client, &case.namespace));
    case.until_per_node(&[30, 10]).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = observer.seen();
    anyhow::ensure!(seen.created == 40 && seen.deleted == 0, "{} created, {} deleted", seen.created, seen.deleted);
    drop(rival);
    if let Some(controller) = case.controller.take() {
        controller.stop().await?;
    }
    Ok(())
}

async fn failed_pods_are_replaced_and_tidied_up(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    for _ in 0..2 {
        case.make_all_ready().await?;
        let victim = case.active().await?.remove(0);
        let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": "low on memory" } });
        case.pods.patch_status(&victim.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await?;
        case.until_status("the failure is told of", |seika| condition(seika, "Degraded").1 == "PodsFail").await?;
        case.until_per_node(&[2]).await?;
        until("the failed pod is gone or going", async || {
            let pods = case.pods.list(&Default::default()).await?;
            Ok(pods.items.iter().all(|pod| is_active(pod) || pod.metadata.deletion_timestamp.is_some()))
        })
        .await?;
    }
    anyhow::ensure!(observer.seen().most_per_node[&case.nodes[0]] == 2);
    Ok(())
}

async fn pods_of_a_vanished_node_are_cleaned_up(cluster: &Cluster) -> anyhow::Result<()> {
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
    anyhow::ensure!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    case.add_node(&gone).await?;
    case.until_per_node(&[2, 1]).await?;

    // One that leaves and comes back at once keeps its pods.
    let before = case.names().await?;
    case.remove_node(&gone).await?;
    case.add_node(&gone).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    anyhow::ensure!(case.names().await? == before, "a node that was away for an instant lost its pods");
    Ok(())
}

async fn a_new_template_rolls_without_losing_a_ready_pod(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let old = case.names().await?;
    let observer = case.observe().await?;
    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    // The kubelet's part, until all are of the new template. At each step all that were promised serve.
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
    anyhow::ensure!(case.names().await?.is_disjoint(&old), "old pods are still there");
    case.until_status("it is over", |seika| condition(seika, "Progressing").1 == "Settled").await?;
    Ok(())
}

async fn foreign_pods_are_left_alone(cluster: &Cluster) -> anyhow::Result<()> {
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
    anyhow::ensure!(case.names().await?.contains("owned"), "a pod of another owner was deleted");
    Ok(())
}

async fn orphans_are_taken_in_and_relabelled_pods_let_go(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    let before = case.names().await?;

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
    anyhow::ensure!(case.names().await? == before, "other pods: {:?}, there were {before:?}", case.names().await?);
    anyhow::ensure!(observer.seen().most_per_node[&case.nodes[0]] == 2, "{:?}", observer.seen());

    // Who relabels a pod takes it out, and gets another in its place.
    let taken_out = before.first().expect("there are two").clone();
    let relabel = json!({ "metadata": { "labels": { "app": "debug" } } });
    case.pods.patch(&taken_out, &PatchParams::default(), &Patch::Merge(relabel)).await?;
    until("the pod is let go and replaced", async || {
        let released = case.pods.get(&taken_out).await?.owner_references().is_empty();
        Ok(released && case.per_node().await? == [2])
    })
    .await
}

async fn a_cordoned_node_keeps_what_serves_and_says_why(cluster: &Cluster) -> anyhow::Result<()> {
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
    let old = case.names().await?;
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
    let kept: Vec<String> = case.names().await?.intersection(&old).cloned().collect();
    anyhow::ensure!(kept.len() == 1 && kept[0].contains(&case.nodes[0]), "{kept:?}");

    nodes.patch(&case.nodes[0], &PatchParams::default(), &cordon(false)).await?;
    case.until_status("the node that takes pods again has the new template", |seika| on_node(seika, 0).updated == 1).await?;
    Ok(())
}

async fn templates_of_the_past_are_kept(cluster: &Cluster) -> anyhow::Result<()> {
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

async fn a_spec_that_cannot_be_acted_on_says_why(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let mut sample = case.sample(&[1])?;
    sample["spec"]["selector"] = json!({ "matchExpressions": [{ "key": "tier", "operator": "Exists" }] });
    case.create(sample).await?;
    let seika = case.until_status("the contradiction is told of", |seika| condition(seika, "Degraded").1 == "Invalid").await?;
    anyhow::ensure!(seika.status.and_then(|status| status.observed_generation) == seika.metadata.generation);
    anyhow::ensure!(case.active().await?.is_empty(), "a pod that its own selector does not match");
    let template = json!({ "spec": { "template": { "metadata": { "labels": { "tier": "front" } } } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(template)).await?;
    case.until_per_node(&[1]).await?;
    case.until_status("all is well", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}

async fn the_lease_passes_on(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[3])?).await?;
    let client = cluster.controllers_client().await?;
    let replica = |identity: &str| {
        let stop = CancellationToken::new();
        let settings = LeaseSettings {
            name: "seika-controller".into(),
            namespace: SYSTEM_NAMESPACE.into(),
            identity: format!("{}-{identity}", case.namespace),
        };
        let metrics = Metrics::new(&mut Registry::default());
        let (client, namespace, stopped) = (client.clone(), case.namespace.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let act = |stop| {
                let settings = Settings { namespace: Some(namespace.clone()), ..Settings::default() };
                controller::run(client.clone(), settings, metrics.clone(), stop)
            };
            act_while_leading(client.clone(), settings, metrics.clone(), stopped, || (), act).await;
        });
        (stop, task)
    };
    let (first, second) = (replica("first"), replica("second"));
    case.until_per_node(&[3]).await?;
    let leases: Api<Lease> = Api::namespaced(case.client.clone(), SYSTEM_NAMESPACE);
    let holder = leases.get("seika-controller").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let (leader, follower) = if holder.ends_with("first") { (first, second) } else { (second, first) };
    leader.0.cancel();
    leader.1.await?;
    case.set(&[5]).await?;
    case.until_per_node(&[5]).await?;
    anyhow::ensure!(observer.seen().created == 5, "{:?}", observer.seen());
    follower.0.cancel();
    follower.1.await?;
    Ok(())
}

async fn from_zero_to_one_takes_no_time(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[0])?).await?;
    let observer = case.observe().await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = observer.seen().created;
        case.set(&[1]).await?;
        let begun = Instant::now();
        while observer.seen().created == before {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(5), "no pod");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(begun.elapsed());
        case.set(&[0]).await?;
        case.until_per_node(&[0]).await?;
    }
    times.sort();
    println!("       patch answered -> pod seen: p50 {:.1?}, most {:.1?}", times[10], times[19]);
    anyhow::ensure!(times[10] < Duration::from_millis(250), "half took longer than {:?}", times[10]);
    Ok(())
}

/// Replay one run with KANTAI_CHAOS_SEED=<its seed> KANTAI_CHAOS_RUNS=1.
async fn chaos_ends_with_exactly_the_pods_asked_for(cluster: &Cluster) -> anyhow::Result<()> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let seed = number("KANTAI_CHAOS_SEED")?.unwrap_or_else(rand::random);
    let runs = number("KANTAI_CHAOS_RUNS")?.map_or(12, |runs| usize::try_from(runs).unwrap_or(12));
    println!("       chaos from seed {seed}");
    let toll = Chaos { seed, runs, points_per_run: 20, lanes: 2 }.unleash(cluster).await?;
    println!("       {} disturbances, {} runs went wrong", toll.points, toll.bad.len());
    anyhow::ensure!(toll.bad.is_empty() && toll.overshoot == 0, "{}", toll.bad.join("\n"));
    Ok(())
}

fn condition<'a>(seika: &'a Seika, type_: &str) -> (&'a str, &'a str) {
    let conditions = seika.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == type_).map_or(("", ""), |one| (&one.status, &one.reason))
}
