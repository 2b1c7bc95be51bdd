//! The output of [`ControlPlaneState`](crate::state::ControlPlaneState) besides updates of the
//! store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{ANY_HOST, Host};
use crate::routes::translate::IngressRoutes;
use crate::xds::store::StoreRevision;
use k8s_api::kingress::IngressStatus;

/// The reason of an Ingress whose configuration a gateway refused.
pub(crate) const REFUSED_BY_GATEWAY: &str = "RefusedByGateway";

/// The newest generation of one Ingress and its progress.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressProgress {
    /// `metadata.uid`.
    pub uid: String,
    /// The newest generation seen.
    pub generation: i64,
    /// The status as last seen.
    pub status: IngressStatus,
    /// The progress of the generation.
    pub progress: RolloutProgress,
}

impl IngressProgress {
    /// Whether a gateway that is connected to this replica refused the generation.
    #[must_use]
    pub fn is_refused_by_gateway(&self) -> bool {
        matches!(self.progress, RolloutProgress::Refused { reason: REFUSED_BY_GATEWAY, .. })
    }

    /// Whether the status says that a gateway refused the generation, whichever replica wrote that.
    #[must_use]
    pub fn says_refused_by_gateway(&self) -> bool {
        let of_generation = self.status.observed_generation == Some(self.generation);
        of_generation && self.status.conditions.iter().any(|one| one.type_ == "Ready" && one.reason == REFUSED_BY_GATEWAY)
    }
}

/// The progress of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutProgress {
    /// Published to the gateways.
    Served {
        /// Since this revision of the store.
        since: StoreRevision,
        /// The hash with which a gateway answers a probe of this version.
        hash: String,
        /// The probes to send.
        probes: Vec<ProbeTarget>,
    },
    /// Objects are missing. The previous generation, if there is one, is served until they exist.
    Waiting {
        /// The missing objects.
        missing: Vec<String>,
    },
    /// Refused.
    Refused {
        /// The reason, for programs.
        reason: &'static str,
        /// The message, for people.
        message: String,
    },
}

/// A request that proves the routes of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Whether it is sent to the external listener; otherwise to the internal one.
    pub external: bool,
    /// The host of the request.
    pub host: Host,
}

/// A ready gateway pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayPod {
    /// The node it is on.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
}

/// What others have to know after changes.
#[derive(Debug, Default)]
pub struct ProgressReport {
    /// Ingresses whose progress changed; `None` for deleted ones.
    pub progress_changes: Vec<(ObjectName, Option<IngressProgress>)>,
    /// Warnings: the Ingress, a reason for programs, and a note for people.
    pub warnings: Vec<(ObjectName, &'static str, String)>,
    /// The gateways, if they changed.
    pub gateways: Option<Vec<GatewayPod>>,
    /// The other replicas by pod name, if an endpoint of our own Service changed.
    pub replicas: Option<BTreeMap<String, IpAddr>>,
}

/// One request per listener is enough: all routes of a listener are one resource.
pub(crate) fn probe_targets(routes: &IngressRoutes) -> Vec<ProbeTarget> {
    let target = |external, host: &Host| {
        let host = if host == ANY_HOST { "any.invalid".to_owned() } else { host.clone() };
        ProbeTarget { external, host }
    };
    let external = routes.external.keys().next().map(|host| target(true, host));
    let internal = routes.local.keys().chain(routes.external.keys()).next().map(|host| target(false, host));
    external.into_iter().chain(internal).collect()
}
