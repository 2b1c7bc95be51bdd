//! Events, metrics and logs.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_writer::EventWriter;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::EventType;
use latency_source::Reading;

use crate::configuration::Fault;
use crate::metrics::{FaultLabels, Metrics, RequestLabels, VerbLabels};
use crate::verbs::{News, Outcome, Said, Verb};

/// Events whose repetition is noticed.
const MOST_REMEMBERED: usize = 4_096;

/// Says what happened. Clones share what was said.
#[derive(Clone)]
pub(crate) struct Reporter {
    events: Option<Events>,
    metrics: Metrics,
    said: Arc<Mutex<Remembered>>,
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events {
    /// Writes them.
    pub(crate) writer: EventWriter,
    /// Whether each pod gets one that tells its scores.
    pub(crate) tell_scores: bool,
}

/// The last events, so that a pod that is tried again and again has each once.
struct Remembered {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Reporter {
    /// Without `events` there are none.
    pub(crate) fn new(events: Option<Events>, metrics: Metrics) -> Self {
        let said = Remembered { hasher: RandomState::new(), known: HashSet::new(), order: VecDeque::new() };
        Self { events, metrics, said: Arc::new(Mutex::new(said)) }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, verb: Verb, outcome: Outcome, took: Duration) {
        let labels = RequestLabels { verb: verb.name(), outcome: outcome.name() };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics.request_seconds.get_or_create(&VerbLabels { verb: verb.name() }).observe(took.as_secs_f64());
    }

    /// A fault of the scheduler's configuration was noticed.
    pub(crate) fn fault(&self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.metrics.configuration_faults.get_or_create(&FaultLabels { fault: fault.name() }).set(1);
            tracing::warn!(fault = fault.name(), remedy = fault.remedy(), "the scheduler's configuration does not fit");
        }
    }

    /// Something is to be said of a pod.
    pub(crate) fn news(&self, news: &News) {
        let Some(events) = &self.events else { return };
        let (type_, reason, note) = match &news.what {
            Said::Scored(_) if !events.tell_scores => return,
            // Scores change from one try to the next; the first says enough.
            Said::Scored(summary) => (EventType::Normal, "NodesScored", summary.clone()),
            Said::Bad(bad) => {
                let notes: Vec<String> = bad.iter().map(ToString::to_string).collect();
                (EventType::Warning, "BadAnnotations", format!("nodes are not scored: {}", notes.join(". ")))
            }
        };
        let told = if type_ == EventType::Normal { "" } else { &note };
        if self.is_new((news.uid.as_str(), reason, told)) {
            let about = ObjectReference { uid: Some(news.uid.clone()), ..event_writer::pod(&news.namespace, &news.pod) };
            events.writer.about(&about, type_, reason, note);
        }
    }

    /// Latency was read.
    pub(crate) fn latency(&self, reading: &Reading) {
        self.metrics.latency_age_seconds.set(reading.silent_for.as_secs_f64());
        self.metrics.latency_pairs_known.set(i64::try_from(reading.counts.known).unwrap_or(i64::MAX));
        self.metrics.latency_pairs_unknown.set(i64::try_from(reading.counts.unknown).unwrap_or(i64::MAX));
        for change in &reading.changes {
            let type_ = if change.is_good() { EventType::Normal } else { EventType::Warning };
            if let Some(events) = &self.events {
                events.writer.about_self(type_, change.reason(), change.to_string());
            }
        }
    }

    fn is_new(&self, what: (&str, &str, &str)) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = said.hasher.hash_one(what);
        if !said.known.insert(hash) {
            return false;
        }
        said.order.push_back(hash);
        if said.order.len() > MOST_REMEMBERED
            && let Some(oldest) = said.order.pop_front()
        {
            said.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_was_said_is_said_once_and_memory_is_bounded() {
        let reporter = Reporter::new(None, Metrics::register(&mut Registry::default()));
        assert!(reporter.is_new(("u1", "NodesScored", "")) && !reporter.is_new(("u1", "NodesScored", "")));
        assert!(reporter.is_new(("u1", "BadAnnotations", "one")) && reporter.is_new(("u1", "BadAnnotations", "two")));
        for number in 0..2 * MOST_REMEMBERED {
            reporter.is_new((&number.to_string(), "", ""));
        }
        let said = reporter.said.lock().unwrap();
        assert_eq!((said.known.len(), said.order.len()), (MOST_REMEMBERED, MOST_REMEMBERED));
    }
}
