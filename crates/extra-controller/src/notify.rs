//! Events that people see with `kubectl describe`. One that cannot be written is logged and otherwise does no harm.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Writes events.
#[derive(Clone)]
pub struct Notifier {
    recorder: Recorder,
    own_pod: ObjectReference,
}

impl Notifier {
    /// As the instance `pod` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let reporter = Reporter { controller: "extra-controller".to_owned(), instance: Some(pod.to_owned()) };
        let own_pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder: Recorder::new(client, reporter), own_pod }
    }

    /// Something about an object.
    pub async fn about(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(%error, reason, "event could not be written");
        }
    }

    /// Something about this program, told of its own pod.
    pub async fn about_self(&self, type_: EventType, reason: &str, note: String) {
        self.about(&self.own_pod, type_, reason, note).await;
    }
}
