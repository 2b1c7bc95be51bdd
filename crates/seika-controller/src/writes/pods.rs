//! Creating, deleting, adopting and releasing pods.

use futures::StreamExt as _;
use futures::future;
use futures::stream::{self, FuturesUnordered};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{WriteError, is_conflict, is_no_longer_so, is_refusal, no_answer};
use super::{ANSWER_WITHIN, FIELD_MANAGER, Writer, answered};
use crate::crd::Seika;
use crate::index::{CreateEnd, DeleteEnd, Owner};
use crate::metrics::Outcome;
use crate::observed::PodView;
use crate::plan::{Create, Delete};

/// What became of a plan's creates.
#[derive(Debug, Default)]
pub(crate) struct Created {
    pub(crate) pods: Vec<Create>,
    /// Names that somebody else holds.
    pub(crate) taken: Vec<String>,
    pub(crate) error: Option<WriteError>,
}

/// What became of a plan's deletes.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) pods: Vec<Delete>,
    pub(crate) error: Option<WriteError>,
}

/// Asks for the pod's metadata only: the rest of it we have just sent.
const METADATA_ONLY: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// What is read of the answer to a create.
#[derive(Deserialize)]
struct Made {
    metadata: MadeMetadata,
}

#[derive(Deserialize)]
struct MadeMetadata {
    uid: String,
}

enum CreateAnswer {
    Made,
    Taken,
    Failed(WriteError),
}

impl Writer {
    /// Creates one, then two at once, then four and so on, up to the concurrency, and begins no more after the first that fails: where a quota
    /// or a policy refuses, that takes few requests to learn. The window grows by one with each success, which doubles it per round trip
    /// and never waits for the slowest of a batch. Begins no more either once `still_wanted` says no: a count that was lowered meanwhile
    /// is not filled up first.
    pub(crate) async fn create_all(
        &self,
        owner: &Owner,
        revision: &str,
        creates: Vec<Create>,
        manifest: impl Fn(&Create) -> Value + Sync,
        still_wanted: impl Fn() -> bool,
    ) -> Created {
        let mut created = Created::default();
        let mut waiting = creates.into_iter().peekable();
        let mut under_way = FuturesUnordered::new();
        let mut window = 1;
        loop {
            let may_begin = created.error.is_none() && under_way.len() < window && waiting.peek().is_some() && still_wanted();
            let (create, answer) = tokio::select! {
                biased;
                Some(ended) = under_way.next() => ended,
                turn = self.pace.turn(), if may_begin => {
                    // The turn may have been long in coming.
                    if !still_wanted() {
                        continue;
                    }
                    under_way.extend(waiting.next().map(async |create| {
                        let _turn = turn;
                        let answer = self.create(owner, revision, &create, manifest(&create)).await;
                        (create, answer)
                    }));
                    continue;
                }
                else => break,
            };
            match answer {
                CreateAnswer::Made => {
                    created.pods.push(create);
                    window = (window + 1).min(self.at_once);
                }
                CreateAnswer::Taken => created.taken.push(create.name),
                CreateAnswer::Failed(error) => created.error = Some(error),
            }
        }
        created
    }

