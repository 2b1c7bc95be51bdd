//! The writes to the API server, each entered in the index before it is sent.

mod error;
mod pods;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{PartialObjectMeta, Request, Selector};
use kube::{Client, Resource as _};
use serde_json::json;

pub(crate) use self::error::WriteError;
use crate::history::{self, HistoryChange, TemplateRecord};
use crate::index::{Owner, PodIndex};
use crate::metrics::Metrics;
use crate::pace::WritePace;
use k8s_api::seika::{PodTemplate, REVISION_LABEL, Seika, SeikaStatus, UID_LABEL};

/// The field manager of the status, and the user agent of all else.
pub(crate) const FIELD_MANAGER: &str = "seika-controller";
/// The field manager of `spec.replicas`: of that field and no other, so that who manages the rest
/// of the spec is not asked to give way.
const TOTAL_MANAGER: &str = "seika-controller-total";
/// After this an answer is not waited for any more, and the outcome counts as unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The index, shared between the watch and the writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedIndex(Arc<Mutex<PodIndex>>);

impl SharedIndex {
    pub(crate) fn lock(&self) -> MutexGuard<'_, PodIndex> {
        // No method of the index panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For whom pods are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) owner: &'a Owner,
    /// What its pods are to match.
    pub(crate) selector: &'a Selector,
}

/// Writes for all Seikas.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) index: SharedIndex,
    pub(crate) metrics: Metrics,
    /// How many writes of one Seika may be on their way at once.
    pub(crate) at_once: usize,
    /// How many writes there may be at once and how fast they may follow each other, those of all
    /// Seikas together.
    pub(crate) pace: WritePace,
}

impl Writer {
    /// Keeps the present template as the latest, and forgets what is too much; `used` are the
    /// revisions that pods have.
    pub(crate) async fn record_template(
        &self,
        owner: &Owner,
        reference: &OwnerReference,
        revision: &str,
        template: &PodTemplate,
        used: &HashSet<&str>,
        limit: usize,
    ) -> Result<(), WriteError> {
        let failed = |source: kube::Error| WriteError::History {
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            source: Box::new(source),
        };
        let kept: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &owner.namespace);
        let ours = ListParams::default().labels(&format!("{UID_LABEL}={}", owner.uid));
        let records: Vec<TemplateRecord> =
            answered(kept.list(&ours)).await.map_err(failed)?.items.into_iter().map(record).collect();
        let HistoryChange { add, promote, forget } = history::change(&records, revision, used, limit);
        if let Some(number) = add {
            let manifest = history::controller_revision(&owner.name, revision, number, template, reference);
            let body = serde_json::to_vec(&manifest).map_err(kube::Error::SerdeError).map_err(failed)?;
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            let path = ControllerRevision::url_path(&(), Some(&owner.namespace));
            let request = Request::new(path).create(&parameters, body).map_err(kube::Error::BuildRequest).map_err(failed)?;
            let _turn = self.pace.turn().await;
            match answered(self.client.request::<PartialObjectMeta<ControllerRevision>>(request)).await {
                // An earlier request whose answer was lost.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                other => drop(other.map_err(failed)?),
            }
        }
        if let Some((name, number)) = promote {
            let _turn = self.pace.turn().await;
            let patch = Patch::Merge(json!({ "revision": number }));
            answered(kept.patch_metadata(&name, &PatchParams::default(), &patch)).await.map_err(failed)?;
        }
        for name in forget {
            let _turn = self.pace.turn().await;
            match answered(kept.delete(&name, &DeleteParams::default())).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => drop(other.map_err(failed)?),
            }
        }
        Ok(())
    }

    /// Applies the sum of the counts, and nothing else of the spec.
    pub(crate) async fn write_total(&self, owner: &Owner, total: i32) -> Result<(), WriteError> {
        let seikas: Api<Seika> = Api::namespaced(self.client.clone(), &owner.namespace);
        let patch = json!({
            "apiVersion": Seika::api_version(&()),
            "kind": Seika::kind(&()),
            "metadata": { "name": owner.name, "uid": owner.uid },
            "spec": { "replicas": total },
        });
        let parameters = PatchParams::apply(TOTAL_MANAGER).force();
        let _turn = self.pace.turn().await;
        match answered(seikas.patch_metadata(&owner.name, &parameters, &Patch::Apply(&patch))).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
            Err(source) => {
                Err(WriteError::Total { namespace: owner.namespace.clone(), name: owner.name.clone(), source: Box::new(source) })
            }
        }
    }

    /// Applies the status, all of it ours.
    pub(crate) async fn write_status(&self, owner: &Owner, status: &SeikaStatus) -> Result<(), WriteError> {
        let seikas: Api<Seika> = Api::namespaced(self.client.clone(), &owner.namespace);
        let patch = json!({
            "apiVersion": Seika::api_version(&()),
            "kind": Seika::kind(&()),
            // A Seika of the same name that came after this one must not get this one's status.
            "metadata": { "name": owner.name, "uid": owner.uid },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let _turn = self.pace.turn().await;
        self.metrics.status_writes.inc();
        match answered(seikas.patch_status(&owner.name, &parameters, &Patch::Apply(&patch))).await {
            Ok(_) => Ok(()),
            // It is deleted, so that its status does not matter.
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
            Err(source) => {
                Err(WriteError::Status { namespace: owner.namespace.clone(), name: owner.name.clone(), source: Box::new(source) })
            }
        }
    }
}

/// What was answered in time. No answer must keep a Seika from its next pass.
async fn answered<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

fn record(kept: ControllerRevision) -> TemplateRecord {
    let revision = kept.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).cloned();
    TemplateRecord { name: kept.metadata.name.unwrap_or_default(), revision: revision.unwrap_or_default(), number: kept.revision }
}
