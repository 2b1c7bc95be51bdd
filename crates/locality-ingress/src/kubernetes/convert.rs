//! Kubernetes objects as the plain data of `objects`.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::objects::{
    IngressObject, NodeObject, ObjectName, SecretObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject,
};
use k8s_api::kingress::KIngress;

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label of a slice with the name of its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label by which Knative marks a revision's Service that selects its pods (`Private`), as
/// opposed to the public one.
const SERVICE_TYPE_LABEL: &str = "networking.internal.knative.dev/serviceType";
/// The label of both with the name of their ServerlessService, which is also the name of the public
/// Service.
const SERVERLESS_SERVICE_LABEL: &str = "networking.internal.knative.dev/serverlessservice";

/// An Ingress.
#[must_use]
pub fn ingress(object: KIngress) -> IngressObject {
    IngressObject {
        uid: object.metadata.uid.unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        created_unix_seconds: object.metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
        spec: object.spec.defaulted(),
        status: object.status,
    }
}

/// A Service.
#[must_use]
pub fn service(object: Service) -> ServiceObject {
    let spec = object.spec.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let name = port.name.unwrap_or_default();
        let http2 = matches!(name.as_str(), "http2" | "h2c") || port.app_protocol.as_deref() == Some("kubernetes.io/h2c");
        Some(ServicePort { name, number: u16::try_from(port.port).ok()?, http2 })
    });
    let external_name = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    let mut labels = object.metadata.labels.unwrap_or_default();
    let kind = labels.remove(SERVICE_TYPE_LABEL);
    let private = kind.as_deref() == Some("Private");
    let pods_of = labels.remove(SERVERLESS_SERVICE_LABEL).filter(|_| private);
    ServiceObject { ports: ports.collect(), external_name, pods_of, of_revision: kind.is_some() }
}

/// An EndpointSlice and its Service. Slices of DNS names, and slices without a Service, are
/// ignored.
#[must_use]
pub fn slice(object: EndpointSlice) -> Option<(ObjectName, SliceObject)> {
    let namespace = object.metadata.namespace.unwrap_or_default();
    let service = object.metadata.labels.unwrap_or_default().remove(SERVICE_NAME_LABEL)?;
    let ports = object.ports.unwrap_or_default().into_iter();
    let ports = ports.filter_map(|port| Some((port.name.unwrap_or_default(), u16::try_from(port.port?).ok()?)));
    let endpoints = object.endpoints.into_iter().filter_map(|endpoint| slice_endpoint(endpoint, &namespace));
    let slice = SliceObject { ports: ports.collect(), endpoints: endpoints.collect() };
    Some((ObjectName::new(namespace, service), slice))
}

fn slice_endpoint(endpoint: Endpoint, namespace: &str) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    let target = endpoint.target_ref.unwrap_or_default();
    let pod = target.name.filter(|_| target.kind.as_deref() == Some("Pod"));
    let pod_namespace = target.namespace;
    Some(SliceEndpoint {
        address: endpoint.addresses.first()?.parse().ok()?,
        node: endpoint.node_name,
        // The API defines that unknown readiness means ready.
        ready: conditions.ready.unwrap_or(true),
        serving_last: conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false),
        pod,
        stand_in: pod_namespace.is_some_and(|pod_namespace| pod_namespace != namespace),
    })
}

/// A node.
#[must_use]
pub fn node(object: &Node) -> NodeObject {
    let zone = object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned();
    let info = object.status.as_ref().and_then(|status| status.node_info.as_ref());
    let mut conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    // Kubernetes sets Unknown for a node whose kubelet is silent, and False if the kubelet itself
    // reports not ready.
    let is_silent = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "Unknown");
    NodeObject { zone, kernel: info.and_then(|info| info.kernel_version.parse().ok()), is_silent }
}

/// A TLS Secret with certificate and key in PEM.
#[must_use]
pub fn secret(object: Secret) -> Option<SecretObject> {
    let mut data = object.data?;
    let mut pem = |key: &str| {
        let ByteString(bytes) = data.remove(key)?;
        // A gateway refuses anything else.
        bytes.windows(11).any(|window| window == b"-----BEGIN ").then_some(bytes)
    };
    Some(SecretObject { certificate_pem: pem("tls.crt")?, key_pem: pem("tls.key")?, authority_pem: pem("ca.crt") })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_mirrored_slice_of_activators() {
        let (service, slice) = slice(read(json!({
            "metadata": {"name": "hello-00001-x", "namespace": "default", "labels": {"kubernetes.io/service-name": "hello-00001"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.244.1.2"], "conditions": {"ready": true}, "nodeName": "node1",
                 "targetRef": {"kind": "Pod", "name": "activator-1", "namespace": "knative-serving"}},
                {"addresses": ["10.244.1.3"], "conditions": {}, "targetRef": {"kind": "Pod", "name": "hello", "namespace": "default"}},
                {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
            "ports": [{"name": "http", "port": 8012}],
        })))
        .unwrap();
        assert_eq!(service, ObjectName::new("default", "hello-00001"));
        assert_eq!(slice.ports, [("http".to_owned(), 8012)]);
        let flags: Vec<_> = slice.endpoints.iter().map(|e| (e.node.as_deref(), e.ready, e.serving_last, e.stand_in)).collect();
        assert_eq!(flags, [(Some("node1"), true, false, true), (None, true, false, false), (None, false, true, false)]);
    }

    #[test]
    fn the_service_that_selects_a_revisions_pods_is_known_by_its_labels() {
        let of = |kind: &str| {
            let labels = json!({
                "networking.internal.knative.dev/serverlessservice": "hello-00001",
                "networking.internal.knative.dev/serviceType": kind,
            });
            service(read(json!({"metadata": {"name": "any", "labels": labels}, "spec": {}}))).pods_of
        };
        assert_eq!(of("Private").as_deref(), Some("hello-00001"));
        assert_eq!(of("Public"), None);
    }

    #[test]
    fn http2_is_known_by_name_or_application_protocol() {
        let service = service(read(json!({
            "spec": {"ports": [
                {"name": "http", "port": 80}, {"name": "h2c", "port": 81}, {"name": "x", "port": 82, "appProtocol": "kubernetes.io/h2c"},
            ], "externalName": "left.over"},
        })));
        assert_eq!(service.ports.iter().map(|port| port.http2).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(service.external_name, None);
    }
}
