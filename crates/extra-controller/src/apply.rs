//! Writes what was decided. Every write is idempotent: a patch of named fields, or an apply under
//! this program's field manager. No write waits for the API server without bound.

mod job;

pub(crate) use job::{Job, JobResult};

use std::collections::BTreeMap;
use std::time::Duration;

use autoscaler::handback::{MARKER, Where};
use autoscaler::rollout::Counts;
use k8s_api::seika::{PodTemplate, Seika};
use k8s_api::{
    CLASS, CLASS_ANNOTATION, METRIC_ANNOTATION, PodAutoscaler, PodAutoscalerStatus, REVISION_UID_LABEL, STOCK_CLASS,
    ServerlessService, ServerlessServiceSpec, ServingMode,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

/// The name that this program's fields are held under.
pub(crate) const FIELD_MANAGER: &str = "extra-controller";
/// Label of the pods of a revision's Seika, beside the revision's own labels: the Deployment's pods
/// lack it.
pub(crate) const SEIKA_LABEL: &str = "bonavadeur.io/seika";
/// Annotation of a Seika: the decision behind its counts, as a message.
pub(crate) const DECISION_ANNOTATION: &str = "placement.kantai.dev/decision";
/// Left on PodAutoscalers by earlier releases that were handing back.
pub(crate) const TOTAL_ANNOTATION: &str = "bonavadeur.io/handing-back-pods";
/// What the ReplicaSet controller asks for when it chooses which pod to delete.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {kind} {namespace}/{name}")]
pub(crate) struct WriteError {
    /// What was tried.
    pub(crate) action: &'static str,
    /// On what kind of object.
    pub(crate) kind: &'static str,
    /// In which namespace.
    pub(crate) namespace: String,
    /// On which.
    pub(crate) name: String,
    /// What the API server said.
    #[source]
    pub(crate) source: Box<kube::Error>,
}

/// Writes what belongs to one PodAutoscaler.
#[derive(Clone)]
pub(crate) struct Writer<'a> {
    client: &'a Client,
    autoscaler: &'a PodAutoscaler,
    namespace: String,
    name: String,
}

impl<'a> Writer<'a> {
    /// For what belongs to `autoscaler`.
    #[must_use]
    pub(crate) fn new(client: &'a Client, autoscaler: &'a PodAutoscaler) -> Self {
        Self { client, autoscaler, namespace: autoscaler.namespace().unwrap_or_default(), name: autoscaler.name_any() }
    }

