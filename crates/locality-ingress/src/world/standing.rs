//! What comes out of the world besides updates of the store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kingress::IngressStatus;
use crate::objects::ObjectName;
use crate::route_table::{ANY_HOST, Host};
use crate::translate::{HostRoutes, IngressRoutes};
use crate::xds::store::Revision;

/// Where one Ingress stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// `metadata.uid`.
    pub uid: String,
    /// The generation this is about, the newest one seen.
    pub generation: i64,
    /// Its status as last seen.
    pub status: IngressStatus,
    /// How far it is.
    pub progress: Progress,
}

/// How far a generation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Told to the gateways.
    Served {
        /// Since this revision of the store.
        since: Revision,
        /// What a probe of it comes back with.
        hash: String,
        /// What to ask the gateways.
        probes: Vec<ProbeTarget>,
    },
    /// The generation before is still served, until these are there.
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
    /// The path to ask for.
    pub path: String,
    /// Headers that its route wants.
    pub headers: BTreeMap<String, String>,
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
pub struct News {
    /// Ingresses whose standing changed; `None` for those that are gone.
    pub standings: Vec<(ObjectName, Option<Standing>)>,
    /// The gateways, where they changed.
    pub gateways: Option<Vec<GatewayPod>>,
}

/// One request per listener is enough: a listener's routes travel as a whole.
pub(super) fn probe_targets(routes: &IngressRoutes) -> Vec<ProbeTarget> {
    let external = routes.external.iter().find_map(|(host, routes)| target(true, host, routes));
    let internal = routes.local.iter().chain(&routes.external).find_map(|(host, routes)| target(false, host, routes));
    external.into_iter().chain(internal).collect()
}

fn target(external: bool, host: &Host, routes: &HostRoutes) -> Option<ProbeTarget> {
    // The last route of a host has the shortest prefix and the fewest headers; the one before it is its twin for probes.
    let last = routes.routes.last()?;
    let path = if last.prefix == "/" { "/healthz".to_owned() } else { last.prefix.clone() };
    let host = if host == ANY_HOST { "any.invalid".to_owned() } else { host.clone() };
    Some(ProbeTarget { external, host, path, headers: last.headers.clone() })
}
