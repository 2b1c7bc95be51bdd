//! Exact counts, at every instant.

use std::time::{Duration, Instant};

use k8s_api::seika::{NODE_LABEL, REVISION_LABEL, Seika};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kantai_tests::PATIENCE;
use kantai_tests::api_server::apply;
use kantai_tests::seika::cluster::{Cluster, Controller, is_active, until};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use prometheus_client::registry::Registry;
use seika_controller::metrics::Metrics;
use serde_json::json;

use crate::condition;
use crate::ownership::{merged, of_this_namespace};

pub(crate) async fn the_sample_gets_six_pods_on_its_nodes(cluster: &Cluster) -> anyhow::Result<()> {
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

    let before = case.uids().await?;
    apply(&case.client, &sample).await?;
    case.set(&[1, 2, 3]).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    anyhow::ensure!(case.uids().await? == before, "re-applying changed the pods");
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

pub(crate) async fn a_node_set_to_zero_loses_its_pods_and_no_others(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(3).await?;
    case.create(case.sample(&[1, 2, 3])?).await?;
    case.until_per_node(&[1, 2, 3]).await?;
    let node2 = format!("hello-{}-", case.nodes[1]);
    let others = case.uids().await?.into_iter().filter(|(name, _)| !name.starts_with(&node2)).collect();
    case.set(&[1, 0, 3]).await?;
    case.until_per_node(&[1, 0, 3]).await?;
    anyhow::ensure!(case.uids().await? == others, "pods of other nodes were touched");
    Ok(())
}

pub(crate) async fn a_key_that_goes_takes_its_pods_along(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 2])?).await?;
    case.until_per_node(&[2, 2]).await?;
    let without = json!({ "spec": { "repurika": { case.nodes[0].clone(): null } } });
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(without)).await?;
    case.until_per_node(&[0, 2]).await
}

pub(crate) async fn readiness_reaches_the_status(cluster: &Cluster) -> anyhow::Result<()> {
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

pub(crate) async fn deletion_takes_the_pods_along(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[2, 1])?).await?;
    case.until_per_node(&[2, 1]).await?;
    case.seikas.delete("hello", &DeleteParams::background()).await?;
    case.until_per_node(&[0, 0]).await?;

    // One of the same name is another one.
    case.create(case.sample(&[1, 1])?).await?;
    case.until_per_node(&[1, 1]).await
}

pub(crate) async fn rapid_changes_never_overshoot(cluster: &Cluster) -> anyhow::Result<()> {
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

pub(crate) async fn a_restart_creates_nothing_twice(cluster: &Cluster) -> anyhow::Result<()> {
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

pub(crate) async fn failed_pods_are_replaced_and_tidied_up(cluster: &Cluster) -> anyhow::Result<()> {
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

pub(crate) async fn from_zero_to_one_and_back(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[0])?).await?;
    let observer = case.observe().await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = observer.seen().created;
        case.set(&[1]).await?;
        let begun = Instant::now();
        while observer.seen().created == before {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "no pod");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(begun.elapsed());
        case.set(&[0]).await?;
        case.until_per_node(&[0]).await?;
    }
    times.sort();
    println!("       patch answered -> pod seen: p50 {:.1?}, most {:.1?}", times[10], times[19]);
    Ok(())
}

pub(crate) async fn refusals_stop_the_creation(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(1).await?;
    let namespaces: Api<Namespace> = Api::all(case.client.clone());
    let enforce = |level: Option<&str>| json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": level } } });
    // The sample's pods are not as strict as that.
    namespaces.patch(&case.namespace, &PatchParams::default(), &Patch::Merge(enforce(Some("restricted")))).await?;
    case.create(case.sample(&[50])?).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    case.controller = Some(Controller::with_metrics(cluster.controllers_client().await?, &case.namespace, metrics));
    let seika = case.until_status("the refusal is told of", |seika| condition(seika, "Degraded").1 == "FailedCreate").await?;
    let conditions = seika.status.unwrap_or_default().conditions;
    anyhow::ensure!(conditions.iter().any(|condition| condition.message.contains("PodSecurity")), "{conditions:?}");
    let mut exposed = String::new();
    prometheus_client::encoding::text::encode(&mut exposed, &registry)?;
    let refused =
        exposed.lines().find_map(|line| line.strip_prefix("kantai_seika_controller_pod_creates_total{outcome=\"Refused\"} "));
    let refused: usize = refused.unwrap_or("0").parse()?;
    anyhow::ensure!((1..=10).contains(&refused), "{refused} of 50 pods were asked for, one for each pass would do");
    namespaces.patch(&case.namespace, &PatchParams::default(), &Patch::Merge(enforce(None))).await?;
    case.until_per_node(&[50]).await?;
    case.until_status("all is well", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}

pub(crate) async fn a_node_for_which_pods_are_refused_holds_up_no_other(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(3).await?;
    let (policy, binding) = of_this_namespace("Validating", &case.namespace, "CREATE");
    // The first in name order, which is asked for first.
    let elsewhere = format!("object.metadata.labels['{NODE_LABEL}'] != '{}'", case.nodes[0]);
    let rule = json!({ "validations": [{ "expression": elsewhere, "message": "not on that node" }] });
    apply(&case.client, &merged(policy, rule)).await?;
    apply(&case.client, &merged(binding, json!({ "validationActions": ["Deny"] }))).await?;
    let probe: Pod = serde_json::from_value(json!({
        "metadata": { "name": "probe", "labels": { NODE_LABEL: case.nodes[0] } },
        "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
    }))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the rule holds", async || Ok(case.pods.create(&dry, &probe).await.is_err())).await?;
    case.create(case.sample(&[2, 2, 2])?).await?;
    case.controller = Some(cluster.controller(&case.namespace).await?);
    case.until_per_node(&[0, 2, 2]).await?;
    case.set(&[2, 3, 1]).await?;
    case.until_per_node(&[0, 3, 1]).await?;
    case.until_status("the refusal is told of", |seika| condition(seika, "Degraded").1 == "FailedCreate").await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(case.client.clone());
    bindings.delete(&format!("{}-validating", case.namespace), &DeleteParams::default()).await?;
    case.until_per_node(&[2, 3, 1]).await?;
    case.until_status("all is well", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}