    fn failed(&self, action: &'static str, kind: &'static str, name: &str) -> impl FnOnce(kube::Error) -> WriteError + use<> {
        let (namespace, name) = (self.namespace.clone(), name.to_owned());
        move |source| WriteError { action, kind, namespace, name, source: Box::new(source) }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn owner(&self) -> Option<OwnerReference> {
        self.autoscaler.controller_owner_ref(&()).map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner })
    }

    /// Has a Seika with these counts and the Deployment's pod template. Handed back is the object
    /// as the API server holds it now.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn seika(&self, counts: &Counts, deployment: &Deployment, why: Option<&str>) -> Result<Seika, WriteError> {
        let mut body = seika(self.autoscaler, self.owner(), counts, deployment);
        if let Some(why) = why {
            body["metadata"]["annotations"] = json!({DECISION_ANNOTATION: why});
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = timed(self.api::<Seika>().patch(&self.name, &params, &Patch::Apply(&body))).await;
        patched.map_err(self.failed("apply", "Seika", &self.name))
    }

    /// Removes the Seika, where there is one.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn delete_seika(&self) -> Result<(), WriteError> {
        let deleted = timed(self.api::<Seika>().delete(&self.name, &DeleteParams::default())).await;
        unless_missing(deleted.map(drop)).map_err(self.failed("delete", "Seika", &self.name))
    }

    /// Has a ServerlessService with this mode; `held` is the one there is.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn serverless_service(&self, held: Option<&ServerlessService>, mode: ServingMode) -> Result<(), WriteError> {
        let wanted = ServerlessServiceSpec {
            mode,
            object_ref: self.autoscaler.spec.scale_target_ref.clone(),
            protocol_type: self.autoscaler.spec.protocol_type.clone(),
            num_activators: 0,
        };
        match held {
            Some(held) if held.spec == wanted => Ok(()),
            Some(_) => {
                let patch = Patch::Merge(json!({"spec": wanted}));
                let patched = timed(self.api::<ServerlessService>().patch(&self.name, &PatchParams::default(), &patch)).await;
                patched.map(drop).map_err(self.failed("patch", "ServerlessService", &self.name))
            }
            None => {
                let mut created = ServerlessService::new(&self.name, wanted);
                created.metadata.namespace = Some(self.namespace.clone());
                created.metadata.labels.clone_from(&self.autoscaler.metadata.labels);
                created.metadata.annotations = self.autoscaler.metadata.annotations.clone().map(|mut annotations| {
                    annotations.remove(METRIC_ANNOTATION);
                    annotations
                });
                created.metadata.owner_references = self.owner().map(|owner| vec![owner]);
                match timed(self.api::<ServerlessService>().create(&PostParams::default(), &created)).await {
                    // The store is a moment behind.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                    other => other.map(drop).map_err(self.failed("create", "ServerlessService", &self.name)),
                }
            }
        }
    }

    /// Writes the PodAutoscaler's status. Handed back is the object as the API server holds it now.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn status(&self, status: &PodAutoscalerStatus) -> Result<PodAutoscaler, WriteError> {
        let patch = Patch::Merge(json!({"status": status}));
        let patched = timed(self.api::<PodAutoscaler>().patch_status(&self.name, &PatchParams::default(), &patch)).await;
        patched.map_err(self.failed("write the status of", "PodAutoscaler", &self.name))
    }

    /// Tells the Deployment its replicas, after marking those of its pods that should go first
    /// where some stay.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn deployment(&self, replicas: u32, victims: &[String]) -> Result<(), WriteError> {
        if replicas > 0 {
            for victim in victims {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {DELETION_COST: "-1000"}}}));
                let patched = timed(self.api::<Pod>().patch(victim, &PatchParams::default(), &patch)).await;
                unless_missing(patched.map(drop)).map_err(self.failed("mark", "Pod", victim))?;
            }
        }
        let name = self.autoscaler.spec.scale_target_ref.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let scaled = timed(self.api::<Deployment>().patch_scale(name, &PatchParams::default(), &patch)).await;
        unless_missing(scaled.map(drop)).map_err(self.failed("scale", "Deployment", name))
    }

    /// Writes annotations of the PodAutoscaler; `None` removes one.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn annotate(&self, annotations: &BTreeMap<&str, Option<&str>>) -> Result<(), WriteError> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let patched = timed(self.api::<PodAutoscaler>().patch(&self.name, &PatchParams::default(), &patch)).await;
        patched.map(drop).map_err(self.failed("annotate", "PodAutoscaler", &self.name))
    }

    /// Gives the revision to the stock class.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn hand_back(&self, place: Where) -> Result<(), WriteError> {
        // The stock class refuses the empty metric that Knative gives foreign ones, so both change
        // in one patch.
        let metric = self.autoscaler.annotations().get(METRIC_ANNOTATION).map(String::as_str).filter(|metric| !metric.is_empty());
        let metric = metric.unwrap_or("concurrency");
        if place == Where::Revision {
            self.annotate_revision(json!({CLASS_ANNOTATION: STOCK_CLASS, METRIC_ANNOTATION: metric})).await?;
        }
        self.annotate(&BTreeMap::from([
            (CLASS_ANNOTATION, Some(STOCK_CLASS)),
            (METRIC_ANNOTATION, Some(metric)),
            (MARKER, Some(place.as_str())),
            (TOTAL_ANNOTATION, None),
        ]))
        .await
    }

    /// Takes the revision from the stock class.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn take_over(&self, place: Where) -> Result<(), WriteError> {
        if place == Where::Revision {
            self.annotate_revision(json!({CLASS_ANNOTATION: CLASS})).await?;
        }
        self.annotate(&BTreeMap::from([(CLASS_ANNOTATION, Some(CLASS)), (MARKER, None), (TOTAL_ANNOTATION, None)])).await
    }

    async fn annotate_revision(&self, annotations: Value) -> Result<(), WriteError> {
        use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("serving.knative.dev", "v1", "Revision"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let patched = timed(api.patch(&self.name, &PatchParams::default(), &patch)).await;
        patched.map(drop).map_err(self.failed("annotate", "Revision", &self.name))
    }
}

