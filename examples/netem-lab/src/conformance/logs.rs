//! What our own programs wrote meanwhile, put beside the report of a run in which a
//! test failed.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use crate::report::ReportError;

/// Where our programs run.
const NAMESPACE: &str = "kantai-system";
/// Labels of the ingress and its gateways.
pub(super) const INGRESS: &str = "app.kubernetes.io/name in (locality-ingress, kantai-gateway)";
/// Labels of all of them.
pub(super) const ALL: &str = "app.kubernetes.io/part-of=kantai";

/// Writes a file per pod that `selector` selects into `folder`. Where a log is not available, the
/// file says why.
pub(super) async fn save(client: &Client, selector: &str, folder: &Path) -> Result<(), ReportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let found = match pods.list(&ListParams::default().labels(selector)).await {
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
