//! Follows all pods of the cluster from the beginning of a run: when each was first seen, when it
//! was ready, when it was gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use super::journal::unix_seconds;

/// A pod's life as seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodSeen {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) first_seen_unix_seconds: f64,
    pub(crate) ready_unix_seconds: Option<f64>,
    /// When its end was asked for.
    pub(crate) ends_unix_seconds: Option<f64>,
    pub(crate) gone_unix_seconds: Option<f64>,
    /// Whether it was there when the watch began: then it was not first seen when it was created.
    pub(crate) was_there_before: bool,
}

/// The watch; ends when dropped.
#[derive(Debug)]
pub(crate) struct PodWatch {
    seen: Arc<Mutex<BTreeMap<String, PodSeen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    pub(crate) fn start(client: Client) -> Self {
        let seen: Arc<Mutex<BTreeMap<String, PodSeen>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let pods = watcher(Api::<Pod>::all(client), watcher::Config::default()).default_backoff();
            let mut pods = std::pin::pin!(pods);
            loop {
                match pods.try_next().await {
                    Ok(Some(event)) => note(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), event),
                    Ok(None) => break,
                    Err(error) => warn!(%error, "the watch on pods broke off and is taken up again"),
                }
            }
        });
        Self { seen, task }
    }

    pub(crate) fn all(&self) -> Vec<PodSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// When the first pod with this label value was created after a moment.
    pub(crate) fn first_created_after(&self, label: (&str, &str), unix_seconds: f64) -> Option<f64> {
        self.all()
            .iter()
            .filter(|pod| !pod.was_there_before && pod.labels.get(label.0).is_some_and(|value| value == label.1))
            .map(|pod| pod.first_seen_unix_seconds)
            .filter(|at| *at >= unix_seconds)
            .min_by(f64::total_cmp)
    }
}

fn note(seen: &mut BTreeMap<String, PodSeen>, event: watcher::Event<Pod>) {
    match event {
        watcher::Event::Init | watcher::Event::InitDone => {}
        watcher::Event::InitApply(pod) => update(seen, &pod, true),
        watcher::Event::Apply(pod) => update(seen, &pod, false),
        watcher::Event::Delete(pod) => {
            update(seen, &pod, false);
            if let Some(known) = pod.metadata.uid.as_ref().and_then(|uid| seen.get_mut(uid)) {
                known.gone_unix_seconds = Some(unix_seconds());
            }
        }
    }
}

fn update(seen: &mut BTreeMap<String, PodSeen>, pod: &Pod, was_there_before: bool) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let now = unix_seconds();
    let known = seen.entry(uid).or_insert_with(|| PodSeen {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        node: None,
        labels: pod.labels().clone(),
        first_seen_unix_seconds: now,
        ready_unix_seconds: None,
        ends_unix_seconds: None,
        gone_unix_seconds: None,
        was_there_before,
    });
    known.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    if known.ends_unix_seconds.is_none() && pod.metadata.deletion_timestamp.is_some() {
        known.ends_unix_seconds = Some(now);
    }
    if known.ready_unix_seconds.is_none() && is_ready(pod) {
        known.ready_unix_seconds = Some(now);
    }
}

/// Whether a pod's Ready condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": uid, "namespace": "n", "uid": uid, "labels": { "app": "x" } },
            "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_pods_life_is_written_down_once() {
        let mut seen = BTreeMap::new();
        note(&mut seen, watcher::Event::InitApply(pod("old", true)));
        note(&mut seen, watcher::Event::Apply(pod("new", false)));
        assert_eq!(seen["new"].ready_unix_seconds, None);
        note(&mut seen, watcher::Event::Apply(pod("new", true)));
        let ready = seen["new"].ready_unix_seconds;
        assert!(ready.is_some());
        note(&mut seen, watcher::Event::Delete(pod("new", false)));
        assert_eq!(seen["new"].ready_unix_seconds, ready);
        assert!(seen["new"].gone_unix_seconds.is_some());
        assert!(seen["old"].was_there_before && !seen["new"].was_there_before);
    }
}
