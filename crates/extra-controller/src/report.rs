//! Reports decisions: events and logs on change, metrics, explanations.

use std::collections::BTreeMap;
use std::sync::Arc;

use autoscaler::handback::Where;
use autoscaler::rollout::Counts;
use autoscaler::{Decision, Inputs, Picture};
use event_writer::EventWriter;
use gateway_link::RevisionKey;
use k8s_api::{ConditionStatus, PodAutoscaler, PodAutoscalerStatus};
use kube::Resource as _;
use kube::runtime::events::EventType;
use placement::plan::Verdict;

use crate::explain::Explanations;
use crate::metrics::{Metrics, RevisionLabels};

/// Events, logs and metrics.
pub(crate) struct Reporter {
    events: EventWriter,
    metrics: Metrics,
    explanations: Explanations,
    last_reports: BTreeMap<RevisionKey, Reported>,
}

/// The last report about one revision.
#[derive(Debug, Default)]
struct Reported {
    target: Option<Counts>,
    shortage: Option<String>,
    problems: Vec<String>,
    /// What blocks the goal for the response time.
    blocked: Option<String>,
    /// Which wishes were not met: zones, share.
    unmet: (bool, bool),
    is_asleep: bool,
    is_known: bool,
}

/// An event to write: its reason and its note.
type News = (&'static str, String);

impl Reported {
    /// The warnings of this decision that were not reported before.
    fn news(&mut self, inputs: &Inputs, decision: &Decision) -> Vec<News> {
        let facts = &inputs.facts;
        let mut news = Vec::new();
        let problems = &facts.settings.problems;
        if self.problems != *problems {
            // If the status has this generation, the leader before reported it.
            let was_reported = !self.is_known && facts.status.observed_generation == facts.generation;
            if !problems.is_empty() && !was_reported {
                news.push(("BadSettings", problems.join("; ")));
            }
            self.problems.clone_from(problems);
        }
        let shortage = decision.target.shortage();
        if self.shortage != shortage {
            news.extend(shortage.iter().map(|shortage| ("NoRoom", shortage.clone())));
            self.shortage = shortage;
        }
        let unmet = (decision.target.zones_missing.is_some(), decision.target.share_missed.is_some());
        if self.unmet != unmet {
            let words = decision.target.unmet_wishes();
            news.extend((!words.is_empty()).then(|| ("WishNotMet", words.join("; "))));
            self.unmet = unmet;
        }
        // Without steady demand it is unknown, and the last report holds.
        if let Some(goal) = &decision.goal {
            let blocked = goal.blocked_by();
            if self.blocked != blocked {
                news.extend(blocked.iter().map(|why| ("GoalOutOfReach", why.clone())));
                self.blocked = blocked;
            }
        }
        self.is_known = true;
        news
    }
}

impl Reporter {
    pub(crate) fn new(events: EventWriter, metrics: Metrics, explanations: Explanations) -> Self {
        Self { events, metrics, explanations, last_reports: BTreeMap::new() }
    }

    /// What revisions are placed on.
    pub(crate) fn surroundings(&self, picture: &Picture) {
        self.explanations.set_surroundings(picture);
    }

    /// Reports a decision, as far as it differs from the last one.
    pub(crate) fn decided(&mut self, autoscaler: &PodAutoscaler, inputs: &Inputs, decision: &Decision) {
        let key = &decision.key;
        self.metrics.decisions.inc();
        let last = self.last_reports.entry(key.clone()).or_default();
        let is_asleep =
            decision.status.condition(PodAutoscalerStatus::ACTIVE).is_some_and(|active| active.status == ConditionStatus::False);
        if last.is_asleep && !is_asleep {
            self.metrics.wakeups.inc();
        }
        last.is_asleep = is_asleep;
        if last.target.as_ref() != Some(&decision.target.pods) {
            let (demand, is_panicking) = (decision.count.stable_demand, decision.count.is_panicking);
            tracing::info!(revision = %key, target = ?decision.target.pods, demand, is_panicking, "placement");
            let moved = matches!(decision.target.verdict, Some(Verdict::Moved | Verdict::MovedPartly | Verdict::Forced));
            if moved && last.target.is_some() {
                self.metrics.moves.inc();
            }
            last.target = Some(decision.target.pods.clone());
        }
        for (reason, note) in last.news(inputs, decision) {
            self.events.about(&autoscaler.object_ref(&()), EventType::Warning, reason, note);
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

    /// The revision is gone or has another class.
    pub(crate) fn forget(&mut self, key: &RevisionKey) {
        self.last_reports.remove(key);
        self.metrics.forget(key);
        self.explanations.forget(key);
    }

    /// A decision or its writes failed and are retried.
    pub(crate) fn failed(&self, key: &RevisionKey, error: &(dyn std::error::Error + 'static)) {
        self.metrics.failures.inc();
        let cause = error.source().map(ToString::to_string);
        tracing::warn!(revision = %key, error, cause, "failed to reconcile a revision, retrying");
    }

    /// The name of the revision's ServerlessService is taken by an object of another owner.
    pub(crate) fn not_owned(&self, autoscaler: &PodAutoscaler, key: &RevisionKey) {
        let note = format!("ServerlessService {key} is not controlled by the PodAutoscaler");
        self.events.about(&autoscaler.object_ref(&()), EventType::Warning, "NotOwned", note);
    }

    /// The class changed hands.
    pub(crate) fn handed_back(&self, autoscaler: &PodAutoscaler, key: &RevisionKey, place: Where) {
        let way = match place {
            Where::PodAutoscaler => "",
            Where::Revision => ", by its annotations too",
        };
        let note = format!("{key} is handed back to the stock autoscaler{way}");
        self.events.about(&autoscaler.object_ref(&()), EventType::Normal, "HandedBack", note);
    }

    /// The class changed hands.
    pub(crate) fn taken_over(&self, autoscaler: &PodAutoscaler, key: &RevisionKey) {
        let note = format!("{key} is taken over from the stock autoscaler");
        self.events.about(&autoscaler.object_ref(&()), EventType::Normal, "TakenOver", note);
    }
}

/// Whether the name of the ServerlessService is taken by an object of another owner.
pub(crate) fn is_not_owned(inputs: &Arc<autoscaler::Facts>) -> bool {
    inputs.sks.as_ref().is_some_and(|sks| !sks.is_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{decision, inputs};

    #[test]
    fn wrong_annotations_are_told_once_and_again_when_they_change() {
        let (mut last, decision) = (Reported::default(), decision());
        let mut inputs = inputs(&[("autoscaling.knative.dev/metric", "cpu")]);
        let news = last.news(&inputs, &decision);
        assert_eq!(news[0].0, "BadSettings");
        assert!(news[0].1.contains("concurrency is counted") && news.len() == 1, "{news:?}");
        assert_eq!(last.news(&inputs, &decision), []);
        inputs = crate::testing::inputs(&[("autoscaling.knative.dev/target", "many")]);
        assert!(last.news(&inputs, &decision)[0].1.contains("many"));
        inputs = crate::testing::inputs(&[]);
        assert_eq!(last.news(&inputs, &decision), []);
    }

    #[test]
    fn a_change_of_leader_tells_nothing_again() {
        let mut inputs = inputs(&[("autoscaling.knative.dev/metric", "cpu")]);
        let facts = Arc::make_mut(&mut inputs.facts);
        facts.status.observed_generation = facts.generation;
        assert_eq!(Reported::default().news(&inputs, &decision()), []);
    }
}
