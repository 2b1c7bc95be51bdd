//! What the definition takes and refuses, and what `kubectl` sees.

use std::time::Duration;

use k8s_api::seika::{NODE_ANNOTATION, NODE_LABEL, NODES_MAX, REVISION_LABEL, Seika};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kantai_tests::api_server::documents;
use kantai_tests::seika::cluster::{Cluster, until};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};

use crate::condition;

const CRD: &str = include_str!("../../../deploy/seika-controller/crd.yaml");

pub(crate) async fn the_definition_takes_the_sample_and_refuses_nonsense(cluster: &Cluster) -> anyhow::Result<()> {
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
    let of_a_pod = json!({ "metadata": { "annotations": { NODE_ANNOTATION: "node1" } } });
    refused(json!({ "spec": { "template": of_a_pod } }), "template must not have the annotation").await?;

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

/// What the definition says of selectors: it takes those that match the pods to be, and no others.
pub(crate) async fn selectors_match_the_pods_to_be(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    let expression = |operator: &str, values: &[&str]| {
        let with_values = json!({ "key": "tier", "operator": operator, "values": values });
        json!({ "matchLabels": { "app": "hello" }, "matchExpressions": [with_values] })
    };
    let cases = [
        (expression("In", &["front", "middle"]), true),
        (expression("In", &["back"]), false),
        (expression("In", &[]), false),
        (expression("NotIn", &["back"]), true),
        (expression("NotIn", &["front"]), false),
        (expression("Exists", &[]), true),
        (expression("DoesNotExist", &[]), false),
        (
            json!({ "matchExpressions": [{ "key": "app", "operator": "DoesNotExist" }, { "key": "tier", "operator": "Exists" }] }),
            true,
        ),
        (json!({ "matchLabels": { "app": "hello" }, "matchExpressions": [{ "key": "app", "operator": "Exists" }] }), true),
        // What one gets by copying the labels of a pod.
        (json!({ "matchLabels": { "app": "hello", NODE_LABEL: "node1" } }), false),
        (json!({ "matchLabels": { "app": "hello", REVISION_LABEL: "rev" } }), false),
        (json!({ "matchExpressions": [{ "key": NODE_LABEL, "operator": "Exists" }] }), false),
        (json!({ "matchExpressions": [{ "key": NODE_LABEL, "operator": "In", "values": ["node1"] }] }), false),
        (json!({ "matchLabels": { "bonavadeur.io/seika": "hello" } }), true),
    ];
    for (number, (selector, taken)) in cases.into_iter().enumerate() {
        let mut sample = case.sample(&[0])?;
        sample["metadata"]["name"] = json!(format!("hello-{number}"));
        sample["spec"]["template"]["metadata"]["labels"] = json!({ "tier": "front", NODE_LABEL: "node1", REVISION_LABEL: "rev" });
        sample["spec"]["selector"] = selector.clone();
        let answer = case.create(sample).await;
        anyhow::ensure!(answer.is_ok() == taken, "{selector}: {answer:?}");
    }
    Ok(())
}

pub(crate) async fn kubectl_shows_nodes_counts_and_age(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[1, 2])?).await?;
    case.until_per_node(&[1, 2]).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    let request = http::Request::get(format!("/apis/batch.bonavadeur.io/v1/namespaces/{}/seikas", case.namespace))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = case.client.request(request).await?;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().into_iter().flatten().filter_map(|column| column["name"].as_str()).collect();
    anyhow::ensure!(names == ["Name", "Nodes", "Ready", "Desired", "Ready-Pods", "Updated", "Age"], "{names:?}");
    let cells = &table["rows"][0]["cells"];
    anyhow::ensure!([&cells[3], &cells[4], &cells[5]] == [3, 3, 3], "{cells}");
    let nodes = cells[1].as_str().unwrap_or_default();
    anyhow::ensure!(case.nodes.iter().all(|node| nodes.contains(node)), "{cells}");
    Ok(())
}

