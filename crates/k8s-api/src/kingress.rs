//! Knative's `Ingress` object (`networking.internal.knative.dev/v1alpha1`): the fields that an
//! ingress class reads and writes.
//!
//! The order of fields, and which empty fields are omitted, are those of Knative's own types,
//! because the hash by which a gateway proves its version depends on them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

/// The ingress class that the gateways of Kantai serve.
pub const CLASS: &str = "kantai.ingress.networking.knative.dev";

/// The annotation with the ingress class of an object.
pub const CLASS_ANNOTATION: &str = "networking.knative.dev/ingress.class";

/// The finalizer of every implementation that uses Knative's generated reconcilers. This class adds
/// none, but an object taken over from another class still has it and could never be deleted.
pub const FOREIGN_FINALIZER: &str = "ingresses.networking.internal.knative.dev";

/// An `Ingress` object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KIngress {
    /// Name, namespace, annotations and so on.
    pub metadata: ObjectMeta,
    /// The specification.
    #[serde(default)]
    pub spec: IngressSpec,
    /// The status written by the ingress class.
    #[serde(default)]
    pub status: IngressStatus,
}

impl kube::Resource for KIngress {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Ingress".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "networking.internal.knative.dev".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "ingresses".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl KIngress {
    /// Whether the object asks for the ingress class `class`.
    #[must_use]
    pub fn is_of_class(&self, class: &str) -> bool {
        self.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION)).is_some_and(|value| value == class)
    }
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressSpec {
    /// Certificates per set of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<IngressTls>,
    /// Hosts and where their requests go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<IngressRule>,
    /// `Enabled`, `Redirected` or empty, which means `Enabled`.
    #[serde(default, rename = "httpOption", skip_serializing_if = "String::is_empty")]
    pub http_option: String,
}

impl IngressSpec {
    /// The spec with Knative's defaults, as Serving's webhook sets them; an object created without
    /// the webhook is treated the same.
    #[must_use]
    pub fn defaulted(mut self) -> Self {
        for rule in &mut self.rules {
            if rule.visibility.is_empty() {
                VISIBILITY_EXTERNAL.clone_into(&mut rule.visibility);
            }
            for path in rule.http.iter_mut().flat_map(|http| &mut http.paths) {
                if let [only] = path.splits.as_mut_slice()
                    && only.percent == 0
                {
                    only.percent = 100;
                }
            }
        }
        self
    }
}

/// Visibility of rules that both gateway listeners answer.
pub const VISIBILITY_EXTERNAL: &str = "ExternalIP";
/// Visibility of rules that only the internal listener answers.
pub const VISIBILITY_LOCAL: &str = "ClusterLocal";
/// The `httpOption` that sends plain HTTP to HTTPS.
pub const HTTP_REDIRECTED: &str = "Redirected";

/// One entry of `spec.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressTls {
    /// Names the certificate is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Secret with `tls.crt` and `tls.key`.
    #[serde(default, rename = "secretName", skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
    /// Its namespace.
    #[serde(default, rename = "secretNamespace", skip_serializing_if = "String::is_empty")]
    pub secret_namespace: String,
}

/// One entry of `spec.rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressRule {
    /// Full names without port; none means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// [`VISIBILITY_EXTERNAL`] or [`VISIBILITY_LOCAL`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub visibility: String,
    /// Paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpRule>,
}

/// `spec.rules[].http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRule {
    /// Paths.
    #[serde(default)]
    pub paths: Vec<HttpPath>,
}

/// One entry of `spec.rules[].http.paths`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpPath {
    /// Literal prefix; empty means all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The host that the backend sees.
    #[serde(default, rename = "rewriteHost", skip_serializing_if = "String::is_empty")]
    pub rewrite_host: String,
    /// Headers and their exact values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Backends and their shares.
    #[serde(default)]
    pub splits: Vec<BackendSplit>,
    /// Headers to set, replacing existing values.
    #[serde(default, rename = "appendHeaders", skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
}

/// The match of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// The exact value.
    #[serde(default)]
    pub exact: String,
}

/// One entry of `splits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSplit {
    /// Namespace of the Service.
    #[serde(default, rename = "serviceNamespace")]
    pub service_namespace: String,
    /// Name of the Service.
    #[serde(default, rename = "serviceName")]
    pub service_name: String,
    /// Number or name of one of its ports.
    #[serde(rename = "servicePort", default = "port_zero")]
    pub service_port: IntOrString,
    /// Share of the requests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub percent: i64,
    /// Headers to set, replacing existing values.
    #[serde(default, rename = "appendHeaders", skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
}

fn port_zero() -> IntOrString {
    IntOrString::Int(0)
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(percent: &i64) -> bool {
    *percent == 0
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressStatus {
    /// The generation that the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `NetworkConfigured`, `LoadBalancerReady` and `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<KCondition>,
    /// Where requests from outside the cluster enter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_load_balancer: Option<LoadBalancer>,
    /// Where requests from inside the cluster enter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_load_balancer: Option<LoadBalancer>,
}

impl IngressStatus {
    /// Whether the status has `generation` Ready.
    #[must_use]
    pub fn says_ready(&self, generation: i64) -> bool {
        let ready = |condition: &KCondition| condition.type_ == "Ready" && condition.status == "True";
        self.observed_generation == Some(generation) && self.conditions.iter().any(ready)
    }
}

/// One condition, in Knative's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When `status` last changed. The API server refuses conditions without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// The reason, for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The message, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Addresses of a load balancer; Serving accepts exactly one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// The one entry.
    #[serde(default)]
    pub ingress: Vec<LoadBalancerEntry>,
}

/// One address. Other fields are not used: with an IP address Serving would create headless
/// Services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerEntry {
    /// A name that resolves inside the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain_internal: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_missing_ones_are_read() {
        let read: KIngress = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "annotations": {CLASS_ANNOTATION: "x"}},
            "spec": {"rules": [{"hosts": ["a.b"], "http": {"paths": [{"splits": [{"serviceName": "s", "servicePort": "http2"}]}]}, "later": 1}]},
        }))
        .unwrap();
        assert!(read.is_of_class("x") && !read.is_of_class("y"));
        let spec = read.spec.defaulted();
        assert_eq!(spec.rules[0].visibility, VISIBILITY_EXTERNAL);
        assert_eq!(spec.rules[0].http.as_ref().unwrap().paths[0].splits[0].percent, 100);
    }
}
