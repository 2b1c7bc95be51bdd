//! What comes out of the world besides updates of the store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{ANY_HOST, Host};
use crate::routes::translate::IngressRoutes;
use crate::xds::store::StoreRevision;
use k8s_api::kingress::IngressStatus;

/// The reason of an Ingress that a gateway did not take.
pub(crate) const REFUSED_BY_GATEWAY: &str = "RefusedByGateway";

/// Where one Ingress stands.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressProgress {
    /// `metadata.uid`.
    pub uid: String,
    /// The generation this is about, the newest one seen.
    pub generation: i64,
    /// Its status as last seen.
    pub status: IngressStatus,
    /// How far it is.
    pub progress: Progress,
}

impl IngressProgress {
    /// Whether a gateway that is connected to this replica refused it.
    #[must_use]
    pub fn is_refused_by_gateway(&self) -> bool {
        matches!(self.progress, Progress::Refused { reason: REFUSED_BY_GATEWAY, .. })
    }

    /// Whether its status says that a gateway refused this generation, whoever of us wrote that.
    #[must_use]
    pub fn says_refused_by_gateway(&self) -> bool {
        let of_generation = self.status.observed_generation == Some(self.generation);
        of_generation && self.status.conditions.iter().any(|one| one.type_ == "Ready" && one.reason == REFUSED_BY_GATEWAY)
    }
}

/// How far a generation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Told to the gateways.
    Served {
        /// Since this revision of the store.
        since: StoreRevision,
        /// What a probe of it comes back with.
        hash: String,
        /// What to ask the gateways.
        probes: Vec<ProbeTarget>,
    },
    /// These are not there yet. The generation before, where there is one, is served until they
    /// are.
    Waiting {
        /// What is missing.
        missing: Vec<String>,
    },
    /// It cannot be served.
    Refused {
        /// Why, for programs.
        reason: &'static str,
        /// Why, for people.
        message: String,
    },
}

/// A request that proves one listener's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Whether to ask the external listener; the internal one otherwise.
    pub external: bool,
    /// The host to ask for.
    pub host: Host,
}

/// A gateway pod that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayPod {
    /// The node it is on.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
}

/// What everybody else is to know after changes.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Ingresses whose current changed; `None` for those that are gone.
    pub progress_changes: Vec<(ObjectName, Option<IngressProgress>)>,
    /// What people should know about Ingresses: the Ingress, a reason for programs, and a note.
    pub warnings: Vec<(ObjectName, &'static str, String)>,
    /// The gateways, where they changed.
    pub gateways: Option<Vec<GatewayPod>>,
    /// The other replicas by pod name, when any endpoint of our own Service changed.
    pub replicas: Option<BTreeMap<String, IpAddr>>,
}

/// One request per listener is enough: a listener's routes travel as a whole.
pub(crate) fn probe_targets(routes: &IngressRoutes) -> Vec<ProbeTarget> {
    let target = |external, host: &Host| {
        let host = if host == ANY_HOST { "any.invalid".to_owned() } else { host.clone() };
        ProbeTarget { external, host }
    };
    let external = routes.external.keys().next().map(|host| target(true, host));
    let internal = routes.local.keys().chain(routes.external.keys()).next().map(|host| target(false, host));
    external.into_iter().chain(internal).collect()
}