pub(crate) async fn who_writes_counts_and_who_writes_the_template_need_not_be_one(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    let mut template = case.sample(&[])?;
    template["spec"].as_object_mut().unwrap().remove("repurika");
    let apply = async |manager: &str, manifest: &Value| {
        case.seikas.patch("hello", &PatchParams::apply(manager), &Patch::Apply(manifest)).await
    };
    apply("kubectl", &template).await?;
    let identity = json!({ "apiVersion": template["apiVersion"], "kind": template["kind"], "metadata": { "name": "hello" } });
    let mut counts = identity.clone();
    counts["spec"] = json!({ "repurika": case.counts(&[2, 1]) });
    apply("autoscaler", &counts).await?;
    case.until_per_node(&[2, 1]).await?;

    // Neither undoes what the other wrote, nor has to insist.
    template["spec"]["minReadySeconds"] = json!(1);
    let seika = apply("kubectl", &template).await?;
    anyhow::ensure!(json!(seika.spec.repurika) == case.counts(&[2, 1]), "{:?}", seika.spec.repurika);
    counts["spec"] = json!({ "repurika": case.counts(&[0, 1]) });
    let seika = apply("autoscaler", &counts).await?;
    anyhow::ensure!(seika.spec.min_ready_seconds == 1);
    case.until_per_node(&[0, 1]).await?;
    let mut other = template.clone();
    other["spec"]["repurika"] = case.counts(&[9]);
    anyhow::ensure!(
        apply("kubectl", &other).await.is_err_and(|error| error.to_string().contains("conflict")),
        "counts have an owner"
    );

    let fields = case.seikas.get("hello").await?.metadata.managed_fields.unwrap_or_default();
    let ours: Vec<String> = fields
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some("seika-controller"))
        .flat_map(|entry| entry.fields_v1.iter().filter_map(|fields| fields.0.as_object()))
        .flat_map(|fields| fields.keys().cloned())
        .collect();
    anyhow::ensure!(ours == ["f:status"], "{ours:?}");
    Ok(())
}

pub(crate) async fn events_tell_of_changes_only(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    case.create(case.sample(&[2])?).await?;
    case.until_per_node(&[2]).await?;
    let events: Api<Event> = Api::namespaced(case.client.clone(), &case.namespace);
    let reasons = async || {
        let events = events.list(&Default::default()).await?.items;
        let ours = events
            .into_iter()
            .filter(|event| event.regarding.as_ref().is_some_and(|about| about.kind.as_deref() == Some("Seika")));
        anyhow::Ok(
            ours.map(|event| (event.reason.unwrap_or_default(), event.series.map(|series| series.count))).collect::<Vec<_>>(),
        )
    };
    until("the creation is told of", async || Ok(!reasons().await?.is_empty())).await?;
    let told = reasons().await?;
    anyhow::ensure!(told.iter().all(|(reason, _)| reason == "SuccessfulCreate"), "{told:?}");
    for round in 0..5 {
        let touched = json!({ "metadata": { "annotations": { "round": round.to_string() } } });
        case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(touched)).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::ensure!(reasons().await? == told, "{:?} where nothing was done; before {told:?}", reasons().await?);
    case.set(&[1]).await?;
    until("the deletion is told of", async || Ok(reasons().await?.iter().any(|(reason, _)| reason == "SuccessfulDelete"))).await
}

