//! The cluster's objects, as the steps look at them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::check::belongs;
use super::pods::is_ready;
use super::service::knative_service;
use crate::scenario::Service;

const MANAGER: &str = "netem-lab";
const SERVICE_LABEL: &str = "serving.knative.dev/service";
const SEIKA_HOSTNAME: &str = "bonavadeur.io/seika-hostname";

/// The switch of Kantai's controller.
const TOGGLE: (&str, &str, &str) = ("default", "config-ikukantai", "ikukantai-miporin-enable-yukari");

/// Group, version, kind, plural of all that may be left of a service.
const KINDS: [(&str, &str, &str, &str); 14] = [
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("serving.knative.dev", "v1", "Service", "services"),
    ("serving.knative.dev", "v1", "Configuration", "configurations"),
    ("serving.knative.dev", "v1", "Revision", "revisions"),
    ("serving.knative.dev", "v1", "Route", "routes"),
    ("autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers"),
    ("autoscaling.internal.knative.dev", "v1alpha1", "Metric", "metrics"),
    ("networking.internal.knative.dev", "v1alpha1", "ServerlessService", "serverlessservices"),
    ("networking.internal.knative.dev", "v1alpha1", "Ingress", "ingresses"),
    ("batch.bonavadeur.io", "v1", "Seika", "seikas"),
];

fn resource((group, version, kind, plural): (&str, &str, &str, &str)) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// A pod of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePod {
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) ready: bool,
    pub(super) terminating: bool,
    /// Whether a Seika made it, rather than the revision's Deployment.
    pub(super) of_seika: bool,
}

impl fmt::Display for ServicePod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.terminating {
            "terminating"
        } else if self.ready {
            "ready"
        } else {
            "not ready"
        };
        let node = self.node.as_deref().unwrap_or("no node");
        write!(f, "{} on {node} ({state}, of the {})", self.name, if self.of_seika { "Seika" } else { "Deployment" })
    }
}

