//! What our ingress and its gateways wrote meanwhile, put beside the report of a run in which a
//! test failed.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use crate::report::ReportError;

/// Where the ingress and its gateways run, and by which label they are found.
const NAMESPACE: &str = "kantai-system";
const SELECTOR: &str = "app.kubernetes.io/name in (locality-ingress, kantai-gateway)";

/// Writes a file per pod into `folder`. Where a log is not available, the file says why.
pub(super) async fn save(client: &Client, folder: &Path) -> Result<(), ReportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let found = match pods.list(&ListParams::default().labels(SELECTOR)).await {
        Ok(found) => found.items,
        Err(error) => {
            let path = folder.join("pods.txt");
            return std::fs::write(&path, error.to_string()).map_err(failed(&path));
        }
    };
    for pod in found {
        let name = pod.name_any();
        let log = pods.logs(&name, &LogParams { timestamps: true, ..LogParams::default() }).await;
        let path = folder.join(format!("{name}.log"));
        std::fs::write(&path, log.unwrap_or_else(|error| error.to_string())).map_err(failed(&path))?;
    }
    Ok(())
}
