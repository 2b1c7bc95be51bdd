//! The route table: what gateways do, independent of Envoy. Objects are translated to a route table
//! ([`super::translate`]), and a route table to xDS resources ([`crate::xds`]); both steps are
//! pure.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kubernetes::objects::ObjectName;

/// The routes of all gateways. Only endpoints differ by node, see `crate::endpoints::locality`.
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
    /// The certificate for external clients whose SNI is missing or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_certificate: Option<ObjectName>,
    /// The backends of the routes.
    pub clusters: BTreeMap<ClusterKey, Cluster>,
}

/// A host without port; [`ANY_HOST`] matches all hosts without routes of their own.
pub(crate) type Host = String;

/// The host of rules without hosts.
pub(crate) const ANY_HOST: &str = "*";

/// The routes of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// The Ingress that has the host.
    pub ingress: ObjectName,
    /// The version: the hash with which a gateway answers a probe. No backend is asked, so a probe
    /// is no demand and wakes no revision.
    pub hash: Arc<str>,
    /// The first match wins.
    pub routes: RouteList,
}

/// Routes whose clones share memory: most hosts of an Ingress have the same routes, in more than
/// one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteList(Arc<[Route]>);

impl Deref for RouteList {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.0
    }
}

impl From<Vec<Route>> for RouteList {
    fn from(routes: Vec<Route>) -> Self {
        Self(routes.into())
    }
}

impl<'a> IntoIterator for &'a RouteList {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A match and its action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The prefix of the path.
    pub prefix: String,
    /// Headers and their exact values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The action for matching requests.
    pub action: Action,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is forwarded.
    Forward {
        /// The host that the backend sees, if it is rewritten.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rewrite_host: Option<String>,
        /// At least one; weights are above zero.
        splits: Vec<Split>,
    },
    /// It is redirected to HTTPS (301).
    RedirectToHttps,
    /// It is answered with 503: no split has a weight.
    Unavailable,
}

/// One share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The cluster of the share.
    pub cluster: ClusterKey,
    /// The weight relative to the other splits. Above zero.
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

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Whether it speaks HTTP/2 without TLS; HTTP/1.1 otherwise.
    pub http2: bool,
    /// Whether it speaks TLS, as activators and queue-proxies do with Knative's internal encryption
    /// (`system-internal-tls`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// The endpoints.
    pub target: ClusterTarget,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterTarget {
    /// The endpoints of the Service.
    Endpoints {
        /// Name of the port in its EndpointSlices.
        port_name: String,
    },
    /// The addresses of a DNS name.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// The gateway itself: the Service is another name of its internal listener, so the request
    /// need not leave the gateway.
    OwnInternalListener,
}