/// Names in a list, or "none".
pub(super) fn listed(items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The service of a scenario in a cluster.
#[derive(Clone)]
pub(super) struct Objects {
    client: Client,
    service: Service,
}

impl Objects {
    pub(super) fn new(client: Client, service: Service) -> Self {
        Self { client, service }
    }

    fn of_kind(&self, kind: &str, group: &str) -> Api<DynamicObject> {
        let found = KINDS.into_iter().find(|(known, _, name, _)| *known == group && *name == kind).unwrap_or(KINDS[0]);
        Api::namespaced_with(self.client.clone(), &self.service.namespace, &resource(found))
    }

    fn knative(&self, kind: &str) -> Api<DynamicObject> {
        self.of_kind(kind, "serving.knative.dev")
    }

    pub(super) async fn apply(&self) -> Result<(), kube::Error> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.service.namespace } });
        let parameters = PatchParams::apply(MANAGER);
        Api::<Namespace>::all(self.client.clone()).patch(&self.service.namespace, &parameters, &Patch::Apply(namespace)).await?;
        self.knative("Service").patch(&self.service.name, &parameters, &Patch::Apply(knative_service(&self.service))).await?;
        Ok(())
    }

    /// The Ready condition in words, and whether it is true.
    pub(super) async fn service_ready(&self) -> Result<(bool, String), kube::Error> {
        let Some(object) = self.knative("Service").get_opt(&self.service.name).await? else {
            return Ok((false, "no such service".to_owned()));
        };
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let text = |condition: &Value| {
            ["status", "reason", "message"].iter().filter_map(|key| condition[*key].as_str()).collect::<Vec<_>>().join(" ")
        };
        Ok((ready.is_some_and(|ready| ready["status"] == "True"), ready.map_or("no Ready condition".to_owned(), text)))
    }

    fn mine(&self) -> ListParams {
        ListParams::default().labels(&format!("{SERVICE_LABEL}={}", self.service.name))
    }

    pub(super) fn label(&self) -> (&'static str, &str) {
        (SERVICE_LABEL, &self.service.name)
    }

    pub(super) async fn pods(&self) -> Result<Vec<ServicePod>, kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.service.namespace).list(&self.mine()).await?;
        Ok(pods
            .into_iter()
            .map(|pod| ServicePod {
                name: pod.name_any(),
                node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
                ready: is_ready(&pod),
                terminating: pod.metadata.deletion_timestamp.is_some(),
                of_seika: pod.labels().contains_key(SEIKA_HOSTNAME),
            })
            .collect())
    }

    /// The number of replicas in the spec of the revisions' Deployments.
    pub(super) async fn deployment_replicas(&self) -> Result<i32, kube::Error> {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), &self.service.namespace).list(&self.mine()).await?;
        Ok(deployments.into_iter().filter_map(|deployment| deployment.spec?.replicas).sum())
    }

    pub(super) async fn revisions(&self) -> Result<Vec<String>, kube::Error> {
        let revisions = self.knative("Revision").list(&self.mine()).await?;
        Ok(revisions.iter().map(ResourceExt::name_any).collect())
    }

    /// The READY columns of the Seikas of the service.
    pub(super) async fn seika_ready(&self) -> Result<Vec<String>, kube::Error> {
        let revisions = self.revisions().await?;
        let seikas = self.of_kind("Seika", "batch.bonavadeur.io").list(&ListParams::default()).await?;
        let ready = |seika: &DynamicObject| seika.data["status"]["ready"].as_str().unwrap_or("no status").to_owned();
        Ok(seikas.iter().filter(|seika| revisions.contains(&seika.name_any())).map(ready).collect())
    }

    /// The autoscaling classes of the service's PodAutoscalers.
    pub(super) async fn classes(&self) -> Result<Vec<String>, kube::Error> {
        let autoscalers = self.of_kind("PodAutoscaler", "autoscaling.internal.knative.dev").list(&self.mine()).await?;
        let class = |object: &DynamicObject| {
            object.annotations().get("autoscaling.knative.dev/class").cloned().unwrap_or_else(|| "no class".to_owned())
        };
        Ok(autoscalers.iter().map(class).collect())
    }

    pub(super) async fn set_toggle(&self, on: bool) -> Result<(), kube::Error> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": TOGGLE.1, "namespace": TOGGLE.0 },
            "data": { TOGGLE.2: on.to_string() },
        });
        Api::<ConfigMap>::namespaced(self.client.clone(), TOGGLE.0)
            .patch(TOGGLE.1, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map))
            .await?;
        Ok(())
    }

    pub(super) async fn delete(&self) -> Result<(), kube::Error> {
        match self.knative("Service").delete(&self.service.name, &Default::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// What is left of the service and its revisions.
    pub(super) async fn left(&self, revisions: &[String]) -> Result<Vec<String>, kube::Error> {
        let mut left = Vec::new();
        for kind in KINDS {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.service.namespace, &resource(kind));
            match api.list(&ListParams::default()).await {
                Ok(objects) => {
                    let names = objects.iter().map(ResourceExt::name_any);
                    left.extend(
                        names
                            .filter(|name| belongs(name, &self.service.name, revisions))
                            .map(|name| format!("{} {name}", kind.2)),
                    );
                }
                // A kind that this cluster does not have.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Sets an environment variable of a Deployment's first container, and says when the change is
    /// rolled out: ask again until it is true.
    pub(super) async fn set_deployment_env(
        &self,
        namespace: &str,
        name: &str,
        variable: &str,
        value: &str,
    ) -> Result<(), kube::Error> {
        let api = Api::<Deployment>::namespaced(self.client.clone(), namespace);
        let deployment = api.get(name).await?;
        let container = deployment
            .spec
            .and_then(|spec| spec.template.spec)
            .and_then(|pod| pod.containers.first().map(|container| container.name.clone()));
        let container = container.unwrap_or_else(|| name.to_owned());
        let patch = json!({ "spec": { "template": { "spec": { "containers": [
            { "name": container, "env": [{ "name": variable, "value": value }] }
        ] } } } });
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Whether a Deployment runs its latest template, and nothing older.
    pub(super) async fn is_rolled_out(&self, namespace: &str, name: &str) -> Result<bool, kube::Error> {
        let deployment = Api::<Deployment>::namespaced(self.client.clone(), namespace).get(name).await?;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let Some(status) = deployment.status else { return Ok(false) };
        Ok(status.observed_generation == deployment.metadata.generation
            && status.updated_replicas == Some(wanted)
            && status.available_replicas == Some(wanted)
            && status.replicas == Some(wanted))
    }
}

/// Ready pods per node.
pub(super) fn ready_per_node(pods: &[ServicePod]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for node in pods.iter().filter(|pod| pod.ready && !pod.terminating).filter_map(|pod| pod.node.clone()) {
        *counts.entry(node).or_default() += 1;
    }
    counts
}
