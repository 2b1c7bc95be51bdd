//! The Kubernetes objects that routes depend on, as plain data without types of the API client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::kernel::Release;
use k8s_api::kingress::{IngressSpec, IngressStatus};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// A text that is no object name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the name {text:?}: it is not of the form namespace/name")]
pub struct NoObjectName {
    /// The text.
    pub text: String,
}

impl std::str::FromStr for ObjectName {
    type Err = NoObjectName;

    fn from_str(text: &str) -> Result<Self, NoObjectName> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NoObjectName { text: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All objects that routes are computed from.
#[derive(Clone, Debug, Default)]
pub struct RoutingObjects {
    /// The Ingresses of our class without a deletionTimestamp.
    pub ingresses: BTreeMap<ObjectName, IngressObject>,
    /// All Services.
    pub services: BTreeMap<ObjectName, ServiceObject>,
    /// EndpointSlices by Service, then by their own name.
    pub slices: BTreeMap<ObjectName, Vec<(String, SliceObject)>>,
    /// Zone by node name, for nodes that have one.
    pub zones: BTreeMap<String, String>,
    /// The release of the kernel by node name, where that is known.
    pub kernels: BTreeMap<String, Release>,
    /// TLS Secrets.
    pub secrets: BTreeMap<ObjectName, SecretObject>,
}

/// An Ingress of our class.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressObject {
    /// `metadata.uid`, for events about it.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`, seconds since 1970. The older Ingress keeps a host that two
    /// claim.
    pub created_unix_seconds: i64,
    /// The defaulted spec.
    pub spec: IngressSpec,
    /// The status as last seen.
    pub status: IngressStatus,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceObject {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The name, if `type` is `ExternalName`.
    pub external_name: Option<String>,
    /// If Knative made it to select the pods of a revision: the name of the revision's public
    /// Service, which may lead to activators instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_of: Option<String>,
    /// Whether Knative made it for a revision.
    #[serde(default)]
    pub of_revision: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// Whether its name or application protocol says HTTP/2 without TLS.
    pub http2: bool,
}

impl ServiceObject {
    /// The port that `wanted` refers to, by number or name.
    #[must_use]
    pub fn port(&self, wanted: &IntOrString) -> Option<&ServicePort> {
        self.ports.iter().find(|port| match wanted {
            IntOrString::Int(number) => i32::from(port.number) == *number,
            IntOrString::String(name) => &port.name == name,
        })
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceObject {
    /// Port number by name; empty where a port has none.
    pub ports: Vec<(String, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its first address; the others are of the same endpoint.
    pub address: IpAddr,
    /// The node it runs on, where that is known.
    pub node: Option<String>,
    /// Whether it accepts new requests.
    pub ready: bool,
    /// Whether it is terminating and still serves.
    pub serving_last: bool,
    /// The name of its pod, where it is known to be one.
    pub pod: Option<String>,
    /// Whether its pod is in another namespace than the Service: an activator.
    pub stand_in: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeObject {
    /// Its zone, where it has one.
    pub zone: Option<String>,
    /// The release of its kernel, where that is known.
    pub kernel: Option<Release>,
    /// Whether its kubelet is silent.
    pub is_silent: bool,
}

/// The concurrency limit of a revision's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// No limit.
    Unlimited,
    /// The maximum number of concurrent requests of a pod; further requests queue.
    Limited(NonZeroU32),
}

/// A revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionObject {
    /// How many requests a pod of it takes at once.
    pub concurrency: Concurrency,
    /// Whether it says itself how much it must be able to take on top before its activators may be
    /// spared (`target-burst-capacity`).
    pub sets_burst_capacity: bool,
}

impl From<Concurrency> for RevisionObject {
    fn from(concurrency: Concurrency) -> Self {
        Self { concurrency, sets_burst_capacity: false }
    }
}

/// A TLS Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretObject {
    /// `tls.crt`.
    pub certificate_pem: Vec<u8>,
    /// `tls.key`.
    pub key_pem: Vec<u8>,
    /// `ca.crt`, where it has one.
    pub authority_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for SecretObject {
    // A key must never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretObject").finish_non_exhaustive()
    }
}

/// An endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address of the pod.
    pub address: IpAddr,
    /// Port of the pod.
    pub port: u16,
    /// The node it runs on, where that is known.
    pub node: Option<String>,
    /// Whether it is an activator, which stands in for the revision's pods.
    pub stand_in: bool,
}

impl RoutingObjects {
    /// The addresses of the pods that are ready behind `service`, whatever their ports.
    #[must_use]
    pub fn ready_addresses(&self, service: &ObjectName) -> BTreeSet<IpAddr> {
        self.all_endpoints(service).filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.address).collect()
    }

    /// The pods behind `service` that serve, ready or terminating, without `own`: name -> address.
    /// Of a pod with several addresses the lowest counts, which is the IPv4 one.
    #[must_use]
    pub fn other_pods(&self, service: &ObjectName, own: &str) -> BTreeMap<String, IpAddr> {
        let mut pods = BTreeMap::new();
        for endpoint in self.slices.get(service).into_iter().flatten().flat_map(|(_, slice)| &slice.endpoints) {
            let Some(pod) = endpoint.pod.as_ref().filter(|pod| pod.as_str() != own) else { continue };
            if endpoint.ready || endpoint.serving_last {
                let address = pods.entry(pod.clone()).or_insert(endpoint.address);
                *address = (*address).min(endpoint.address);
            }
        }
        pods
    }

    /// How many these are.
    #[must_use]
    pub fn ready_pods(&self, service: &ObjectName) -> u32 {
        u32::try_from(self.ready_addresses(service).len()).unwrap_or(u32::MAX)
    }

    /// The addresses of those that are there, and not ready.
    #[must_use]
    pub fn unready_addresses(&self, service: &ObjectName) -> BTreeSet<IpAddr> {
        self.all_endpoints(service).filter(|endpoint| is_unready(endpoint)).map(|endpoint| endpoint.address).collect()
    }

    fn all_endpoints(&self, service: &ObjectName) -> impl Iterator<Item = &SliceEndpoint> {
        self.slices.get(service).into_iter().flatten().flat_map(|(_, slice)| &slice.endpoints)
    }

    /// The endpoints of `service` behind its port named `port_name`, sorted, each once. If none is
    /// ready: terminating ones that still serve.
    #[must_use]
    pub fn endpoints(&self, service: &ObjectName, port_name: &str) -> Vec<Endpoint> {
        let ready = self.those(service, port_name, |endpoint| endpoint.ready);
        if ready.is_empty() { self.those(service, port_name, |endpoint| endpoint.serving_last) } else { ready }
    }

    /// Those that are neither.
    #[must_use]
    pub fn unready_endpoints(&self, service: &ObjectName, port_name: &str) -> Vec<Endpoint> {
        self.those(service, port_name, is_unready)
    }

    fn those(&self, service: &ObjectName, port_name: &str, which: impl Fn(&SliceEndpoint) -> bool) -> Vec<Endpoint> {
        let mut found = Vec::new();
        for (_, slice) in self.slices.get(service).into_iter().flatten() {
            let Some(&(_, port)) = slice.ports.iter().find(|(name, _)| name == port_name) else { continue };
            found.extend(slice.endpoints.iter().filter(|endpoint| which(endpoint)).map(|endpoint| Endpoint {
                address: endpoint.address,
                port,
                node: endpoint.node.clone(),
                stand_in: endpoint.stand_in,
            }));
        }
        found.sort_unstable();
        found.dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
        found
    }
}

fn is_unready(endpoint: &SliceEndpoint) -> bool {
    !endpoint.ready && !endpoint.serving_last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last_byte: u8, ready: bool, serving_last: bool) -> SliceEndpoint {
        SliceEndpoint { address: [10, 0, 0, last_byte].into(), node: None, ready, serving_last, pod: None, stand_in: false }
    }

