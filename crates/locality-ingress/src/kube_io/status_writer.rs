//! Writes of Ingresses: statuses, and the removal of a foreign finalizer.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::watches::Held;
use crate::kingress::{IngressStatus, KIngress};
use crate::objects::ObjectName;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The status was not taken.
    #[error("failed to write the status of Ingress {name}")]
    Status {
        /// The Ingress.
        name: ObjectName,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The finalizer stays.
    #[error("failed to remove the finalizer of Ingress {name}")]
    Finalizer {
        /// The Ingress.
        name: ObjectName,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// See the module.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
}

impl StatusWriter {
    /// Writes with `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Replaces the status of `name`. An Ingress that is gone has none, which is as good.
    ///
    /// # Errors
    /// [`WriteError::Status`].
    pub async fn write(&self, name: &ObjectName, status: &IngressStatus) -> Result<(), WriteError> {
        // Nobody else writes this status, and what it says carries its generation, so no version is needed against lost updates.
        let patch = json!({ "status": status });
        let written = self.api(name).patch_status(&name.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(source) => Err(WriteError::Status { name: name.clone(), source: Box::new(source) }),
        }
    }

    /// Lets an Ingress go that only another implementation's finalizer holds.
    ///
    /// # Errors
    /// [`WriteError::Finalizer`].
    pub async fn release(&self, held: &Held) -> Result<(), WriteError> {
        let patch = json!({ "metadata": { "finalizers": held.remaining, "resourceVersion": held.resource_version } });
        match self.api(&held.name).patch(&held.name.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(source) => Err(WriteError::Finalizer { name: held.name.clone(), source: Box::new(source) }),
        }
    }

    fn api(&self, name: &ObjectName) -> Api<KIngress> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }
}
