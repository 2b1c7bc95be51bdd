//! Reading YAML documents and applying them to the cluster.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::{TryStreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Client, ResourceExt};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;

/// The name under which the lab owns the fields it sets.
const FIELD_MANAGER: &str = "netem-lab";
/// Enough to hide the round trips, few enough for a small machine.
const AT_ONCE: usize = 8;

/// Why documents could not be read or applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// A file or folder could not be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not YAML.
    #[error("failed to parse {path}: {message}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A document is not a Kubernetes object.
    #[error("failed to use a document that is no Kubernetes object: {0}")]
    NoObject(String),
    /// The cluster does not know the kind.
    #[error("failed to find kind {kind} of {api_version} in the cluster: {source}")]
    UnknownKind {
        /// The document's apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The cluster refused the object.
    #[error("failed to apply {kind} {name}: {source}")]
    Refused {
        /// Its kind.
        kind: String,
        /// Its namespace and name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// Reads the documents of a file, or of all YAML files of a folder in the order of their names.
///
/// # Errors
/// When there is no such file, or it is not YAML.
pub(super) fn read_documents(path: &Path) -> Result<Vec<Value>, ApplyError> {
    let read_error = |path: &Path| {
        let path = path.to_owned();
        move |source| ApplyError::Read { path, source }
    };
    if !path.is_dir() {
        let text = fs::read_to_string(path).map_err(read_error(path))?;
        return parse_documents(&text).map_err(|message| ApplyError::Parse { path: path.to_owned(), message });
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read_error(path))? {
        let file = entry.map_err(read_error(path))?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            files.push(file);
        }
    }
    files.sort();
    let documents: Result<Vec<_>, _> = files.iter().map(|file| read_documents(file)).collect();
    Ok(documents?.into_iter().flatten().collect())
}

/// The documents of a YAML text. Empty ones (comments between two dividers) are left out.
///
/// # Errors
/// When the text is not YAML; the message says where.
pub(super) fn parse_documents(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies documents to one cluster.
pub(super) struct Applier {
    client: Client,
    kinds: Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>,
}

impl Applier {
    /// An applier for the cluster that the client talks to.
    #[must_use]
    pub(super) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::new(HashMap::new()) }
    }

    /// Applies all documents, several at a time, in no order that could be relied on.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn apply(&self, documents: &[Value]) -> Result<(), ApplyError> {
        stream::iter(documents.iter().map(Ok)).try_for_each_concurrent(AT_ONCE, |document| self.apply_one(document)).await
    }

    /// Applies documents one after the other.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn apply_in_order(&self, documents: &[Value]) -> Result<(), ApplyError> {
        stream::iter(documents.iter().map(Ok)).try_for_each(|document| self.apply_one(document)).await
    }

    async fn apply_one(&self, document: &Value) -> Result<(), ApplyError> {
        let object: DynamicObject =
            serde_json::from_value(document.clone()).map_err(|error| ApplyError::NoObject(error.to_string()))?;
        let types = object.types.clone().ok_or_else(|| ApplyError::NoObject(object.name_any()))?;
        let kind = GroupVersionKind::try_from(&types).map_err(|error| ApplyError::NoObject(error.to_string()))?;
        let (resource, scope) = self.find_kind(&kind).await?;
        let api: Api<DynamicObject> = match (scope, object.namespace()) {
            (Scope::Namespaced, namespace) => {
                Api::namespaced_with(self.client.clone(), namespace.as_deref().unwrap_or("default"), &resource)
            }
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.name_any();
        let patch = api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(document)).await;
        patch.map(drop).map_err(|source| ApplyError::Refused {
            kind: types.kind,
            name: object.namespace().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")),
            source: Box::new(source),
        })
    }

    async fn find_kind(&self, kind: &GroupVersionKind) -> Result<(ApiResource, Scope), ApplyError> {
        // Held while asking, so that many documents of one kind ask once.
        let mut kinds = self.kinds.lock().await;
        if let Some(found) = kinds.get(kind) {
            return Ok(found.clone());
        }
        let (resource, capabilities) = discovery::pinned_kind(&self.client, kind).await.map_err(|source| {
            ApplyError::UnknownKind { api_version: kind.api_version(), kind: kind.kind.clone(), source: Box::new(source) }
        })?;
        let found = (resource, capabilities.scope);
        kinds.insert(kind.clone(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        let documents = parse_documents("# only a comment\n---\nkind: A\n---\n---\nkind: B\nempty:\n").expect("YAML");
        let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str()).collect();
        assert_eq!(kinds, [Some("A"), Some("B")]);
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (name, text) in [("b.yaml", "kind: B"), ("a.yaml", "kind: A"), ("c.go", "package c")] {
            fs::write(folder.path().join(name), text).expect("file");
        }
        let documents = read_documents(folder.path()).expect("documents");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0]["kind"], "A");
    }

    #[test]
    fn the_labs_own_manifests_are_objects_with_known_images() {
        for text in [super::super::manifests::COREDNS, super::super::manifests::PROMETHEUS] {
            for document in parse_documents(text).expect("YAML") {
                let object: DynamicObject = serde_json::from_value(document).expect("an object");
                assert!(object.types.is_some());
            }
        }
    }
}
