//! Sees every pod that goes, and whether measured demand asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::knative::gateways::Gateways;
use kantai_tests::knative::stage::{is_ready, revision_of};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};

use super::verdict::least_pods;

/// A decision is carried out so long after the demand that it was made from, at worst: a daemon is
/// killed, the other takes over, writes fail and are tried again.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(20);

/// Watches all pods.
pub(super) struct Observer(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// UIDs of pods that are ready, by revision.
    ready: BTreeMap<String, BTreeSet<String>>,
    excused_pods: BTreeSet<String>,
    excused_revisions: BTreeSet<String>,
    wrongs: Vec<String>,
}

impl Observer {
    pub(super) async fn start(pods: Api<Pod>, gateways: Gateways) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut version = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let shared = seen.clone();
        tokio::spawn(async move {
            let why = loop {
                let events = match pods.watch(&WatchParams::default(), &version).await {
                    Ok(events) => events,
                    Err(error) => break error.to_string(),
                };
                let mut events = Box::pin(events);
                // A watch ends after some minutes; the next goes on where it stood.
                let ended = loop {
                    match events.try_next().await {
                        Ok(Some(event)) => match shared.lock().expect("no holder panics").take_in(event, &gateways) {
                            Ok(next) => version = next,
                            Err(error) => break Some(error),
                        },
                        Ok(None) => break None,
                        Err(error) => break Some(error.to_string()),
                    }
                };
                if let Some(error) = ended {
                    break error;
                }
            };
            shared.lock().expect("no holder panics").wrongs.push(format!("the observer's watch broke: {why}"));
        });
        Ok(Self(seen))
    }

    /// A new run begins.
    pub(super) fn begin(&self) {
        self.0.lock().expect("no holder panics").wrongs.clear();
    }

    /// Somebody else takes this pod.
    pub(super) fn excuse_pod(&self, uid: &str) {
        self.0.lock().expect("no holder panics").excused_pods.insert(uid.to_owned());
    }

    /// All pods of this revision are to go.
    pub(super) fn excuse_revision(&self, name: &str) {
        self.0.lock().expect("no holder panics").excused_revisions.insert(name.to_owned());
    }

    /// What broke the rule since the run began.
    pub(super) fn wrongs(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").wrongs.clone()
    }
}

impl Seen {
    /// The version of the object, from where a watch can go on.
    fn take_in(&mut self, event: WatchEvent<Pod>, gateways: &Gateways) -> Result<String, String> {
        let (pod, is_there) = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, true),
            WatchEvent::Deleted(pod) => (pod, false),
            WatchEvent::Bookmark(bookmark) => return Ok(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(status.message),
        };
        let (uid, version) = (pod.uid().unwrap_or_default(), pod.resource_version());
        if let Some(revision) = revision_of(&pod) {
            let ready = self.ready.entry(revision.to_owned()).or_default();
            if is_there && is_ready(&pod) {
                ready.insert(uid);
            } else if ready.remove(&uid) {
                let left = ready.len();
                let is_taken = !is_there || pod.metadata.deletion_timestamp.is_some();
                let is_excused = self.excused_pods.contains(&uid) || self.excused_revisions.contains(revision);
                let told = gateways.least_told(revision, CARRIED_OUT_WITHIN);
                let asked = least_pods(told);
                if is_taken && !is_excused && left < asked {
                    self.wrongs.push(format!(
                        "{} of {revision} was taken while ready, {left} were left ready, and {told} clients ask for {asked}",
                        pod.name_any()
                    ));
                }
            }
        }
        version.ok_or_else(|| "an object without a version".to_owned())
    }
}
