//! The inputs of the index: events of the watch, and ends of our writes.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::observed::PodView;

/// A Seika, as its pods know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The UID of the Seika; two Seikas of one name at different times differ.
    pub(crate) uid: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl Owner {
    /// The Seika that controls an object with these references, if one does.
    #[must_use]
    pub(crate) fn controlling(namespace: &str, references: &[OwnerReference]) -> Option<Self> {
        references
            .iter()
            .find(|reference| reference.controller == Some(true))
            .filter(|reference| reference.kind == "Seika" && reference.api_version.starts_with("batch.bonavadeur.io/"))
            .map(|reference| Self { uid: reference.uid.clone(), namespace: namespace.to_owned(), name: reference.name.clone() })
    }
}

/// A pod that carries our node label and that no Seika controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    /// The pod.
    pub(crate) pod: Arc<PodView>,
    /// Its controller, as kind and name, if it has one.
    pub(crate) controller: Option<String>,
}

/// What the watch said.
#[derive(Clone, Debug)]
pub(crate) enum PodChange {
    /// A new list begins. Writes that ended before it are in it.
    ListBegins,
    /// The list holds this pod.
    Listed(Owner, PodView),
    /// The list is whole: what it does not hold is gone.
    ListEnds,
    /// A pod is there, as it is now.
    Put(Owner, PodView),
    /// A pod is gone.
    Gone(Owner, PodView),
    /// The list holds this stray pod, in this namespace.
    ListedStray(String, Stray),
    /// A stray pod is there, as it is now.
    Strayed(String, Stray),
    /// A stray pod is gone.
    StrayGone(String, PodView),
}

/// How a create ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CreateEnd {
    /// The pod is there, with this UID.
    Exists(String),
    /// A pod that does not serve this Seika, or no longer, has the name.
    NameHeld,
    /// The API server refused this request. What an earlier one of the same name has done, if there
    /// was one, is as open as before.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteEnd {
    /// The pod is going or gone.
    Going,
    /// The API server refused: the pod stays.
    Refused,
    /// Nobody knows.
    Unknown,
}