    fn objects(endpoints: Vec<SliceEndpoint>) -> RoutingObjects {
        let ports = vec![("http".into(), 8012), ("https".into(), 8112), ("http-istio".into(), 8012)];
        let slice = SliceObject { ports, endpoints };
        RoutingObjects {
            slices: [(ObjectName::new("a", "s"), vec![("s-1".to_owned(), slice)])].into(),
            ..RoutingObjects::default()
        }
    }

    #[test]
    fn a_port_that_is_listed_twice_under_two_names_counts_once() {
        let objects = objects(vec![endpoint(1, true, false), endpoint(1, true, false)]);
        let found = objects.endpoints(&ObjectName::new("a", "s"), "http");
        assert_eq!(found.iter().map(|e| (e.address.to_string(), e.port)).collect::<Vec<_>>(), [("10.0.0.1".to_owned(), 8012)]);
        assert_eq!(objects.endpoints(&ObjectName::new("a", "s"), "grpc"), []);
    }

    #[test]
    fn endpoints_being_ended_serve_only_when_no_other_does() {
        let name = ObjectName::new("a", "s");
        let addresses =
            |objects: &RoutingObjects| objects.endpoints(&name, "http").iter().map(|e| e.address.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses(&objects(vec![endpoint(1, false, true), endpoint(2, true, false)])), ["10.0.0.2"]);
        assert_eq!(addresses(&objects(vec![endpoint(1, false, true), endpoint(2, false, false)])), ["10.0.0.1"]);
    }
}
