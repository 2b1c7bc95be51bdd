//! Events that people see with `kubectl describe`. One that cannot be written is logged and otherwise does no harm.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Semaphore;

/// Writes events.
#[derive(Clone)]
pub(crate) struct Notifier {
    recorder: Recorder,
    own_pod: ObjectReference,
    pending: Arc<Semaphore>,
}

/// Events on their way at most.
const MOST_PENDING: usize = 64;
/// How long writing one may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

impl Notifier {
    /// As the instance `pod` in `namespace`.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let reporter = Reporter { controller: "extra-controller".to_owned(), instance: Some(pod.to_owned()) };
        let own_pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder: Recorder::new(client, reporter), own_pod, pending: Arc::new(Semaphore::new(MOST_PENDING)) }
    }

    /// Writes an event about an object, in the background: nobody waits for it.
    pub(crate) fn about(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        let (recorder, object, pending) = (self.recorder.clone(), object.clone(), self.pending.clone());
        // With so many events on their way, one more is of no use to anybody.
        let Ok(permit) = pending.try_acquire_owned() else { return };
        tokio::spawn(async move {
            match tokio::time::timeout(WRITE_TIMEOUT, recorder.publish(&event, &object)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "failed to write an event"),
                Err(_) => tracing::warn!(reason = event.reason, "failed to write an event: no answer"),
            }
            drop(permit);
        });
    }

    /// Writes an event about this program, on its own pod.
    pub(crate) fn about_self(&self, type_: EventType, reason: &str, note: String) {
        self.about(&self.own_pod, type_, reason, note);
    }
}