/// With the names that clouds give to nodes, and each manager's account of what it manages.
pub(crate) async fn a_seika_of_as_many_nodes_as_there_may_be_has_a_status(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(1).await?;
    let counts: Map<String, Value> =
        (0..NODES_MAX).map(|node| (format!("{:0>41}", format!("node{node}")), json!(1000))).collect();
    let mut seika = case.sample(&[])?;
    seika["spec"]["repurika"] = counts.into();
    case.seikas.patch("hello", &PatchParams::apply("autoscaler"), &Patch::Apply(&seika)).await?;
    let total = i32::try_from(NODES_MAX)? * 1000;
    let told = |seika: &Seika| {
        let status = seika.status.clone().unwrap_or_default();
        status.desired_replicas == total && seika.spec.replicas == Some(total)
    };
    let seika = case.until_status("all of them are told of", told).await?;
    let bytes = serde_json::to_vec(&seika)?.len();
    let status = seika.status.unwrap_or_default();
    anyhow::ensure!(status.repurika.len() == counts_len(NODES_MAX) && status.per_node.len() == 100, "{}", status.per_node.len());
    anyhow::ensure!(status.nodes == [format!("{NODES_MAX} nodes")] && status.ready == format!("0/{total}"), "{}", status.ready);
    println!("       {bytes} bytes");
    anyhow::ensure!(bytes < 1_200_000, "{bytes} bytes of the 1.5 MiB that etcd takes");

    // Who lowers the counts writes only those that change.
    let none: Map<String, Value> = (0..NODES_MAX).map(|node| (format!("{:0>41}", format!("node{node}")), json!(0))).collect();
    case.seikas.patch("hello", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "repurika": none } }))).await?;
    case.until_status("none is wanted", |seika| seika.spec.replicas == Some(0)).await?;
    Ok(())
}

/// Seikas that the API server would refuse today. What is wrong with one must neither make pods
/// without end nor keep its counts from changing.
pub(crate) async fn what_was_stored_before_the_rules_does_no_harm(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(1).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(case.client.clone());
    let with_rules = documents(CRD)?.remove(0);
    let mut without = with_rules.clone();
    let spec = &mut without["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for part in ["selector", "template"] {
        spec[part].as_object_mut().and_then(|part| part.remove("x-kubernetes-validations")).expect("it has rules");
    }
    let put = async |definition: &Value| {
        let parameters = PatchParams::apply("test").force();
        definitions.patch("seikas.batch.bonavadeur.io", &parameters, &Patch::Apply(definition)).await
    };
    let mut annotated = case.sample(&[1])?;
    annotated["spec"]["template"]["metadata"]["annotations"] = json!({ NODE_ANNOTATION: "another-node" });
    let mut looping = case.sample(&[1])?;
    looping["metadata"]["name"] = json!("looping");
    looping["spec"]["template"]["metadata"]["labels"] = json!({ "app": "looping" });
    looping["spec"]["selector"] = json!({ "matchLabels": { "app": "looping", NODE_LABEL: case.nodes[0] } });
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let probe: Seika = serde_json::from_value(looping.clone())?;
    let is_taken = async || anyhow::Ok(case.seikas.create(&dry, &probe).await.is_ok());
    put(&without).await?;
    let stored = async {
        until("the rules are gone", async || is_taken().await).await?;
        case.create(annotated).await?;
        case.create(looping).await
    };
    let stored = stored.await;
    put(&with_rules).await?;
    stored?;
    until("the rules hold", async || Ok(!is_taken().await?)).await?;

    let observer = case.observe().await?;
    case.controller = Some(cluster.controller(&case.namespace).await?);
    case.until_per_node(&[1]).await?;
    case.set(&[2]).await?;
    case.until_per_node(&[2]).await?;
    case.until_status("the total follows", |seika| seika.spec.replicas == Some(2)).await?;
    until("the other is told of", async || {
        let seika = case.seikas.get("looping").await?;
        Ok(condition(&seika, "Degraded").1 == "Invalid")
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    anyhow::ensure!((observer.seen().created, observer.seen().deleted) == (2, 0), "{:?}", observer.seen());
    anyhow::ensure!(case.active().await?.iter().all(|pod| !pod.annotations().contains_key(NODE_ANNOTATION)));
    Ok(())
}

fn counts_len(nodes: u32) -> usize {
    usize::try_from(nodes).unwrap_or(0)
}
