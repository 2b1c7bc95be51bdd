//! What people see of the decisions: events and logs on change, metrics, explanations.

use std::collections::BTreeMap;
use std::sync::Arc;

use autoscaler::handback::Where;
use autoscaler::rollout::Counts;
use autoscaler::{Decision, Inputs};
use gateway_link::RevisionKey;
use k8s_api::{ConditionStatus, PodAutoscaler, PodAutoscalerStatus};
use kube::Resource as _;
use kube::runtime::events::EventType;

use crate::explain::Explanations;
use crate::metrics::{Metrics, RevisionLabels};
use crate::notify::Notifier;

/// Events, logs and metrics.
pub(crate) struct Reporter {
    notifier: Notifier,
    metrics: Metrics,
    explanations: Explanations,
    told: BTreeMap<RevisionKey, Told>,
}

/// What was last told of one revision.
#[derive(Debug, Default)]
struct Told {
    target: Option<Counts>,
    shortage: Option<String>,
    is_asleep: bool,
}

impl Reporter {
    pub(crate) fn new(notifier: Notifier, metrics: Metrics, explanations: Explanations) -> Self {
        Self { notifier, metrics, explanations, told: BTreeMap::new() }
    }

    /// Tells of a decision; of what did not change, nothing is told.
    pub(crate) fn decided(&mut self, autoscaler: &PodAutoscaler, inputs: &Inputs, decision: &Decision) {
        let key = &decision.key;
        self.metrics.decisions.inc();
        let told = self.told.entry(key.clone()).or_default();
        let is_asleep =
            decision.status.condition(PodAutoscalerStatus::ACTIVE).is_some_and(|active| active.status == ConditionStatus::False);
        if told.is_asleep && !is_asleep {
            self.metrics.wakeups.inc();
        }
        told.is_asleep = is_asleep;
        if told.target.as_ref() != Some(&decision.target.pods) {
            let (demand, is_panicking) = (decision.count.stable_demand, decision.count.is_panicking);
            tracing::info!(revision = %key, target = ?decision.target.pods, demand, is_panicking, "placement");
            told.target = Some(decision.target.pods.clone());
        }
        let shortage = decision.target.shortage();
        if told.shortage != shortage {
            if let Some(shortage) = &shortage {
                let note: String = shortage.chars().take(LONGEST_NOTE).collect();
                self.notifier.about(&autoscaler.object_ref(&()), EventType::Warning, "NoRoom", note);
            }
            told.shortage = shortage;
        }
        let labels = RevisionLabels::from(key);
        if let Some(demand) = decision.count.stable_demand {
            self.metrics.demand.get_or_create(&labels).set(demand);
        }
        let wanted: u32 = decision.target.pods.values().sum();
        self.metrics.pods_wanted.get_or_create(&labels).set(i64::from(wanted));
        self.metrics.pods_ready.get_or_create(&labels).set(i64::from(decision.count.ready));
        self.explanations.set(inputs, decision);
    }

    /// The revision is not ours any more, or gone.
    pub(crate) fn forget(&mut self, key: &RevisionKey) {
        self.told.remove(key);
        self.metrics.forget(key);
        self.explanations.forget(key);
    }

    /// Something could not be decided or written; it is tried again.
    pub(crate) fn failed(&self, key: &RevisionKey, error: &(dyn std::error::Error + 'static)) {
        self.metrics.failures.inc();
        let cause = error.source().map(ToString::to_string);
        tracing::warn!(revision = %key, error, cause, "failed, and will be tried again");
    }

    /// The name of the revision's ServerlessService is taken by an object of somebody else.
    pub(crate) fn not_owned(&self, autoscaler: &PodAutoscaler, key: &RevisionKey) {
        let note = format!("ServerlessService {key} is not controlled by the PodAutoscaler");
        self.notifier.about(&autoscaler.object_ref(&()), EventType::Warning, "NotOwned", note);
    }

    /// The class changed hands.
    pub(crate) fn handed_back(&self, autoscaler: &PodAutoscaler, key: &RevisionKey, place: Where) {
        let way = match place {
            Where::PodAutoscaler => "",
            Where::Revision => ", by its annotations too",
        };
        let note = format!("{key} is the stock autoscaler's again{way}");
        self.notifier.about(&autoscaler.object_ref(&()), EventType::Normal, "HandedBack", note);
    }

    /// The class changed hands.
    pub(crate) fn taken_over(&self, autoscaler: &PodAutoscaler, key: &RevisionKey) {
        let note = format!("{key} is placed by latency again");
        self.notifier.about(&autoscaler.object_ref(&()), EventType::Normal, "TakenOver", note);
    }
}

/// The longest note of an event, in characters, that the API server takes.
const LONGEST_NOTE: usize = 1000;

/// Of a decision, whether somebody else's object is in the way.
pub(crate) fn is_not_owned(inputs: &Arc<autoscaler::Facts>) -> bool {
    inputs.sks.as_ref().is_some_and(|sks| !sks.is_owned)
}
