//! Events about Ingresses, for users of kubectl.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::objects::ObjectName;

/// How long the API server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Writer of events.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events from the pod `instance`.
    #[must_use]
    pub(crate) fn new(client: Client, instance: Option<String>) -> Self {
        Self { recorder: Recorder::new(client, Reporter { controller: "locality-ingress".into(), instance }) }
    }

    /// Writes a warning about the Ingress `name`. A failure is only logged.
    pub(crate) async fn warn(&self, name: &ObjectName, uid: &str, reason: &str, note: &str) {
        let about = ObjectReference {
            api_version: Some("networking.internal.knative.dev/v1alpha1".to_owned()),
            kind: Some("Ingress".to_owned()),
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        // The API server accepts notes of up to 1,024 bytes.
        let note: String = note.chars().take(1000).collect();
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Route".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(ANSWER_WITHIN, self.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(ingress = %name, %error, reason, "failed to write an event"),
            Err(_) => tracing::warn!(ingress = %name, reason, "failed to write an event: no answer"),
        }
    }
}
