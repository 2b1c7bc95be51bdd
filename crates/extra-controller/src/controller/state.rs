//! What the reconciler keeps between two looks. Lost without harm with the program.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use kube::{Client, ResourceExt as _};
use placement::CostModel;
use gateway_link::RevisionKey;
use seika_controller::crd::{PodTemplate, Seika};

use crate::decide::Memory;
use crate::demand::sampler::Demands;
use crate::gather::Ledger;
use crate::knative::{PodAutoscaler, PodAutoscalerStatus};
use crate::latency::LatencyBook;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::objects::Objects;
use crate::rollout::Counts;
use crate::routes::RouteBook;
use crate::service_monitor::ServiceMonitors;

/// Everything that a look at a revision needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The program's own namespace.
    pub namespace: String,
    /// What it holds.
    pub objects: Objects,
    /// Demand.
    pub demands: Arc<Demands>,
    /// Latency.
    pub latency: Arc<ArcSwap<LatencyBook>>,
    /// Routes.
    pub routes: Arc<RouteBook>,
    /// Events.
    pub notifier: Notifier,
    /// Metrics.
    pub metrics: Metrics,
    /// How gateways spread requests.
    pub model: CostModel,
    /// ServiceMonitors, where there is such a thing.
    pub monitors: ServiceMonitors,
    /// Per revision.
    pub revisions: Mutex<BTreeMap<RevisionKey, Held>>,
    /// Room that is spoken for.
    pub ledger: Mutex<Ledger>,
}

/// What is kept of one revision.
#[derive(Debug, Default)]
pub struct Held {
    /// `metadata.uid` of the PodAutoscaler that all this is about: a service that is deleted and made anew has a revision of the same name.
    uid: Option<String>,
    pub(super) memory: Memory,
    /// What was written last, as long as the stores may be behind it.
    status: Option<(u64, PodAutoscalerStatus)>,
    seika: Option<(u64, Counts)>,
    template: Option<PodTemplate>,
    pub(super) told_target: Option<Counts>,
    pub(super) told_unplaced: Option<u32>,
    pub(crate) has_monitor: bool,
}

impl Context {
    pub(super) fn take(&self, key: &RevisionKey, uid: Option<String>) -> Held {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default().of(uid)
    }

    pub(super) fn put(&self, key: &RevisionKey, held: Held) {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), held);
    }

    /// The revisions that were decided on.
    pub(super) fn decided(&self) -> BTreeSet<RevisionKey> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(super) fn with_ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        act(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision is not ours, or not there, any more.
    pub(super) fn forget(&self, key: &RevisionKey) {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.with_ledger(|ledger| ledger.forget(key));
        self.routes.remove(key);
        self.demands.set_asleep(key, false);
        self.metrics.forget(key);
    }

    /// This program leads now, or does not any more: then whoever does knows better than what was decided here.
    pub fn leads(&self, leads: bool) {
        self.metrics.leading.set(leads.into());
        if !leads {
            for key in &self.decided() {
                self.forget(key);
            }
            self.routes.reset();
        }
    }
}

impl Held {
    fn of(self, uid: Option<String>) -> Self {
        if self.uid == uid { self } else { Self { uid, ..Self::default() } }
    }

    /// The object with the newest status that is known: the watch may be a moment behind what was written.
    pub(super) fn newest(&self, seen: &PodAutoscaler) -> PodAutoscaler {
        let mut newest = seen.clone();
        if let Some((written, status)) = &self.status
            && version(&seen.resource_version()) < *written
        {
            newest.status = Some(status.clone());
        }
        newest
    }

    pub(super) fn wrote_status(&mut self, written: &PodAutoscaler) {
        if let Some(status) = &written.status {
            self.status = Some((version(&written.resource_version()), status.clone()));
        }
    }

    /// What the Seika is told, by the watch or by what was written since. Once the watch has shown what was written, it is believed, also
    /// when it shows that somebody deleted the Seika.
    pub(super) fn seika_told(&mut self, seen: Option<&Seika>) -> Counts {
        if let Some((written, counts)) = &self.seika {
            if seen.is_none_or(|seen| version(&seen.resource_version()) < *written) {
                return counts.clone();
            }
            self.seika = None;
        }
        seen.map(told).unwrap_or_default()
    }

    pub(super) fn wrote_seika(&mut self, written: &Seika, counts: Counts, template: PodTemplate) {
        self.seika = Some((version(&written.resource_version()), counts));
        self.template = Some(template);
    }

    /// Whether the Seika is to be written.
    pub(super) fn seika_differs(&self, counts: &Counts, told: &Counts, template: &PodTemplate) -> bool {
        // A program that has just started does not know the template that is there and writes once.
        counts != told || self.template.as_ref() != Some(template)
    }

    pub(super) fn seika_is_gone(&mut self) {
        (self.seika, self.template) = (None, None);
    }
}

/// Versions of one kind of object are comparable numbers; one that is not counts as old.
fn version(version: &Option<String>) -> u64 {
    version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn told(seika: &Seika) -> Counts {
    let counts = seika.spec.repurika.iter().filter_map(|(node, count)| Some((node.as_str().into(), u32::try_from(*count).ok()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seika(version: u64, on_node1: u32) -> (Seika, Counts) {
        let counts = Counts::from([("node1".into(), on_node1)]);
        let spec = serde_json::json!({
            "metadata": { "name": "hello-00001", "resourceVersion": version.to_string() },
            "spec": { "repurika": { "node1": on_node1 }, "selector": {}, "template": {} },
        });
        (serde_json::from_value(spec).unwrap(), counts)
    }

    #[test]
    fn what_was_written_holds_until_the_watch_has_shown_it() {
        let mut held = Held::default();
        let (old, _) = seika(5, 1);
        let (written, counts) = seika(7, 2);
        held.wrote_seika(&written, counts.clone(), PodTemplate::default());
        assert_eq!(held.seika_told(None), counts);
        assert_eq!(held.seika_told(Some(&old)), counts);
        assert_eq!(held.seika_told(Some(&written)), counts);
        // Somebody deleted it: it has to be written again.
        assert_eq!(held.seika_told(None), Counts::new());
    }

    #[test]
    fn nothing_is_taken_over_from_a_revision_of_the_same_name() {
        let mut held = Held::default().of(Some("one".to_owned()));
        let (written, counts) = seika(7, 2);
        held.wrote_seika(&written, counts.clone(), PodTemplate::default());
        let mut held = held.of(Some("one".to_owned()));
        assert_eq!(held.seika_told(None), counts);
        assert_eq!(held.of(Some("another".to_owned())).seika_told(None), Counts::new());
    }
}
