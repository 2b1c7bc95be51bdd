//! The route table: what the gateways are to do, in our own words. Objects become a route table
//! ([`super::translate`]), a route table becomes xDS resources ([`crate::xds`]); both steps are
//! pure.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kubernetes::objects::ObjectName;

/// What every gateway does, whatever node it is on. Only endpoints differ by node, see
/// [`crate::endpoints::locality`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Plain HTTP from outside the cluster, by host.
    pub external: BTreeMap<Host, VirtualHost>,
    /// Plain HTTP from inside the cluster, by host. Everything external is here too.
    pub internal: BTreeMap<Host, VirtualHost>,
    /// HTTPS from outside.
    pub external_tls: BTreeMap<Host, VirtualHost>,
    /// HTTPS from inside.
    pub internal_tls: BTreeMap<Host, VirtualHost>,
    /// Certificates for HTTPS from outside, by the host they are chosen by.
    pub external_certificates: BTreeMap<Host, ObjectName>,
    /// Certificates for HTTPS from inside.
    pub internal_certificates: BTreeMap<Host, ObjectName>,
    /// The certificate for clients from outside that name no host, or one without a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_certificate: Option<ObjectName>,
    /// Where requests can go.
    pub clusters: BTreeMap<ClusterKey, Cluster>,
}

/// A host that requests are for, without port; [`ANY_HOST`] stands for all that nothing else names.
pub(crate) type Host = String;

/// The host of rules without hosts.
pub(crate) const ANY_HOST: &str = "*";

/// What happens to requests for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// The Ingress that has the host.
    pub ingress: ObjectName,
    /// Its version: what a gateway that has these routes answers a probe with. No backend is asked,
    /// so that a probe neither looks like demand for a revision nor wakes one.
    pub hash: Arc<str>,
    /// The first that matches wins.
    pub routes: Routes,
}

/// Routes, of which clones are the same in memory: most hosts of an Ingress have the same ones, and
/// so has each in more than one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes(Arc<[Route]>);

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.0
    }
}

impl From<Vec<Route>> for Routes {
    fn from(routes: Vec<Route>) -> Self {
        Self(routes.into())
    }
}

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Which requests, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The path starts with this.
    pub prefix: String,
    /// These headers have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Sent on.
    Forward {
        /// The host that the backend sees, where it is not the client's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rewrite_host: Option<String>,
        /// At least one; weights are above zero.
        splits: Vec<Split>,
    },
    /// Told to come back with HTTPS (301).
    RedirectToHttps,
    /// Nothing is there for it (503): no split has a share above zero.
    Unavailable,
}

/// One share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Where they go.
    pub cluster: ClusterKey,
    /// How many, relative to the other splits. Above zero.
    pub weight: u32,
    /// Headers that are set, whatever the client sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_headers: BTreeMap<String, String>,
}

/// One port of one Service. Its display is the name of the Envoy cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// The Service.
    pub service: ObjectName,
    /// Number or name of the port, as the Ingress has it.
    pub port: String,
}

impl std::fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.port)
    }
}

impl std::str::FromStr for ClusterKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(service), Some(port)) => {
                Ok(Self { service: ObjectName::new(namespace, service), port: port.to_owned() })
            }
            _ => Err(format!("failed to read cluster key {text:?}: not namespace/service/port")),
        }
    }
}

impl Serialize for ClusterKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How requests reach a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Whether it speaks HTTP/2 without TLS; HTTP/1.1 otherwise.
    pub http2: bool,
    /// Whether it speaks TLS, as activators and queue-proxies do with Knative's internal encryption
    /// (`system-internal-tls`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// What it is.
    pub target: Target,
}

/// What a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The endpoints of the Service.
    Endpoints {
        /// Name of the port in its EndpointSlices.
        port_name: String,
    },
    /// Whatever a name resolves to.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// The gateway itself: the Service is another name of its internal listener, so the way through
    /// the network is spared.
    OwnInternalListener,
}
