//! Requests to a real API server that the tests of all daemons share.

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt as _};
use local_control_plane::control_plane::{ControlPlane, User};
use serde_json::Value;

/// The namespace of all our daemons' accounts.
pub const SYSTEM_NAMESPACE: &str = "kantai-system";
/// Longer than any test or measurement takes.
const TOKEN_SECONDS: i64 = 6 * 3600;

/// The documents of a YAML file.
pub fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    yaml.split("\n---\n").map(|document| Ok(serde_saphyr::from_str(document)?)).collect()
}

/// Applies a manifest of any kind.
pub async fn apply(client: &Client, manifest: &Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(manifest.clone())?;
    let types = object.types.clone().context("a manifest without a kind")?;
    let (resource, _) = kube::discovery::pinned_kind(client, &GroupVersionKind::try_from(&types)?).await?;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&object.name_any(), &PatchParams::apply("test"), &Patch::Apply(manifest)).await?;
    Ok(())
}

/// A token of a daemon's own ServiceAccount.
///
/// # Errors
/// Where the API server gives out none.
pub async fn token_of(control_plane: &ControlPlane, account: &str) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client(), SYSTEM_NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: Vec::new(), expiration_seconds: Some(TOKEN_SECONDS), bound_object_ref: None },
        ..TokenRequest::default()
    };
    let request = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(request.status.context("a token request without an answer")?.token)
}

/// The configuration of a client with a daemon's own rights, and no others.
///
/// # Errors
/// Where the API server gives out no token.
pub async fn config_of(control_plane: &ControlPlane, account: &str) -> anyhow::Result<kube::Config> {
    let token = token_of(control_plane, account).await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(control_plane.kubeconfig(User::Admin))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
    Ok(config)
}
