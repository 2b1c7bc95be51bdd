//! The label by which the Service finds the replica that leads: only that one answers on the API
//! port.
//!
//! The Lease says who leads, and the label follows it. The leader keeps the label on its own pod
//! and takes it off all others, so that a leader that vanished with its node gets no connections
//! once another leads. A replica that does not lead takes it off its own pod.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};
use lease_election::PodOptions;
use serde_json::json;
use tokio::sync::watch;

use crate::objects::Objects;

/// The label; its value is `true`.
pub const LEADS: &str = "placement.kantai.dev/leads";

/// How often the own pod is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many of these looks there are for each look at all other pods.
const LOOKS_PER_SWEEP: u32 = 10;
/// Time limit of one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a pod should carry the label, for those where that differs from what it carries.
fn corrections<'a>(pods: impl IntoIterator<Item = &'a Pod>, own: &str, leads: bool) -> BTreeMap<String, bool> {
    pods.into_iter()
        .filter_map(|pod| {
            let (name, is_own) = (pod.name_any(), pod.name_any() == own);
            let carries = pod.labels().get(LEADS).is_some_and(|value| value == "true");
            let should = if is_own { leads } else { carries && !leads };
            (carries != should).then_some((name, should))
        })
        .collect()
}

/// Keeps the label where it belongs until dropped.
pub(crate) async fn keep(client: Client, objects: Objects, pod: PodOptions, mut leads: watch::Receiver<bool>) {
    let api: Api<Pod> = Api::namespaced(client, &pod.pod_namespace);
    let own = ObjectRef::new(&pod.pod_name).within(&pod.pod_namespace);
    let mut until_sweep: u32 = 0;
    loop {
        let is_leading = *leads.borrow_and_update();
        let pods = if is_leading && until_sweep == 0 {
            let all = objects.pods.state().into_iter();
            all.filter(|other| other.metadata.namespace.as_ref() == Some(&pod.pod_namespace)).collect()
        } else {
            Vec::from_iter(objects.pods.get(&own))
        };
        let corrections = corrections(pods.iter().map(AsRef::as_ref), &pod.pod_name, is_leading);
        // What was just written shows only after a while: until then it is looked at again.
        until_sweep = if corrections.is_empty() { until_sweep.checked_sub(1).unwrap_or(LOOKS_PER_SWEEP) } else { 0 };
        for (name, should) in corrections {
            write(&api, &name, should).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Ok(()) = leads.changed() => until_sweep = 0,
        }
    }
}

async fn write(api: &Api<Pod>, name: &str, should: bool) {
    let patch = json!({"metadata": {"labels": {LEADS: should.then_some("true")}}});
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    match tokio::time::timeout(WRITE_TIMEOUT, api.patch_metadata(name, &parameters, &patch)).await {
        Ok(Ok(_)) => tracing::info!(pod = name, leads = should, "labelled"),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
        Ok(Err(error)) => tracing::warn!(pod = name, %error, "failed to label a pod, retrying"),
        Err(_elapsed) => tracing::warn!(pod = name, "failed to label a pod in time, retrying"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, label: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.labels = label.map(|value| BTreeMap::from([(LEADS.to_owned(), value.to_owned())]));
        pod
    }

    fn corrected(pods: &[Pod], own: &str, leads: bool) -> Vec<(String, bool)> {
        corrections(pods, own, leads).into_iter().collect()
    }

    #[test]
    fn the_leader_alone_carries_the_label() {
        let pods = [pod("one", None), pod("other", None)];
        assert_eq!(corrected(&pods, "one", true), [("one".to_owned(), true)]);
        assert_eq!(corrected(&pods, "one", false), []);
        let mended = [pod("one", Some("true")), pod("other", None)];
        assert_eq!(corrected(&mended, "one", true), []);
    }

    #[test]
    fn what_a_leader_left_behind_is_taken_off() {
        let pods = [pod("gone", Some("true")), pod("one", None)];
        assert_eq!(corrected(&pods, "one", true), [("gone".to_owned(), false), ("one".to_owned(), true)]);
    }

    #[test]
    fn who_waits_touches_only_its_own_pod() {
        let pods = [pod("one", Some("true")), pod("other", Some("true"))];
        assert_eq!(corrected(&pods, "one", false), [("one".to_owned(), false)]);
    }

    #[test]
    fn both_carry_it_until_the_leader_has_seen_it() {
        let pods = [pod("one", Some("true")), pod("other", Some("true"))];
        assert_eq!(corrected(&pods, "one", true), [("other".to_owned(), false)]);
    }
}
