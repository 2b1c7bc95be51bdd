//! Kubeconfigs that carry their certificates in themselves, so that one file is all that a client
//! needs.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::pki::Identity;

/// A kubeconfig for one user of one cluster. It is JSON, which every reader of YAML reads.
pub(super) fn kubeconfig(server: &str, authority: &str, user: &str, identity: &Identity) -> Value {
    let base64 = |pem: &str| json!(ByteString(pem.as_bytes().to_vec()));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kantai-lab", "cluster": {"server": server, "certificate-authority-data": base64(authority)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64(&identity.certificate),
            "client-key-data": base64(&identity.key),
        }}],
        "contexts": [{"name": "kantai-lab", "context": {"cluster": "kantai-lab", "user": user}}],
        "current-context": "kantai-lab",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_read_by_the_client_library() {
        let identity = Identity { certificate: "certificate".into(), key: "key".into() };
        let value = kubeconfig("https://10.89.0.1:6443", "authority", "admin", &identity);
        let read: kube::config::Kubeconfig = serde_json::from_value(value).unwrap();
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.89.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("YXV0aG9yaXR5"));
        assert_eq!(read.current_context.as_deref(), Some("kantai-lab"));
    }
}
