//! Creating, deleting, adopting and releasing pods.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures::StreamExt as _;
use futures::future;
use futures::stream::{self, FuturesUnordered};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::SelectorExt as _;
use kube::core::{PartialObjectMeta, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{WriteError, is_conflict, is_no_longer_so, is_refusal, no_answer};
use super::{ANSWER_WITHIN, Claimant, FIELD_MANAGER, Writer, answered};
use crate::index::{CreateEnd, DeleteEnd, Owner};
use crate::metrics::WriteOutcome;
use crate::observed::PodView;
use crate::plan::{Create, Delete};
use k8s_api::seika::Seika;

/// What became of a plan's creates.
#[derive(Debug, Default)]
pub(crate) struct Created {
    pub(crate) pods: Vec<Create>,
    /// Names that foreign pods have.
    pub(crate) taken: Vec<String>,
    /// Of `pods`, those that came out with labels that the selector does not match.
    pub(crate) unlike: Vec<Unlike>,
    /// Nodes for which the API server refused a pod.
    pub(crate) refused_nodes: HashSet<String>,
    /// The first that came.
    pub(crate) error: Option<WriteError>,
}

/// A pod that was asked for with labels that the selector matches, and has others.
#[derive(Debug)]
pub(crate) struct Unlike {
    pub(crate) uid: String,
    pub(crate) name: String,
}

/// What became of a plan's deletes.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) pods: Vec<Delete>,
    pub(crate) error: Option<WriteError>,
}

/// After refusals for this many nodes no more pods are created: the cause is not the nodes then.
const REFUSED_NODES_MAX: usize = 3;

/// Requests the pod's metadata only: the rest of it we have just sent.
const METADATA_ONLY: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

enum CreateAnswer {
    Made(Option<Unlike>),
    Taken,
    Failed(WriteError),
}

impl Writer {
    /// Creates one, then two at once, then four and so on, up to the concurrency. The window grows
    /// by one with each success, which doubles it per round trip and never waits for the slowest of
    /// a batch.
    ///
    /// After a refusal no more is asked for that node, and after refusals for a few nodes nothing
    /// more at all: where a quota or a policy refuses, that takes few requests to learn. Begins no
    /// more either after the first failure of another kind, or once `still_wanted` says no: a count
    /// that was lowered meanwhile is not filled up first.
    pub(crate) async fn create_all(
        &self,
        claimant: &Claimant<'_>,
        revision: &str,
        creates: Vec<Create>,
        manifest: impl Fn(&Create) -> Value + Sync,
        still_wanted: impl Fn() -> bool,
    ) -> Created {
        let mut created = Created::default();
        let mut waiting: VecDeque<Create> = creates.into();
        let mut under_way = FuturesUnordered::new();
        let (mut window, mut failed) = (1, false);
        loop {
            let goes_on = !failed && created.refused_nodes.len() < REFUSED_NODES_MAX;
            let may_begin = goes_on && under_way.len() < window && !waiting.is_empty() && still_wanted();
            let (create, answer) = tokio::select! {
                biased;
                Some(ended) = under_way.next() => ended,
                turn = self.pace.turn(), if may_begin => {
                    // The turn may have been long in coming.
                    if !still_wanted() {
                        continue;
                    }
                    under_way.extend(waiting.pop_front().map(async |create| {
                        let _turn = turn;
                        let answer = self.create(claimant, revision, &create, manifest(&create)).await;
                        (create, answer)
                    }));
                    continue;
                }
                else => break,
            };
            match answer {
                CreateAnswer::Made(unlike) => {
                    created.pods.push(create);
                    created.unlike.extend(unlike);
                    window = (window + 1).min(self.at_once);
                }
                CreateAnswer::Taken => created.taken.push(create.name),
                CreateAnswer::Failed(error) => {
                    if error.is_refusal() {
                        waiting.retain(|other| other.node != create.node);
                        created.refused_nodes.insert(create.node);
                    } else {
                        failed = true;
                    }
                    created.error.get_or_insert(error);
                }
            }
        }
        created
    }

