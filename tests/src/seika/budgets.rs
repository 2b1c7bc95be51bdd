//! Disruption budgets over the pods of a Seika, judged by the real disruption controller.

use std::time::Duration;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{Case, until};
use super::kubectl::Kubectl;
use crate::api_server::apply;

/// A budget of each kind. Of three pods, each of these lets one go at a time.
#[must_use]
pub fn kinds() -> [Value; 4] {
    [
        json!({ "minAvailable": 2 }),
        json!({ "minAvailable": "50%" }),
        json!({ "maxUnavailable": 1 }),
        json!({ "maxUnavailable": "30%" }),
    ]
}

/// Drains two of the three nodes of `case`, one after the other, and does the part of the kubelets
/// and of the autoscaler. As long as one pod is missing, the budget holds the second one.
///
/// # Errors
/// Where the budget lets too many pods go, or none.
pub async fn lets_a_drain_pass(case: &Case, kubectl: &Kubectl, budget: &Value) -> anyhow::Result<()> {
    case.create(case.sample(&[1, 1, 1])?).await?;
    case.until_per_node(&[1, 1, 1]).await?;
    case.make_all_ready().await?;
    let mut manifest = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "hello", "namespace": case.namespace }, "spec": budget });
    manifest["spec"]["selector"] = json!({ "matchLabels": { "app": "hello" } });
    apply(&case.client, &manifest).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(case.client.clone(), &case.namespace);
    let until_allowed = async |allowed: i32| {
        until(&format!("{budget} allows {allowed}"), async || {
            let status = budgets.get("hello").await?.status.unwrap_or_default();
            let PodDisruptionBudgetStatus { disruptions_allowed, expected_pods, conditions, .. } = status;
            if conditions.iter().flatten().any(|condition| condition.message.contains("no matches for kind")) {
                try_again(&budgets).await?;
            }
            Ok((disruptions_allowed, expected_pods) == (allowed, 3))
        })
        .await
    };
    until_allowed(1).await?;
    let drained = async |node: usize, patience: &str| {
        // Only the nodes' own pods are asked about, so that drains of the other cases are none of
        // this one's.
        let selector = ["drain", &case.nodes[node], "--pod-selector=app=hello", "--timeout", patience];
        tokio::select! {
            output = kubectl.run(case, &selector) => output,
            error = end_what_is_going(case) => Err(error),
        }
    };
    let first = drained(0, "60s").await?;
    anyhow::ensure!(first.status.success(), "{budget}: {}", String::from_utf8_lossy(&first.stderr));
    // The pod that takes its place waits for the node, so that a second one may not go.
    case.until_per_node(&[1, 1, 1]).await?;
    until_allowed(0).await?;
    let second = drained(1, "2s").await?;
    let complaint = String::from_utf8_lossy(&second.stderr).into_owned();
    anyhow::ensure!(
        !second.status.success() && complaint.contains("violate the pod's disruption budget"),
        "{budget}: {complaint}"
    );
    // Whoever decides on the counts puts it elsewhere.
    case.set(&[0, 1, 2]).await?;
    case.until_per_node(&[0, 1, 2]).await?;
    case.make_all_ready().await?;
    until_allowed(1).await?;
    let second = drained(1, "60s").await?;
    anyhow::ensure!(second.status.success(), "{budget}: {}", String::from_utf8_lossy(&second.stderr));
    Ok(())
}

/// The disruption controller learns of new kinds of objects twice a minute, and tries again what
/// failed with a growing delay. A change of the budget makes it try at once.
async fn try_again(budgets: &Api<PodDisruptionBudget>) -> anyhow::Result<()> {
    let touched = json!({ "metadata": { "annotations": { "touched": k8s_openapi::jiff::Timestamp::now().to_string() } } });
    budgets.patch("hello", &PatchParams::default(), &Patch::Merge(touched)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// The kubelet's part: removes terminating pods. Returns only when that fails.
async fn end_what_is_going(case: &Case) -> anyhow::Error {
    loop {
        let pods = match case.pods.list(&Default::default()).await {
            Ok(pods) => pods.items,
            Err(error) => return error.into(),
        };
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            // It may have gone by itself.
            let _ = case.pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
