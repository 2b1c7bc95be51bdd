//! Events about Seikas.

use event_writer::EventWriter;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use crate::metrics::Metrics;

/// Writes events, and counts those that are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    events: EventWriter,
    metrics: Metrics,
}

impl Announcer {
    pub(crate) fn new(events: EventWriter, metrics: Metrics) -> Self {
        Self { events, metrics }
    }

    /// Something was done, first of all to the pod `first`. Events that differ in that are not
    /// taken for repetitions of each other.
    pub(crate) fn done(&self, about: &ObjectReference, reason: &str, action: &str, first: &str, note: String) {
        let pod = event_writer::pod(about.namespace.as_deref().unwrap_or_default(), first);
        self.announce(EventType::Normal, about, reason, action, Some(pod), note);
    }

    /// Something could not be done.
    pub(crate) fn warning(&self, about: &ObjectReference, reason: &str, action: &str, note: String) {
        self.announce(EventType::Warning, about, reason, action, None, note);
    }

    fn announce(
        &self,
        type_: EventType,
        about: &ObjectReference,
        reason: &str,
        action: &str,
        secondary: Option<ObjectReference>,
        note: String,
    ) {
        let event = Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary };
        if !self.events.write(about, event) {
            self.metrics.events_dropped.inc();
        }
    }
}
