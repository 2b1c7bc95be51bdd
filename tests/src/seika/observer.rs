//! An account of every pod that comes and goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

use super::cluster::{is_active, is_of_a_seika, node_of};

/// Sees every event about pods and keeps the largest number of active pods that each node ever had.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What an [`Observer`] saw.
#[derive(Default, Debug, Clone)]
pub struct Seen {
    /// Pods of Seikas that came.
    pub created: usize,
    /// When the first and the last of them did, as far as they were not there before.
    pub created_within: Option<(Instant, Instant)>,
    /// Pods that went.
    pub deleted: usize,
    /// The most active pods that a node had at any instant.
    pub most_per_node: BTreeMap<String, usize>,
    active: BTreeMap<String, (String, String)>,
    /// Why nothing is seen any more.
    blind: Option<String>,
}

impl Observer {
    pub(super) async fn start(pods: Api<Pod>) -> anyhow::Result<Self> {
        let listed = pods.list(&ListParams::default()).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        for pod in listed.items {
            seen.lock().unwrap().put(&pod);
        }
        (seen.lock().unwrap().created, seen.lock().unwrap().created_within) = (0, None);
        let shared = Arc::clone(&seen);
        let mut version = listed.metadata.resource_version.unwrap_or_default();
        // Before the first change that must be observed.
        let mut events = pods.watch(&WatchParams::default(), &version).await?.boxed();
        let task = tokio::spawn(async move {
            let why = loop {
                match events.try_next().await {
                    Ok(Some(event)) => match shared.lock().unwrap().tell(event) {
                        Ok(next) => version = next,
                        Err(error) => break error,
                    },
                    // A watch ends after some minutes; the next goes on where it stood.
                    Ok(None) => match pods.watch(&WatchParams::default(), &version).await {
                        Ok(next) => events = next.boxed(),
                        Err(error) => break error.to_string(),
                    },
                    Err(error) => break error.to_string(),
                }
            };
            shared.lock().unwrap().blind = Some(why);
        });
        Ok(Self { seen, task })
    }

    /// Pods of Seikas that came until now.
    ///
    /// # Panics
    /// Where the watch broke, so that something may have happened unseen.
    pub fn created(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.blind, None, "the watch broke");
        seen.created
    }

    /// What was seen until now.
    ///
    /// # Panics
    /// Where the watch broke, so that something may have happened unseen.
    pub fn seen(&self) -> Seen {
        let seen = self.seen.lock().unwrap().clone();
        assert_eq!(seen.blind, None, "the watch broke");
        seen
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// Takes in an event; returns the version of the object, from where a watch can go on.
    fn tell(&mut self, event: WatchEvent<Pod>) -> Result<String, String> {
        let pod = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                self.put(&pod);
                pod
            }
            WatchEvent::Deleted(pod) => {
                self.remove(&pod);
                pod
            }
            WatchEvent::Bookmark(bookmark) => return Ok(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(status.message),
        };
        pod.resource_version().ok_or_else(|| "an object without a version".to_owned())
    }

    fn put(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        if !is_active(pod) || !is_of_a_seika(pod) {
            self.active.remove(&uid);
            return;
        }
        if self.active.insert(uid, (node_of(pod).to_owned(), pod.name_any())).is_none() {
            self.created += 1;
            let now = Instant::now();
            self.created_within = Some((self.created_within.map_or(now, |(first, _)| first), now));
        }
        let node = node_of(pod);
        let active = self.active.values().filter(|(on, _)| on == node).count();
        let most = self.most_per_node.entry(node.to_owned()).or_default();
        *most = (*most).max(active);
    }

    fn remove(&mut self, pod: &Pod) {
        self.active.remove(&pod.uid().unwrap_or_default());
        self.deleted += 1;
    }
}
