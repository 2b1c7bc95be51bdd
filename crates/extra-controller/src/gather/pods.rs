//! The pods of every revision, kept pod by pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use autoscaler::ledger::Ledger;
use autoscaler::rollout::{Maker, Pod};
use autoscaler::room::{Resources, requests_of_pod};
use gateway_link::RevisionKey;
use k8s_api::seika::NODE_LABEL;
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::ResourceExt as _;

use super::revision_of;
use crate::objects::is_ready;

/// All pods that the stores hold, by namespace and name, and the revisions' by revision.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: BTreeMap<(String, String), Known>,
    of_revisions: BTreeMap<RevisionKey, BTreeMap<String, (Pod, Resources)>>,
}

#[derive(Debug)]
struct Known {
    uid: String,
    revision: Option<RevisionKey>,
}

impl Pods {
    /// Takes in that a pod is now so, or gone. The revision whose pods are different now.
    pub(super) fn update(
        &mut self,
        namespace: &str,
        name: &str,
        pod: Option<&KubePod>,
        ledger: &mut Ledger,
    ) -> BTreeSet<RevisionKey> {
        let place = (namespace.to_owned(), name.to_owned());
        let uid = pod.and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default();
        let before = self.known.remove(&place);
        if let Some(before) = before.as_ref().filter(|before| before.uid != uid || pod.is_none()) {
            ledger.remove(&before.uid);
        }
        let mut changed = BTreeSet::new();
        let revision = pod.and_then(|pod| revision_of(pod.labels(), namespace));
        if let Some(left) = before.and_then(|before| before.revision).filter(|before| revision.as_ref() != Some(before))
            && self.remove(&left, name)
        {
            changed.insert(left);
        }
        let Some(pod) = pod else { return changed };
        ledger.upsert_pod(pod);
        if let Some(revision) = &revision {
            let is_changed = match read(pod) {
                Some(read) => {
                    let held = self.of_revisions.entry(revision.clone()).or_default();
                    held.insert(name.to_owned(), read.clone()).as_ref() != Some(&read)
                }
                None => self.remove(revision, name),
            };
            if is_changed {
                changed.insert(revision.clone());
            }
        }
        self.known.insert(place, Known { uid, revision });
        changed
    }

    /// Takes in that these, and no others, are the pods. The revisions whose pods are different
    /// now.
    pub(super) fn relist(&mut self, pods: &[Arc<KubePod>], ledger: &mut Ledger) -> BTreeSet<RevisionKey> {
        let mut gone: BTreeSet<(String, String)> = self.known.keys().cloned().collect();
        let mut changed = BTreeSet::new();
        for pod in pods {
            let place = (pod.namespace().unwrap_or_default(), pod.name_any());
            changed.extend(self.update(&place.0, &place.1, Some(pod), ledger));
            gone.remove(&place);
        }
        for (namespace, name) in gone {
            changed.extend(self.update(&namespace, &name, None, ledger));
        }
        changed
    }

    /// A revision's pods that are neither terminating nor finished, in name order, and the most
    /// that any of them asks for.
    pub(super) fn of(&self, revision: &RevisionKey) -> (Vec<Pod>, Resources) {
        let Some(held) = self.of_revisions.get(revision) else { return Default::default() };
        let most = held.values().fold(Resources::default(), |most, (_, asked)| most.max(asked));
        (held.values().map(|(pod, _)| pod.clone()).collect(), most)
    }

    fn remove(&mut self, revision: &RevisionKey, name: &str) -> bool {
        let Some(held) = self.of_revisions.get_mut(revision) else { return false };
        let was_there = held.remove(name).is_some();
        if held.is_empty() {
            self.of_revisions.remove(revision);
        }
        was_there
    }
}

/// A pod as decisions see it. `None` for one that terminates or is finished, and for one that
/// neither Deployment nor Seika controls, since it would not be replaced.
fn read(pod: &KubePod) -> Option<(Pod, Resources)> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let maker = match controller.kind.as_str() {
        "Seika" => Maker::Seika,
        "ReplicaSet" => Maker::Deployment,
        _ => return None,
    };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let is_ready = is_ready(pod);
    let read = Pod {
        name: pod.name_any(),
        node: node.map(Into::into),
        meant_for: pod.labels().get(NODE_LABEL).filter(|_| maker == Maker::Seika).map(|node| node.as_str().into()),
        maker,
        is_ready,
        trouble: if is_ready { None } else { trouble(pod) },
    };
    Some((read, requests_of_pod(pod)))
}

