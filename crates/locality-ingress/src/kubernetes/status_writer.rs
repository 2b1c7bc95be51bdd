//! Writes of Ingresses: statuses, and the removal of a foreign finalizer.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::objects::ObjectName;
use super::watches::ForeignFinalizer;
use k8s_api::kingress::{IngressStatus, KIngress};

/// How long the API server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused the status.
    #[error("failed to write the status of Ingress {name}")]
    Status {
        /// The Ingress.
        name: ObjectName,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("failed to write Ingress {name}: no answer within {ANSWER_WITHIN:?}")]
    NoAnswer {
        /// The Ingress.
        name: ObjectName,
    },
    /// The API server refused to remove the finalizer.
    #[error("failed to remove the finalizer of Ingress {name}")]
    Finalizer {
        /// The Ingress.
        name: ObjectName,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// Writer of statuses and finalizers.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    client: Client,
}

impl StatusWriter {
    /// Writes with `client`.
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Replaces the status of `name`. A deleted Ingress is no error.
    ///
    /// # Errors
    /// [`WriteError::Status`].
    pub(crate) async fn write(&self, name: &ObjectName, status: &IngressStatus) -> Result<(), WriteError> {
        // There is one writer of this status, and the status carries its generation, so no resource
        // version is needed against lost updates.
        let patch = json!({ "status": status });
        let (api, params, patch) = (self.api(name), PatchParams::default(), Patch::Merge(&patch));
        let written = tokio::time::timeout(ANSWER_WITHIN, api.patch_status(&name.name, &params, &patch));
        match written.await.map_err(|_| WriteError::NoAnswer { name: name.clone() })? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(source) => Err(WriteError::Status { name: name.clone(), source: Box::new(source) }),
        }
    }

    /// Removes another implementation's finalizer, the only one left, from a terminating Ingress.
    ///
    /// # Errors
    /// [`WriteError::Finalizer`].
    pub(crate) async fn release(&self, held: &ForeignFinalizer) -> Result<(), WriteError> {
        let patch = json!({ "metadata": { "finalizers": held.remaining, "resourceVersion": held.resource_version } });
        let (api, params, patch) = (self.api(&held.name), PatchParams::default(), Patch::Merge(&patch));
        let written = tokio::time::timeout(ANSWER_WITHIN, api.patch(&held.name.name, &params, &patch));
        match written.await.map_err(|_| WriteError::NoAnswer { name: held.name.clone() })? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(source) => Err(WriteError::Finalizer { name: held.name.clone(), source: Box::new(source) }),
        }
    }

    fn api(&self, name: &ObjectName) -> Api<KIngress> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }
}
