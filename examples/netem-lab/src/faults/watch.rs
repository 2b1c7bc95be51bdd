//! Watches the pods of the service.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use super::service;
use super::standing::{PodLook, Standing};
use crate::run::pods::is_ready;
use crate::run::unix_seconds;

/// The watch; ends when dropped.
#[derive(Debug)]
pub(super) struct PodWatch {
    standing: Arc<Mutex<Standing>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    pub(super) fn start(client: Client) -> Self {
        let standing: Arc<Mutex<Standing>> = Arc::default();
        let shared = Arc::clone(&standing);
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().labels(&service::label());
            let mut pods = std::pin::pin!(watcher(Api::<Pod>::namespaced(client, service::NAMESPACE), config).default_backoff());
            let mut relay = Relay::default();
            loop {
                match pods.try_next().await {
                    Ok(Some(event)) => relay.pass_on(event, &mut lock(&shared)),
                    Ok(None) => break,
                    Err(error) => warn!(%error, "the watch on pods broke off and is taken up again"),
                }
            }
        });
        Self { standing, task }
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Also notices pods that were deleted while the watch was broken.
#[derive(Default)]
struct Relay {
    known: BTreeSet<String>,
    listed: BTreeSet<String>,
}

impl Relay {
    fn pass_on(&mut self, event: watcher::Event<Pod>, standing: &mut Standing) {
        let now = unix_seconds();
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.insert(uid(&pod));
                self.known.insert(uid(&pod));
                standing.note(now, look(&pod));
            }
            watcher::Event::InitDone => {
                for gone in self.known.difference(&self.listed) {
                    let (uid, name) = (gone.clone(), gone.clone());
                    standing.note(now, PodLook { uid, name, node: None, ready: false, ends: true, restarts: 0 });
                }
                self.known = std::mem::take(&mut self.listed);
            }
            watcher::Event::Apply(pod) => {
                self.known.insert(uid(&pod));
                standing.note(now, look(&pod));
            }
            watcher::Event::Delete(pod) => {
                self.known.remove(&uid(&pod));
                standing.note(now, PodLook { ends: true, ..look(&pod) });
            }
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn look(pod: &Pod) -> PodLook {
    let status = pod.status.as_ref();
    let has_ended =
        status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| matches!(phase, "Failed" | "Succeeded"));
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    PodLook {
        uid: uid(pod),
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready: is_ready(pod),
        ends: has_ended || pod.metadata.deletion_timestamp.is_some(),
        restarts: containers.into_iter().flatten().map(|container| container.restart_count).sum(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "spec": { "nodeName": "node1", "containers": [] },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [{ "name": "a", "image": "a", "imageID": "", "ready": true, "restartCount": 3 }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_went_unheard_of_no_longer_stands() {
        let (mut relay, mut standing) = (Relay::default(), Standing::default());
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(pod("a")),
            watcher::Event::InitApply(pod("b")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitApply(pod("b")),
        ] {
            relay.pass_on(event, &mut standing);
        }
        assert_eq!(standing.count(), 2);
        relay.pass_on(watcher::Event::InitDone, &mut standing);
        assert_eq!((standing.count(), standing.restarts()), (1, 6));
        relay.pass_on(watcher::Event::Delete(pod("b")), &mut standing);
        assert_eq!(standing.count(), 0);
    }
}
