//! What to look at when a step did not hold, put beside the report.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use tokio::process::Command;

/// Namespaces whose pods' logs are kept for diagnosis.
const LOGGED: [&str; 2] = ["kantai-system", "knative-serving"];

/// No answer within this is an answer, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes pods, events, objects and logs into `folder`. Does what it can: what is not available is
/// missing, with the reason in its place.
pub(super) async fn dump(
    folder: &Path,
    kubectl: &Path,
    kubeconfig: &Path,
    client: &Client,
    namespace: &str,
) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let objects = "ksvc,revisions.serving.knative.dev,podautoscalers.autoscaling.internal.knative.dev,\
                   serverlessservices.networking.internal.knative.dev,ingresses.networking.internal.knative.dev,deployments,services,endpointslices";
    let looks = [
        ("pods.txt", vec!["get", "pods", "-A", "-o", "wide"]),
        ("events.txt", vec!["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        ("objects.yaml", vec!["get", objects, "-n", namespace, "-o", "yaml"]),
        ("seikas.yaml", vec!["get", "seikas.batch.bonavadeur.io", "-A", "-o", "yaml"]),
        ("service-pods.txt", vec!["describe", "pods", "-n", namespace]),
    ];
    for (file, arguments) in looks {
        std::fs::write(folder.join(file), kubectl_output(kubectl, kubeconfig, &arguments).await)?;
    }
    for logged in LOGGED.into_iter().chain([namespace]) {
        let api = Api::<Pod>::namespaced(client.clone(), logged);
        let Ok(pods) = api.list(&ListParams::default()).await else { continue };
        for pod in pods {
            let containers =
                pod.spec.as_ref().map(|spec| spec.containers.iter().map(|container| container.name.clone()).collect::<Vec<_>>());
            for container in containers.unwrap_or_default() {
                let parameters = LogParams {
                    container: Some(container.clone()),
                    tail_lines: Some(2_000),
                    timestamps: true,
                    ..LogParams::default()
                };
                let log = match tokio::time::timeout(PATIENCE, api.logs(&pod.name_any(), &parameters)).await {
                    Ok(Ok(log)) => log,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer".to_owned(),
                };
                let file: PathBuf = folder.join(format!("{logged}_{}_{container}.log", pod.name_any()));
                std::fs::write(file, log)?;
            }
        }
    }
    Ok(())
}

/// What `kubectl` prints, its complaints included.
pub(super) async fn kubectl_output(kubectl: &Path, kubeconfig: &Path, arguments: &[&str]) -> String {
    let run = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, run).await {
        Ok(Ok(output)) => format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Ok(Err(error)) => format!("failed to run {}: {error}", kubectl.display()),
        Err(_) => "no answer".to_owned(),
    }
}