/// A write that is not answered within this time failed: it is tried again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

async fn timed<T>(write: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let no_answer = || kube::Error::Service(format!("no answer within {} s", WRITE_TIMEOUT.as_secs()).into());
    tokio::time::timeout(WRITE_TIMEOUT, write).await.unwrap_or_else(|_| Err(no_answer()))
}

fn unless_missing(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

/// The pod template that a Seika of this Deployment has: the Deployment's own, whole, and the
/// Seika's label.
#[must_use]
pub(crate) fn pod_template(name: &str, deployment: &Deployment) -> PodTemplate {
    let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut template = PodTemplate::from(template);
    // ReplicaSets select by it, and take pods that carry it for their own.
    template.metadata.labels.remove("pod-template-hash");
    template.metadata.labels.insert(SEIKA_LABEL.to_owned(), name.to_owned());
    template
}

fn seika(autoscaler: &PodAutoscaler, owner: Option<OwnerReference>, counts: &Counts, deployment: &Deployment) -> Value {
    let name = autoscaler.name_any();
    let template = pod_template(&name, deployment);
    let mut selector = BTreeMap::from([(SEIKA_LABEL, name.as_str())]);
    if let Some(uid) = template.metadata.labels.get(REVISION_UID_LABEL) {
        selector.insert(REVISION_UID_LABEL, uid);
    }
    let repurika: BTreeMap<&str, u32> = counts.iter().map(|(node, count)| (node.as_str(), *count)).collect();
    json!({
        "apiVersion": Seika::api_version(&()),
        "kind": Seika::kind(&()),
        "metadata": {
            "name": name,
            "namespace": autoscaler.namespace(),
            "labels": autoscaler.labels(),
            "ownerReferences": owner.map(|owner| vec![owner]).unwrap_or_default(),
        },
        "spec": { "repurika": repurika, "selector": { "matchLabels": selector }, "template": template },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seika_is_the_deployments_template_with_counts_and_no_hash() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "hello-00001-deployment"},
            "spec": {"selector": {}, "template": {
                "metadata": {
                    "labels": {"serving.knative.dev/revisionUID": "u", "app": "hello-00001", "pod-template-hash": "abc"},
                    "annotations": {"a": "b"},
                },
                "spec": {"containers": [{"name": "user-container", "image": "dev.local/hello"}], "enableServiceLinks": false},
            }},
        }))
        .unwrap();
        let autoscaler: PodAutoscaler = serde_json::from_value(json!({
            "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
            "metadata": {"name": "hello-00001", "namespace": "default", "uid": "pa"},
            "spec": {"scaleTargetRef": {"name": "hello-00001-deployment"}, "protocolType": "http1"},
        }))
        .unwrap();
        let owner = autoscaler.controller_owner_ref(&());
        let body = seika(&autoscaler, owner, &Counts::from([("node3".into(), 2)]), &deployment);
        let typed: Seika = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(typed.spec.repurika, BTreeMap::from([("node3".to_owned(), 2)]));
        let selected = typed.spec.selector.match_labels.unwrap();
        assert!(selected.iter().all(|(label, value)| typed.spec.template.metadata.labels.get(label) == Some(value)));
        assert!(!typed.spec.template.metadata.labels.contains_key("pod-template-hash"));
        assert_eq!(body["metadata"]["ownerReferences"][0]["kind"], "PodAutoscaler");
        assert_eq!(body["spec"]["template"]["spec"]["enableServiceLinks"], false);
    }
}
