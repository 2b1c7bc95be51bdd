//! `extra-controller hand-back`: turns the switch off and waits until the daemon has handed every
//! revision back to Knative's own autoscaler. For what comes before an uninstall.

use std::collections::BTreeMap;
use std::time::Duration;

use autoscaler::handback::{Duty, MARKER, duty};
use autoscaler::settings::Toggle;
use k8s_api::PodAutoscaler;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// The name under which the switch is written.
const MANAGER: &str = "kantai-hand-back";
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);
/// In so many looks one after the other nothing may be left: Knative may copy a revision's class to
/// its PodAutoscaler once more.
const LOOKS: u32 = 3;
/// As many PodAutoscalers are asked for at once.
const PAGE: u32 = 500;
/// As many revisions are named in a message.
const NAMED: usize = 5;

/// Why revisions are not known to be handed back.
#[derive(Debug, thiserror::Error)]
pub enum HandBackError {
    /// The switch could not be read or written.
    #[error("failed to turn the switch off in ConfigMap {namespace}/{name}", namespace = Toggle::NAMESPACE, name = Toggle::NAME)]
    Switch(#[source] kube::Error),
    /// The API server did not say which revisions there are.
    #[error("failed to list PodAutoscalers for {}s", .waited.as_secs())]
    List {
        /// For how long.
        waited: Duration,
        /// The last answer.
        source: kube::Error,
    },
    /// Revisions remain.
    #[error("{count} revisions are not handed back after {}s, among them {named}: does extra-controller run?", .waited.as_secs())]
    Remain {
        /// How many.
        count: usize,
        /// Some of them, as `namespace/name`.
        named: String,
        /// How long they were waited for.
        waited: Duration,
    },
}

/// Turns the switch off, everywhere, and waits for at most `timeout`.
///
/// # Errors
/// [`HandBackError`]. The switch stays off then, and the daemon goes on handing back.
pub async fn hand_back(client: Client, timeout: Duration) -> Result<(), HandBackError> {
    switch_off(Api::namespaced(client.clone(), Toggle::NAMESPACE)).await.map_err(HandBackError::Switch)?;
    let autoscalers = Api::all(client);
    let begun = Instant::now();
    let mut empty_looks = 0;
    loop {
        let looked = remaining(&autoscalers).await;
        let waited = begun.elapsed();
        empty_looks = if looked.as_ref().is_ok_and(Vec::is_empty) { empty_looks + 1 } else { 0 };
        match looked {
            Ok(_) if empty_looks == LOOKS => return Ok(()),
            Ok(names) if names.is_empty() => {}
            Ok(names) if waited >= timeout => {
                let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
                return Err(HandBackError::Remain { count: names.len(), named, waited });
            }
            Err(source) if waited >= timeout => return Err(HandBackError::List { waited, source }),
            Ok(names) => tracing::info!(remaining = names.len(), "revisions are being handed back"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to list PodAutoscalers"),
        }
        sleep(PAUSE).await;
    }
}

async fn switch_off(maps: Api<ConfigMap>) -> Result<(), kube::Error> {
    let map = maps.get_opt(Toggle::NAME).await?;
    let data = all_off(map.as_ref().and_then(|map| map.data.as_ref()));
    if map.is_some() {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        return maps.patch(Toggle::NAME, &params, &Patch::Merge(json!({ "data": data }))).await.map(drop);
    }
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(Toggle::NAME.to_owned());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    maps.create(&params, &map).await.map(drop)
}

/// What the keys of the switch have to say so that no namespace and no service is left on.
fn all_off(data: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let narrower = |key: &str| key.strip_prefix(Toggle::ENABLED_KEY).is_some_and(|scope| scope.starts_with('.'));
    let exceptions = data.into_iter().flatten().map(|(key, _)| key.clone()).filter(|key| narrower(key));
    exceptions.chain([Toggle::ENABLED_KEY.to_owned()]).map(|key| (key, "false".to_owned())).collect()
}

/// The revisions that are still ours, as `namespace/name`, in the order of the API server.
async fn remaining(autoscalers: &Api<PodAutoscaler>) -> Result<Vec<String>, kube::Error> {
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = autoscalers.list(&page).await?;
        let ours = list.items.iter().filter(|autoscaler| is_ours(autoscaler));
        names.extend(ours.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(names),
        }
    }
}

/// Whether the daemon still has to hand it back. What is being deleted has no use for that.
fn is_ours(autoscaler: &PodAutoscaler) -> bool {
    let marker = autoscaler.annotations().get(MARKER).map(String::as_str);
    autoscaler.metadata.deletion_timestamp.is_none() && duty(autoscaler.class(), marker, false) == Duty::HandBack
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn afterwards_no_namespace_and_no_service_is_left_on(
            scopes in prop::collection::btree_map("(\\.[a-c](\\.[a-c])?)?", "true|false|0|yes", 0..6),
            others in prop::collection::btree_map("[a-z-]{1,20}", "[a-z]{0,5}", 0..3),
        ) {
            let mut data = others.clone();
            data.extend(scopes.into_iter().map(|(scope, text)| (format!("{}{scope}", Toggle::ENABLED_KEY), text)));
            let off = all_off(Some(&data));
            // Nothing else is written.
            prop_assert!(off.keys().all(|key| key.starts_with(Toggle::ENABLED_KEY)));
            data.extend(off);
            let toggle = Toggle::read(Some(&data));
            for (namespace, service) in ["a", "b", "c", "d"].into_iter().flat_map(|n| ["a", "b", "c", "d"].map(|s| (n, s))) {
                prop_assert!(!toggle.is_on(namespace, service), "{}.{}", namespace, service);
            }
        }
    }

    #[test]
    fn without_a_config_map_there_is_one_that_says_off() {
        assert!(!Toggle::read(Some(&all_off(None))).is_on("default", "hello"));
    }

    #[test]
    fn ours_is_what_has_our_class_and_stays() {
        let autoscaler = |class: &str, deleted: Option<&str>| -> PodAutoscaler {
            serde_json::from_value(json!({
                "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
                "metadata": {"name": "a", "deletionTimestamp": deleted, "annotations": {"autoscaling.knative.dev/class": class}},
                "spec": {"scaleTargetRef": {"name": "a"}, "protocolType": "http1"},
            }))
            .unwrap()
        };
        assert!(is_ours(&autoscaler(k8s_api::CLASS, None)));
        assert!(!is_ours(&autoscaler(k8s_api::STOCK_CLASS, None)));
        assert!(!is_ours(&autoscaler(k8s_api::CLASS, Some("2026-01-01T00:00:00Z"))));
    }
}
