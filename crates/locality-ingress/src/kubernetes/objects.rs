//! The Kubernetes objects that routes depend on, as plain data without types of the API client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
pub struct Objects {
    /// The Ingresses of our class without a deletionTimestamp.
    pub ingresses: BTreeMap<ObjectName, IngressObject>,
    /// All Services.
    pub services: BTreeMap<ObjectName, ServiceObject>,
    /// EndpointSlices by Service, then by their own name.
    pub slices: BTreeMap<ObjectName, Vec<(String, SliceObject)>>,
    /// The last slices with a ready endpoint, of Services without one now.
    pub last_slices: BTreeMap<ObjectName, Vec<(String, SliceObject)>>,
    /// Nodes whose kubelet is silent. Whether their pods serve is unknown.
    pub silent_nodes: BTreeSet<String>,
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

impl Objects {
    /// How many pods are ready behind `service`, whatever their ports.
    #[must_use]
    pub fn ready_pods(&self, service: &ObjectName) -> u32 {
        let endpoints = self.slices.get(service).into_iter().flatten().flat_map(|(_, slice)| &slice.endpoints);
        let ready: BTreeSet<IpAddr> = endpoints.filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.address).collect();
        u32::try_from(ready.len()).unwrap_or(u32::MAX)
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

    /// Whether any endpoint of `service` is ready.
    #[must_use]
    pub fn has_ready(&self, service: &ObjectName) -> bool {
        let slices = self.slices.get(service).into_iter().flatten();
        slices.flat_map(|(_, slice)| &slice.endpoints).any(|endpoint| endpoint.ready)
    }

    /// The endpoints of `service` behind its port named `port_name`, sorted, each once. If none is
    /// ready: terminating ones that still serve. If there are none of these either: those that were
    /// ready before their nodes' kubelets fell silent. Kubernetes marks the pods of a silent node
    /// not ready, and if all nodes are silent, these pods are all that serves.
    #[must_use]
    pub fn endpoints(&self, service: &ObjectName, port_name: &str) -> Vec<Endpoint> {
        let endpoints = listed(self.slices.get(service), port_name);
        if !endpoints.is_empty() {
            return endpoints;
        }
        let mut kept = listed(self.last_slices.get(service), port_name);
        kept.retain(|endpoint| endpoint.node.as_ref().is_some_and(|node| self.silent_nodes.contains(node)));
        kept
    }
}

/// The endpoints that serve in these slices, behind the port named `port_name`.
fn listed(slices: Option<&Vec<(String, SliceObject)>>, port_name: &str) -> Vec<Endpoint> {
    let mut ready = Vec::new();
    let mut last = Vec::new();
    for (_, slice) in slices.into_iter().flatten() {
        let Some(&(_, port)) = slice.ports.iter().find(|(name, _)| name == port_name) else { continue };
        for endpoint in &slice.endpoints {
            let to = match endpoint {
                SliceEndpoint { ready: true, .. } => &mut ready,
                SliceEndpoint { serving_last: true, .. } => &mut last,
                _ => continue,
            };
            to.push(Endpoint { address: endpoint.address, port, node: endpoint.node.clone(), stand_in: endpoint.stand_in });
        }
    }
    let mut endpoints = if ready.is_empty() { last } else { ready };
    endpoints.sort_unstable();
    endpoints.dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last_byte: u8, ready: bool, serving_last: bool) -> SliceEndpoint {
        SliceEndpoint { address: [10, 0, 0, last_byte].into(), node: None, ready, serving_last, pod: None, stand_in: false }
    }

    fn objects(endpoints: Vec<SliceEndpoint>) -> Objects {
        let ports = vec![("http".into(), 8012), ("https".into(), 8112), ("http-istio".into(), 8012)];
        let slice = SliceObject { ports, endpoints };
        Objects { slices: [(ObjectName::new("a", "s"), vec![("s-1".to_owned(), slice)])].into(), ..Objects::default() }
    }

    #[test]
    fn a_port_that_is_listed_twice_under_two_names_counts_once() {
        let objects = objects(vec![endpoint(1, true, false), endpoint(1, true, false)]);
        let found = objects.endpoints(&ObjectName::new("a", "s"), "http");
        assert_eq!(found.iter().map(|e| (e.address.to_string(), e.port)).collect::<Vec<_>>(), [("10.0.0.1".to_owned(), 8012)]);
        assert_eq!(objects.endpoints(&ObjectName::new("a", "s"), "grpc"), []);
    }

    #[test]
    fn endpoints_of_silent_nodes_serve_while_nothing_else_does() {
        let service = ObjectName::new("a", "s");
        let on = |node: &str, byte, ready| SliceEndpoint { node: Some(node.to_owned()), ..endpoint(byte, ready, false) };
        let ready = objects(vec![on("node1", 1, true), on("node2", 2, true)]);
        let mut now = objects(vec![on("node1", 1, false), on("node2", 2, false)]);
        now.last_slices.clone_from(&ready.slices);
        assert!(now.endpoints(&service, "http").is_empty(), "their nodes are heard of: the pods are not ready");
        now.silent_nodes = ["node2".to_owned()].into();
        let kept: Vec<_> = now.endpoints(&service, "http").into_iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(kept, [IpAddr::from([10, 0, 0, 2])]);
        now.slices = objects(vec![on("node3", 3, true), on("node2", 2, false)]).slices;
        let listed: Vec<_> = now.endpoints(&service, "http").into_iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(listed, [IpAddr::from([10, 0, 0, 3])]);
    }

    #[test]
    fn endpoints_being_ended_serve_only_when_no_other_does() {
        let name = ObjectName::new("a", "s");
        let addresses =
            |objects: &Objects| objects.endpoints(&name, "http").iter().map(|e| e.address.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses(&objects(vec![endpoint(1, false, true), endpoint(2, true, false)])), ["10.0.0.2"]);
        assert_eq!(addresses(&objects(vec![endpoint(1, false, true), endpoint(2, false, false)])), ["10.0.0.1"]);
    }
}
