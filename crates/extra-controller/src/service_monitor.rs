//! A ServiceMonitor per revision, where the cluster has such a thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use k8s_api::{PodAutoscaler, REVISION_LABEL};

use crate::apply::FIELD_MANAGER;

/// A cluster may get the kind, or lose it, at any time.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const GROUP: &str = "monitoring.coreos.com";

/// Whether the cluster has the kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceMonitors {
    there: Arc<AtomicBool>,
}

impl ServiceMonitors {
    /// Looks for the kind, again and again.
    pub(crate) async fn discover(self, client: Client) {
        loop {
            let found = match client.list_api_group_resources(&format!("{GROUP}/v1")).await {
                Ok(list) => list.resources.iter().any(|resource| resource.kind == "ServiceMonitor"),
                Err(_) => false,
            };
            if self.there.swap(found, Ordering::Relaxed) != found {
                tracing::info!(found, "ServiceMonitors");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the cluster has the kind.
    pub(crate) fn are_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// Creates the ServiceMonitor of a revision. Returns whether it was written. A failure is only
    /// logged: requests do not depend on it.
    pub(crate) async fn ensure(&self, client: &Client, autoscaler: &PodAutoscaler) -> bool {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "ServiceMonitor"));
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &autoscaler.namespace().unwrap_or_default(), &resource);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let (name, monitor) = (autoscaler.name_any(), Patch::Apply(monitor(autoscaler)));
        let patched = tokio::time::timeout(WRITE_TIMEOUT, api.patch(&name, &params, &monitor)).await;
        let failure = match patched {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!(revision = name, error = failure, "failed to write the ServiceMonitor");
        false
    }
}

/// Scrapes the queue-proxies behind the revision's private Service: its requests, and what the
/// function serves itself.
fn monitor(autoscaler: &PodAutoscaler) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ServiceMonitor",
        "metadata": {
            "name": autoscaler.name_any(),
            "namespace": autoscaler.namespace(),
            "labels": autoscaler.labels(),
            "ownerReferences": autoscaler.controller_owner_ref(&()).map(|owner| vec![owner]).unwrap_or_default(),
        },
        "spec": {
            "selector": {"matchLabels": {
                REVISION_LABEL: autoscaler.name_any(),
                "networking.internal.knative.dev/serviceType": "Private",
            }},
            "endpoints": [{"port": "http-usermetric"}],
        },
    })
}
