//! The total of the counts: the `scale` subresource, and the disruption budgets that go by it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use k8s_api::seika::Seika;
use k8s_openapi::api::autoscaling::v1::Scale;
use kantai_tests::seika::budgets::{kinds, lets_a_drain_pass};
use kantai_tests::seika::cluster::{Case, Cluster, until};
use kantai_tests::seika::kubectl::Kubectl;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

async fn until_total(case: &Case, total: i32) -> anyhow::Result<Seika> {
    case.until_status(&format!("the total is {total}"), |seika| seika.spec.replicas == Some(total)).await
}

pub(crate) async fn the_total_follows_the_counts_whoever_writes_them(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    case.create(case.sample(&[1, 2])?).await?;
    let seika = until_total(&case, 3).await?;
    let fields = seika.metadata.managed_fields.unwrap_or_default();
    let ours = fields.iter().find(|entry| entry.manager.as_deref() == Some("seika-controller-total"));
    let ours = ours.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| fields.0.clone());
    anyhow::ensure!(ours == Some(json!({ "f:spec": { "f:replicas": {} } })), "{ours:?}");
    case.until_per_node(&[1, 2]).await?;
    let told = |scale: &Scale| {
        let status = scale.status.clone().unwrap_or_default();
        (scale.spec.as_ref().and_then(|spec| spec.replicas), status.replicas, status.selector)
    };
    until("the scale tells all of it", async || {
        let scale = case.seikas.get_scale("hello").await?;
        Ok(told(&scale) == (Some(3), 3, Some("app=hello".to_owned())))
    })
    .await?;

    case.set(&[2, 2]).await?;
    until_total(&case, 4).await?;
    // As an autoscaler does that knows nothing of a total, and one that does.
    let identity = json!({ "apiVersion": "batch.bonavadeur.io/v1", "kind": "Seika", "metadata": { "name": "hello" } });
    let applied = async |spec: Value| {
        let mut manifest = identity.clone();
        manifest["spec"] = spec;
        case.seikas.patch("hello", &PatchParams::apply("autoscaler").force(), &Patch::Apply(&manifest)).await
    };
    applied(json!({ "repurika": case.counts(&[3, 2]) })).await?;
    until_total(&case, 5).await?;
    let both = applied(json!({ "repurika": case.counts(&[3, 3]), "replicas": 6 })).await?;
    anyhow::ensure!(both.spec.replicas == Some(6));
    case.until_per_node(&[3, 3]).await?;
    applied(json!({ "repurika": case.counts(&[0, 1]) })).await?;
    until_total(&case, 1).await?;
    case.until_per_node(&[0, 1]).await?;

    // A total that is removed comes back.
    let without = Patch::Merge(json!({ "spec": { "replicas": null } }));
    case.seikas.patch("hello", &PatchParams::default(), &without).await?;
    until_total(&case, 1).await?;
    Ok(())
}

pub(crate) async fn a_total_by_itself_is_refused_and_says_what_to_write(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    let kubectl = Kubectl::of(cluster).await?;
    case.create(case.sample(&[1, 2])?).await?;
    until_total(&case, 3).await?;
    for total in ["7", "0"] {
        let complaint = kubectl.refused(&case, &["scale", "seika/hello", "--replicas", total]).await?;
        anyhow::ensure!(complaint.contains("Write repurika, the pods per node"), "{complaint}");
    }
    kubectl.done(&case, &["scale", "seika/hello", "--replicas", "3"]).await?;
    let other = Patch::Merge(json!({ "spec": { "repurika": case.counts(&[2, 2]), "replicas": 3 } }));
    // It stays as it was, so it is not what is being written.
    case.seikas.patch("hello", &PatchParams::default(), &other).await?;
    until_total(&case, 4).await?;
    let wrong = Patch::Merge(json!({ "spec": { "repurika": case.counts(&[1, 1]), "replicas": 3 } }));
    let refused = case.seikas.patch("hello", &PatchParams::default(), &wrong).await;
    anyhow::ensure!(refused.is_err_and(|error| error.to_string().contains("replicas is the sum of repurika")));
    case.until_per_node(&[2, 2]).await?;
    Ok(())
}

/// `kubectl apply`, which compares what it is given with what it was given last and with what there
/// is.
pub(crate) async fn a_manifest_that_is_applied_again_changes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case(2).await?;
    let kubectl = Kubectl::of(cluster).await?;
    let folder = tempfile::tempdir()?;
    let write = |manifest: &Value| -> anyhow::Result<PathBuf> {
        let path = folder.path().join("seika.json");
        std::fs::File::create(&path)?.write_all(manifest.to_string().as_bytes())?;
        Ok(path)
    };
    let text = |path: &Path| path.display().to_string();
    let mut sample = case.sample(&[1, 2])?;
    let path = text(&write(&sample)?);
    kubectl.done(&case, &["apply", "-f", &path]).await?;
    let before = until_total(&case, 3).await?;
    let said = kubectl.done(&case, &["apply", "-f", &path]).await?;
    anyhow::ensure!(said.contains("unchanged"), "{said}");
    anyhow::ensure!(kubectl.done(&case, &["diff", "-f", &path]).await?.is_empty());
    anyhow::ensure!(case.seikas.get("hello").await?.metadata.generation == before.metadata.generation);

    sample["spec"]["repurika"] = case.counts(&[2, 2]);
    let path = text(&write(&sample)?);
    kubectl.done(&case, &["apply", "-f", &path]).await?;
    until_total(&case, 4).await?;
    // A whole object put in the place of the one there is.
    sample["spec"]["repurika"] = case.counts(&[2, 1]);
    let path = text(&write(&sample)?);
    kubectl.done(&case, &["replace", "-f", &path]).await?;
    until_total(&case, 3).await?;
    sample["spec"]["repurika"] = case.counts(&[0, 1]);
    let path = text(&write(&sample)?);
    kubectl.done(&case, &["apply", "--server-side", "--force-conflicts", "-f", &path]).await?;
    until_total(&case, 1).await?;
    case.until_per_node(&[0, 1]).await
}

pub(crate) async fn budgets_of_every_kind_let_a_drain_pass(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = Kubectl::of(cluster).await?;
    let drains = kinds().into_iter().map(async |budget| {
        let case = cluster.case(3).await?;
        lets_a_drain_pass(&case, &kubectl, &budget).await
    });
    futures::future::try_join_all(drains).await?;
    Ok(())
}