/// Why a pod cannot start, where Kubernetes says so. A pod on its way has no such reason.
fn trouble(pod: &KubePod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        return Some(worded("Unschedulable", condition.message.as_deref()));
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    waiting.find_map(|waiting| {
        let reason = waiting.reason.as_deref()?;
        let is_trouble = !matches!(reason, "ContainerCreating" | "PodInitializing");
        is_trouble.then(|| worded(reason, waiting.message.as_deref()))
    })
}

/// The longest message that is kept, in characters: it is shown to people.
const LONGEST_MESSAGE: usize = 200;

fn worded(reason: &str, message: Option<&str>) -> String {
    let message: String = message.unwrap_or_default().chars().take(LONGEST_MESSAGE).collect();
    if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, changes: &serde_json::Value) -> KubePod {
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": uid,
                "labels": {"serving.knative.dev/revision": "hello-00001", "bonavadeur.io/seika-hostname": "node1"},
                "ownerReferences": [{"kind": "Seika", "controller": true, "name": "hello-00001", "uid": "s", "apiVersion": "v1"}],
            },
            "spec": {"nodeName": "node1", "containers": [{"name": "user", "resources": {"requests": {"cpu": "250m"}}}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        for (key, value) in changes.as_object().unwrap() {
            for (field, value) in value.as_object().unwrap() {
                pod[key][field] = value.clone();
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    fn key() -> RevisionKey {
        RevisionKey::new("default", "hello-00001")
    }

    #[test]
    fn a_pod_that_changes_nothing_of_interest_concerns_nobody() {
        let (mut pods, mut ledger) = (Pods::default(), Ledger::default());
        let mut update = |pod: Option<&KubePod>| pods.update("default", "a", pod, &mut ledger);
        assert_eq!(update(Some(&pod("a", "1", &json!({})))), [key()].into());
        assert_eq!(update(Some(&pod("a", "1", &json!({"metadata": {"resourceVersion": "7"}})))), BTreeSet::new());
        let terminating = pod("a", "1", &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(update(Some(&terminating)), [key()].into());
        assert_eq!(update(None), BTreeSet::new());
        assert_eq!((pods.of(&key()).0.len(), ledger.pods()), (0, 0));
    }

    #[test]
    fn a_pod_made_anew_under_its_name_takes_the_place_of_the_old_one() {
        let (mut pods, mut ledger) = (Pods::default(), Ledger::default());
        pods.update("default", "a", Some(&pod("a", "1", &json!({}))), &mut ledger);
        pods.relist(&[Arc::new(pod("a", "2", &json!({})))], &mut ledger);
        assert_eq!((pods.of(&key()).0.len(), ledger.pods()), (1, 1));
        assert_eq!(pods.relist(&[], &mut ledger), [key()].into());
        assert_eq!((pods.of(&key()).0.len(), ledger.pods()), (0, 0));
    }

    #[test]
    fn why_a_pod_does_not_start_is_read() {
        let unscheduled = json!({"spec": {"nodeName": ""}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}});
        let (read, _) = read(&pod("a", "1", &unscheduled)).unwrap();
        assert_eq!((read.node, read.meant_for), (None, Some("node1".into())));
        assert_eq!(read.trouble.as_deref(), Some("Unschedulable: 0/3 nodes are available"));
        for (reason, is_trouble) in [("ImagePullBackOff", true), ("CrashLoopBackOff", true), ("ContainerCreating", false)] {
            let waiting = json!({"status": {"conditions": [], "containerStatuses": [{"name": "user", "image": "i", "imageID": "",
                "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}}]}});
            assert_eq!(super::read(&pod("a", "1", &waiting)).unwrap().0.trouble.is_some(), is_trouble, "{reason}");
        }
    }
}
