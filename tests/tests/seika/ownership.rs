//! Whose pods are whose.

use std::time::Duration;

use k8s_api::seika::NODE_LABEL;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::api_server::apply;
use kantai_tests::seika::cluster::{Cluster, until};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
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

    // A Seika that goes without its pods leaves orphans; the next one of the same selector has
    // them.
    case.seikas
        .delete("hello", &DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..Default::default() })
        .await?;
    until("the pods are orphans", async || Ok(case.active().await?.iter().all(|pod| pod.owner_references().is_empty()))).await?;
    until("the Seika is gone", async || Ok(case.seikas.get_opt("hello").await?.is_none())).await?;
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

/// A rule of the cluster under which pods labelled `frozen` do not change.
fn frozen_pods_do_not_change(namespace: &str) -> [Value; 2] {
    let (policy, binding) = of_this_namespace("Validating", namespace, "UPDATE");
    let unless_frozen = "!has(oldObject.metadata.labels) || !('frozen' in oldObject.metadata.labels)";
    let spec = json!({ "validations": [{ "expression": unless_frozen, "message": "it is frozen" }] });
    [merged(policy, spec), merged(binding, json!({ "validationActions": ["Deny"] }))]
}

/// A rule of the cluster that gives every new pod another label `app`.
fn new_pods_are_relabelled(namespace: &str) -> [Value; 2] {
    let (policy, binding) = of_this_namespace("Mutating", namespace, "CREATE");
    let relabel = r#"[JSONPatch{op: "replace", path: "/metadata/labels/app", value: "relabelled"}]"#;
    let mutations = json!([{ "patchType": "JSONPatch", "jsonPatch": { "expression": relabel } }]);
    [merged(policy, json!({ "mutations": mutations, "reinvocationPolicy": "Never" })), binding]
}

/// A policy about pods of this namespace, and what puts it in force.
pub(crate) fn of_this_namespace(kind: &str, namespace: &str, operation: &str) -> (Value, Value) {
    let name = format!("{namespace}-{}", kind.to_lowercase());
    let metadata = json!({ "name": name });
    let pods = json!([{ "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["pods"] }]);
    let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    let matched = json!({ "resourceRules": pods, "namespaceSelector": here });
    let version = "admissionregistration.k8s.io/v1";
    let policy = json!({ "apiVersion": version, "kind": format!("{kind}AdmissionPolicy"), "metadata": metadata,
        "spec": { "failurePolicy": "Fail", "matchConstraints": matched } });
    let binding = json!({ "apiVersion": version, "kind": format!("{kind}AdmissionPolicyBinding"), "metadata": metadata,
        "spec": { "policyName": name } });
    (policy, binding)
}

pub(crate) fn merged(mut manifest: Value, spec: Value) -> Value {
    if let (Some(present), Value::Object(further)) = (manifest["spec"].as_object_mut(), spec) {
        present.extend(further);
    }
    manifest
}

pub(crate) async fn a_pod_that_may_not_be_adopted_or_released_stops_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(1).await?;
    let orphan = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "orphan", "namespace": case.namespace,
            "labels": { "app": "hello", NODE_LABEL: case.nodes[0], "frozen": "true" } },
        "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
    });
    apply(&case.client, &orphan).await?;
    for manifest in frozen_pods_do_not_change(&case.namespace) {
        apply(&case.client, &manifest).await?;
    }
    let touched = Patch::Merge(json!({ "metadata": { "annotations": { "touched": "" } } }));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    until("the rule holds", async || Ok(case.pods.patch("orphan", &dry, &touched).await.is_err())).await?;

    case.create(case.sample(&[1])?).await?;
    case.controller = Some(cluster.controller(&case.namespace).await?);
    case.until_per_node(&[1]).await?;
    let told = case.until_status("the refusal is told of", |seika| condition(seika, "Degraded").1 == "FailedAdopt").await?;
    let conditions = told.status.unwrap_or_default().conditions;
    anyhow::ensure!(conditions.iter().any(|condition| condition.message.contains("it is frozen")), "{conditions:?}");
    case.set(&[2]).await?;
    case.until_per_node(&[2]).await?;
    anyhow::ensure!(case.pods.get("orphan").await?.owner_references().is_empty());

    // One of its own that may not be released stays its own, and counts.
    let own = case.uids().await?.into_keys().find(|name| name != "orphan").expect("it has two");
    let relabel = json!({ "metadata": { "labels": { "app": "debug", "frozen": "true" } } });
    case.pods.patch(&own, &PatchParams::default(), &Patch::Merge(relabel)).await?;
    case.set(&[3]).await?;
    case.until_per_node(&[3]).await?;
    anyhow::ensure!(!case.pods.get(&own).await?.owner_references().is_empty());

    // Once they may change, both are tried again by themselves.
    let policies: Api<ValidatingAdmissionPolicyBinding> = Api::all(case.client.clone());
    policies.delete(&format!("{}-validating", case.namespace), &DeleteParams::default()).await?;
    until("the one is released, the other adopted", async || {
        let (own, orphan) = (case.pods.get(&own).await?, case.pods.get_opt("orphan").await?);
        // The orphan is of no template that is known, so it may have been replaced by now.
        let adopted = orphan.is_none_or(|orphan| !orphan.owner_references().is_empty());
        Ok(own.owner_references().is_empty() && adopted)
    })
    .await?;
    case.until_per_node(&[3]).await?;
    case.until_status("all is well", |seika| condition(seika, "Degraded").0 == "False").await?;
    Ok(())
}

/// Each such pod is no longer the Seika's by its labels. Releasing it would call for another, which
/// comes out the same.
pub(crate) async fn labels_that_admission_changes_make_no_pods_without_end(cluster: &Cluster) -> anyhow::Result<()> {
    let mut case = cluster.case_without_controller(1).await?;
    for manifest in new_pods_are_relabelled(&case.namespace) {
        apply(&case.client, &manifest).await?;
    }
    let probe: Pod = serde_json::from_value(json!({
        "metadata": { "name": "probe", "labels": { "app": "hello" } },
        "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
    }))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the rule holds", async || Ok(case.pods.create(&dry, &probe).await?.labels()["app"] == "relabelled")).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[3])?).await?;
    case.controller = Some(cluster.controller(&case.namespace).await?);
    case.until_per_node(&[3]).await?;
    case.until_status("it is told of", |seika| condition(seika, "Degraded").1 == "LabelsChanged").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pods = case.active().await?;
    let owned = pods.iter().filter(|pod| !pod.owner_references().is_empty()).count();
    anyhow::ensure!((pods.len(), owned, observer.created()) == (3, 3, 3), "{} pods, {owned} owned", pods.len());
    Ok(())
}
