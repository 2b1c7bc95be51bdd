//! Events about Seikas, published beside the work and never in its way.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// How many may wait. Events are a courtesy: where the API server is too slow for them, they are
/// dropped and counted.
const WAITING_MAX: usize = 256;
const NOTE_LENGTH_MAX: usize = 1000;

/// Takes events.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    waiting: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Metrics,
}

impl Announcer {
    /// An announcer, and what publishes for it as long as it is polled.
    pub(crate) fn new(client: Client, instance: Option<String>, metrics: Metrics) -> (Self, impl Future<Output = ()> + Send) {
        let (waiting, mut received) = mpsc::channel::<(Event, ObjectReference)>(WAITING_MAX);
        let recorder = Recorder::new(client, Reporter { controller: "seika-controller".into(), instance });
        let publish = async move {
            while let Some((event, about)) = received.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        reason = event.reason,
                        "failed to publish an event"
                    );
                }
            }
        };
        (Self { waiting, metrics }, publish)
    }

    /// Something was done, first of all to the pod `first`. Events that differ in that are not
    /// taken for repetitions of each other.
    pub(crate) fn done(&self, about: &ObjectReference, reason: &str, action: &str, first: &str, note: String) {
        let pod = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: about.namespace.clone(),
            name: Some(first.into()),
            ..ObjectReference::default()
        };
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
        mut note: String,
    ) {
        if let Some((end, _)) = note.char_indices().find(|(index, _)| *index >= NOTE_LENGTH_MAX) {
            note.truncate(end);
        }
        let event = Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary };
        if self.waiting.try_send((event, about.clone())).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}