    async fn create(&self, owner: &Owner, revision: &str, create: &Create, manifest: Value) -> CreateAnswer {
        let Create { node, name } = create;
        self.index.lock().create_begins(owner, name, node, revision);
        let (end, answer) = match tokio::time::timeout(ANSWER_WITHIN, self.post(&owner.namespace, &manifest)).await {
            Ok(Ok(uid)) => (CreateEnd::Exists(uid), CreateAnswer::Made),
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => self.who_holds(owner, name).await,
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { CreateEnd::Refused } else { CreateEnd::Unknown };
                (end, CreateAnswer::Failed(self.create_error(owner, name, error)))
            }
            Err(_elapsed) => (CreateEnd::Unknown, CreateAnswer::Failed(no_answer(owner, name))),
        };
        self.metrics.created(match end {
            CreateEnd::Exists(_) => Outcome::Done,
            CreateEnd::Refused | CreateEnd::NameHeld => Outcome::Refused,
            CreateEnd::Unknown => Outcome::Unknown,
        });
        self.index.lock().create_ends(owner, name, &end);
        answer
    }

    async fn post(&self, namespace: &str, manifest: &Value) -> Result<String, kube::Error> {
        let body = serde_json::to_vec(manifest).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let mut request =
            Request::new(Pod::url_path(&(), Some(namespace))).create(&parameters, body).map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, METADATA_ONLY);
        let pod: Made = self.client.request(request).await?;
        Ok(pod.metadata.uid)
    }

    /// A pod of that name is there already. If it is this Seika's and stays, it is the very pod that was wanted, and the watch has yet to say
    /// so; else another name is needed.
    async fn who_holds(&self, owner: &Owner, name: &str) -> (CreateEnd, CreateAnswer) {
        self.metrics.names_taken.inc();
        match self.holder(owner, name).await {
            Ok(Some(CreateEnd::Exists(uid))) => (CreateEnd::Exists(uid), CreateAnswer::Made),
            Ok(Some(held)) => (held, CreateAnswer::Taken),
            // It has just gone: the next pass asks again.
            Ok(None) => (CreateEnd::Refused, CreateAnswer::Failed(no_answer(owner, name))),
            Err(error) => (CreateEnd::Unknown, CreateAnswer::Failed(error)),
        }
    }

    async fn holder(&self, owner: &Owner, name: &str) -> Result<Option<CreateEnd>, WriteError> {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &owner.namespace);
        let found = answered(pods.get_opt(name)).await.map_err(|error| self.create_error(owner, name, error))?;
        Ok(found.map(|pod| {
            let references = pod.metadata.owner_references.as_deref().unwrap_or_default();
            let ours = Owner::controlling(&owner.namespace, references).is_some_and(|holder| holder.uid == owner.uid);
            if ours && pod.metadata.deletion_timestamp.is_none() {
                CreateEnd::Exists(pod.metadata.uid.unwrap_or_default())
            } else {
                CreateEnd::NameHeld
            }
        }))
    }

    /// A create of this name may or may not have been done. Finds out whether it has; if it has not, it still may be.
    pub(crate) async fn settle_create(&self, owner: &Owner, name: &str) -> Result<(), WriteError> {
        match self.holder(owner, name).await? {
            Some(end) => self.index.lock().create_ends(owner, name, &end),
            None => self.index.lock().no_such_pod(owner, name),
        }
        Ok(())
    }

    /// Whether the API server itself, and not only the watch, says that the Seika is there and stays: who is being deleted must not take in
    /// what was just given free.
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

    /// Makes an orphan this Seika's. It is not for us to insist: it may have gone, or become somebody else's, meanwhile.
    pub(crate) async fn adopt(&self, owner: &Owner, reference: &OwnerReference, orphan: &PodView) -> Result<bool, WriteError> {
        let patch = json!({ "metadata": { "uid": orphan.uid, "ownerReferences": [reference] } });
        let _turn = self.pace.turn().await;
        self.index.lock().adoption_begins(owner, orphan);
        let (end, answer) = match tokio::time::timeout(ANSWER_WITHIN, self.patch_pod(owner, &orphan.name, &patch)).await {
            Ok(Ok(())) => (CreateEnd::Exists(orphan.uid.clone()), Ok(true)),
            Ok(Err(error)) if is_no_longer_so(&error) => (CreateEnd::NameHeld, Ok(false)),
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { CreateEnd::NameHeld } else { CreateEnd::Unknown };
                (end, Err(self.adopt_error(owner, &orphan.name, error)))
            }
            Err(_elapsed) => (CreateEnd::Unknown, Err(no_answer(owner, &orphan.name))),
        };
        self.index.lock().create_ends(owner, &orphan.name, &end);
        answer
    }

    /// Lets a pod go that the selector no longer matches. It counts until the watch says that it went.
    pub(crate) async fn release(&self, owner: &Owner, pod: &PodView) -> Result<bool, WriteError> {
        let reference = json!({ "$patch": "delete", "uid": owner.uid });
        let patch = json!({ "metadata": { "uid": pod.uid, "ownerReferences": [reference] } });
        let _turn = self.pace.turn().await;
        match tokio::time::timeout(ANSWER_WITHIN, self.patch_pod(owner, &pod.name, &patch)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if is_no_longer_so(&error) => Ok(false),
            Ok(Err(error)) => Err(self.adopt_error(owner, &pod.name, error)),
            Err(_elapsed) => Err(no_answer(owner, &pod.name)),
        }
    }

    async fn patch_pod(&self, owner: &Owner, name: &str, patch: &Value) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &owner.namespace);
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        pods.patch_metadata(name, &parameters, &Patch::Strategic(patch)).await.map(drop)
    }

    fn adopt_error(&self, owner: &Owner, name: &str, source: kube::Error) -> WriteError {
        WriteError::Adopt { namespace: owner.namespace.clone(), name: name.to_owned(), source: Box::new(source) }
    }

    fn create_error(&self, owner: &Owner, name: &str, source: kube::Error) -> WriteError {
        WriteError::Create { namespace: owner.namespace.clone(), name: name.to_owned(), source: Box::new(source) }
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
        // Without a kubelet nobody ends the pod's processes, so that there is none must be certain and not a matter of a lagging watch.
        if delete.cause == crate::plan::Cause::NodeGone {
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
            // Most likely another pod has the name by now, and this one is gone. But a conflict can have other causes, and to take a pod for
            // gone that is not is to keep it for ever: the next pass looks.
            Ok(Err(error @ kube::Error::Api(_))) if is_conflict(&error) => (DeleteEnd::Unknown, Err(failed(error))),
            Ok(Err(error)) => {
                let end = if is_refusal(&error) { DeleteEnd::Refused } else { DeleteEnd::Unknown };
                (end, Err(failed(error)))
            }
            Err(_elapsed) => (DeleteEnd::Unknown, Err(no_answer(owner, &delete.name))),
        };
        self.metrics.deleted(match end {
            DeleteEnd::Going => Outcome::Done,
            DeleteEnd::Refused => Outcome::Refused,
            DeleteEnd::Unknown => Outcome::Unknown,
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
