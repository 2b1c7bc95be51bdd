//! The chart on a real API server: installed, upgraded, uninstalled and installed once more. There
//! are no nodes; the test plays the Job that hands back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use deploy_checks::tools::Tools;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use local_control_plane::control_plane::{ControlPlane, User};
use serde_json::json;

const NAMESPACE: &str = "kantai-system";
const JOB: &str = "kantai-hand-back";
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs Helm beside the test, which goes on.
async fn helm(kubeconfig: PathBuf, command: &'static str, more: &'static [&'static str]) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || {
        let chart: &[&str] = if command == "uninstall" { &[] } else { &["."] };
        let kubeconfig = kubeconfig.to_string_lossy();
        let common = ["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig];
        Tools::get()?.helm(&[&[command, "kantai"], chart, &common, more].concat())
    })
    .await?
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_upgraded_uninstalled_and_installed_again() -> anyhow::Result<()> {
    let control_plane = ControlPlane::for_tests().await?;
    let client = control_plane.client();
    let kubeconfig = control_plane.kubeconfig(User::Admin);
    // Rights in Knative's namespace need the namespace.
    let knative = serde_json::from_value(json!({ "metadata": { "name": "knative-serving" } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &knative).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let replicas = async || anyhow::Ok(deployments.get_opt("extra-controller").await?.and_then(|it| it.spec?.replicas));

    helm(kubeconfig.clone(), "install", &["--create-namespace"]).await?;
    assert_eq!(replicas().await?, Some(2));
    helm(kubeconfig.clone(), "upgrade", &["--set", "extraController.replicas=3"]).await?;
    assert_eq!(replicas().await?, Some(3));

    // Nothing is removed before the Job is done.
    let uninstall = tokio::spawn(helm(kubeconfig.clone(), "uninstall", &[]));
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    until("the Job is there", async || Ok(jobs.get_opt(JOB).await?.is_some() || uninstall.is_finished())).await?;
    assert_eq!(replicas().await?, Some(3));
    let now = "2026-01-01T00:00:00Z";
    let done = json!({ "status": { "startTime": now, "completionTime": now, "succeeded": 1, "conditions": [
        { "type": "SuccessCriteriaMet", "status": "True" }, { "type": "Complete", "status": "True" }] } });
    jobs.patch_status(JOB, &PatchParams::default(), &Patch::Merge(done)).await?;
    uninstall.await??;
    assert_eq!(replicas().await?, None);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    until("nothing of the Job is left", async || Ok(accounts.get_opt(JOB).await?.is_none())).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    assert!(definitions.get_opt("seikas.batch.bonavadeur.io").await?.is_some());

    // What stayed does not stand in the way.
    helm(kubeconfig, "install", &[]).await?;
    assert_eq!(replicas().await?, Some(2));
    Ok(())
}