    async fn create(&self, claimant: &Claimant<'_>, revision: &str, create: &Create, manifest: Value) -> CreateAnswer {
        let (Create { node, name }, owner) = (create, claimant.owner);
        self.index.lock().create_begins(owner, name, node, revision);
        let (end, answer) = match tokio::time::timeout(ANSWER_WITHIN, self.post(&owner.namespace, &manifest)).await {
            Ok(Ok(made)) => made_for(claimant, made),
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => self.who_holds(claimant, name).await,
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { CreateEnd::Refused } else { CreateEnd::Unknown };
                (end, CreateAnswer::Failed(create_error(owner, name, error)))
            }
            Err(_elapsed) => (CreateEnd::Unknown, CreateAnswer::Failed(no_answer(owner, name))),
        };
        self.metrics.created(match end {
            CreateEnd::Exists(_) => WriteOutcome::Done,
            CreateEnd::Refused | CreateEnd::NameHeld => WriteOutcome::Refused,
            CreateEnd::Unknown => WriteOutcome::Unknown,
        });
        self.index.lock().create_ends(owner, name, &end);
        answer
    }

    async fn post(&self, namespace: &str, manifest: &Value) -> Result<Made, kube::Error> {
        let body = serde_json::to_vec(manifest).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let mut request =
            Request::new(Pod::url_path(&(), Some(namespace))).create(&parameters, body).map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, METADATA_ONLY);
        self.client.request(request).await
    }

    /// A pod of that name is there already. If it is this Seika's and stays, it is the very pod
    /// that was wanted, and the watch has yet to say so; else another name is needed.
    async fn who_holds(&self, claimant: &Claimant<'_>, name: &str) -> (CreateEnd, CreateAnswer) {
        self.metrics.names_taken.inc();
        let owner = claimant.owner;
        match self.holder(owner, name).await {
            Ok(Some(Holder::Ours(made))) => made_for(claimant, made),
            Ok(Some(Holder::Other)) => (CreateEnd::NameHeld, CreateAnswer::Taken),
            // It has just gone: the next pass asks again.
            Ok(None) => (CreateEnd::Refused, CreateAnswer::Failed(no_answer(owner, name))),
            Err(error) => (CreateEnd::Unknown, CreateAnswer::Failed(error)),
        }
    }

    async fn holder(&self, owner: &Owner, name: &str) -> Result<Option<Holder>, WriteError> {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &owner.namespace);
        let found = answered(pods.get_opt(name)).await.map_err(|error| create_error(owner, name, error))?;
        Ok(found.map(|PartialObjectMeta { metadata, .. }| {
            let references = metadata.owner_references.as_deref().unwrap_or_default();
            let ours = Owner::controlling(&owner.namespace, references).is_some_and(|holder| holder.uid == owner.uid);
            if !ours || metadata.deletion_timestamp.is_some() {
                return Holder::Other;
            }
            Holder::Ours(Made {
                metadata: MadeMetadata {
                    name: metadata.name.unwrap_or_default(),
                    uid: metadata.uid.unwrap_or_default(),
                    labels: metadata.labels.unwrap_or_default(),
                },
            })
        }))
    }

    /// A create of this name may or may not have been done. Finds out whether it has; if it has
    /// not, it still may be.
    pub(crate) async fn settle_create(&self, claimant: &Claimant<'_>, name: &str) -> Result<Option<Unlike>, WriteError> {
        let owner = claimant.owner;
        let (end, answer) = match self.holder(owner, name).await? {
            Some(Holder::Ours(made)) => made_for(claimant, made),
            Some(Holder::Other) => (CreateEnd::NameHeld, CreateAnswer::Taken),
            None => {
                self.index.lock().no_such_pod(owner, name);
                return Ok(None);
            }
        };
        self.index.lock().create_ends(owner, name, &end);
        Ok(if let CreateAnswer::Made(unlike) = answer { unlike } else { None })
    }

    /// Whether the API server itself, and not only the watch, says that the Seika is there and
    /// stays: who is being deleted must not take in what was just given free.
    pub(crate) async fn may_adopt(&self, owner: &Owner) -> Result<bool, WriteError> {
        let seikas: Api<PartialObjectMeta<Seika>> = Api::namespaced(self.client.clone(), &owner.namespace);
        let found = answered(seikas.get_opt(&owner.name)).await.map_err(|source| WriteError::Adopt {
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            source: Box::new(source),
        })?;
        Ok(found.is_some_and(|seika| {
            seika.metadata.uid.as_deref() == Some(&owner.uid) && seika.metadata.deletion_timestamp.is_none()
        }))
    }

    /// Adopts an orphan. It is not retried here: the pod may have been deleted or adopted by
    /// another owner meanwhile.
    pub(crate) async fn adopt(&self, owner: &Owner, reference: &OwnerReference, orphan: &PodView) -> Result<bool, WriteError> {
        let patch = json!({ "metadata": { "uid": orphan.uid, "ownerReferences": [reference] } });
        let _turn = self.pace.turn().await;
        self.index.lock().adoption_begins(owner, orphan);
        let (end, answer) = match tokio::time::timeout(ANSWER_WITHIN, self.patch_pod(owner, &orphan.name, &patch)).await {
            Ok(Ok(())) => (CreateEnd::Exists(orphan.uid.clone()), Ok(true)),
            Ok(Err(error)) if is_no_longer_so(&error) => (CreateEnd::NameHeld, Ok(false)),
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { CreateEnd::NameHeld } else { CreateEnd::Unknown };
                (end, Err(adopt_error(owner, &orphan.name, error)))
            }
            Err(_elapsed) => (CreateEnd::Unknown, Err(no_answer(owner, &orphan.name))),
        };
        self.index.lock().create_ends(owner, &orphan.name, &end);
        answer
    }

    /// Lets a pod go that the selector no longer matches. It counts until the watch says that it
    /// went.
    pub(crate) async fn release(&self, owner: &Owner, pod: &PodView) -> Result<bool, WriteError> {
        let reference = json!({ "$patch": "delete", "uid": owner.uid });
        let patch = json!({ "metadata": { "uid": pod.uid, "ownerReferences": [reference] } });
        let _turn = self.pace.turn().await;
        match tokio::time::timeout(ANSWER_WITHIN, self.patch_pod(owner, &pod.name, &patch)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if is_no_longer_so(&error) => Ok(false),
            Ok(Err(source)) => {
                Err(WriteError::Release { namespace: owner.namespace.clone(), name: pod.name.clone(), source: Box::new(source) })
            }
            Err(_elapsed) => Err(no_answer(owner, &pod.name)),
        }
    }

    async fn patch_pod(&self, owner: &Owner, name: &str, patch: &Value) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &owner.namespace);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        pods.patch_metadata(name, &parameters, &Patch::Strategic(patch)).await.map(drop)
    }

    /// Deletes all of them, each as that very pod; begins no more once `still_wanted` says no.
    pub(crate) async fn delete_all(&self, owner: &Owner, deletes: Vec<Delete>, still_wanted: impl Fn() -> bool) -> Deleted {
        let answers: Vec<(Delete, Result<bool, WriteError>)> = stream::iter(deletes)
            .take_while(|_| future::ready(still_wanted()))
            .map(async |delete| {
                let _turn = self.pace.turn().await;
                // The turn may have been long in coming.
                let answer = if still_wanted() { self.delete(owner, &delete).await } else { Ok(false) };
                (delete, answer)
            })
            .buffer_unordered(self.at_once)
            .collect()
            .await;
        let mut deleted = Deleted::default();
        for (delete, answer) in answers {
            match answer {
                Ok(true) => deleted.pods.push(delete),
                Ok(false) => {}
                Err(error) => deleted.error = Some(error),
            }
        }
        deleted
    }

    async fn delete(&self, owner: &Owner, delete: &Delete) -> Result<bool, WriteError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &owner.namespace);
        let failed = |source| WriteError::Delete {
            namespace: owner.namespace.clone(),
            name: delete.name.clone(),
            source: Box::new(source),
        };
        // Without a kubelet nobody ends the pod's processes, so that there is none must be certain
        // and not a matter of a lagging watch.
        if delete.cause == crate::plan::DeleteCause::NodeGone {
            let nodes: Api<PartialObjectMeta<Node>> = Api::all(self.client.clone());
            if answered(nodes.get_opt(&delete.node)).await.map_err(failed)?.is_some() {
                return Ok(false);
            }
        }
        let parameters = DeleteParams {
            grace_period_seconds: delete.force.then_some(0),
            preconditions: Some(Preconditions { uid: Some(delete.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        self.index.lock().delete_begins(owner, &delete.uid);
        let (end, answer) = match tokio::time::timeout(ANSWER_WITHIN, pods.delete(&delete.name, &parameters)).await {
            Ok(Ok(_)) => (DeleteEnd::Going, Ok(true)),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => (DeleteEnd::Going, Ok(false)),
            // Most likely another pod has the name by now, and this one is gone. But a conflict can
            // have other causes, and to take a pod for gone that is not is to keep it for ever: the
            // next pass looks.
            Ok(Err(error @ kube::Error::Api(_))) if is_conflict(&error) => (DeleteEnd::Unknown, Err(failed(error))),
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { DeleteEnd::Refused } else { DeleteEnd::Unknown };
                (end, Err(failed(error)))
            }
            Err(_elapsed) => (DeleteEnd::Unknown, Err(no_answer(owner, &delete.name))),
        };
        self.metrics.deleted(match end {
            DeleteEnd::Going => WriteOutcome::Done,
            DeleteEnd::Refused => WriteOutcome::Refused,
            DeleteEnd::Unknown => WriteOutcome::Unknown,
        });
        self.index.lock().delete_ends(owner, &delete.uid, end);
        answer
    }

    /// A delete of this pod may or may not have been heard. Finds out.
    pub(crate) async fn settle_delete(&self, owner: &Owner, name: &str, uid: &str) -> Result<(), WriteError> {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &owner.namespace);
        let found = answered(pods.get_opt(name)).await.map_err(|source| WriteError::Delete {
            namespace: owner.namespace.clone(),
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let stays =
            found.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_none());
        self.index.lock().delete_ends(owner, uid, if stays { DeleteEnd::Refused } else { DeleteEnd::Going });
        Ok(())
    }
}

/// What is read of the answer to a create.
#[derive(Deserialize)]
struct Made {
    metadata: MadeMetadata,
}

#[derive(Deserialize)]
struct MadeMetadata {
    name: String,
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Who has a name that was asked for.
enum Holder {
    /// A pod of this Seika that stays.
    Ours(Made),
    /// Any other pod.
    Other,
}

/// The pod is there. Whether it is as it was asked for is another matter.
fn made_for(claimant: &Claimant<'_>, Made { metadata }: Made) -> (CreateEnd, CreateAnswer) {
    let end = CreateEnd::Exists(metadata.uid.clone());
    let is_unlike = !claimant.selector.matches(&metadata.labels);
    (end, CreateAnswer::Made(is_unlike.then_some(Unlike { uid: metadata.uid, name: metadata.name })))
}

fn adopt_error(owner: &Owner, name: &str, source: kube::Error) -> WriteError {
    WriteError::Adopt { namespace: owner.namespace.clone(), name: name.to_owned(), source: Box::new(source) }
}

fn create_error(owner: &Owner, name: &str, source: kube::Error) -> WriteError {
    WriteError::Create { namespace: owner.namespace.clone(), name: name.to_owned(), source: Box::new(source) }
}
