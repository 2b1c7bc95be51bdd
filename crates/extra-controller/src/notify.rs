//! Events that people see with `kubectl describe`. One that cannot be written is logged and
//! otherwise does no harm.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::EventType;
use kube::{Api, Client};
use tokio::sync::Semaphore;

/// Writes events. Every one is an object of its own: kube's recorder counts events of one reason
/// together and keeps the note of the first, so that people would read what held minutes ago.
#[derive(Clone)]
pub(crate) struct Notifier {
    client: Client,
    own_pod: ObjectReference,
    pending: Arc<Semaphore>,
}

/// What reports them.
const CONTROLLER: &str = "extra-controller";
/// Events on their way at most.
const MOST_PENDING: usize = 64;
/// How long writing one may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest note of an event, in characters, that the API server takes.
const LONGEST_NOTE: usize = 1000;

impl Notifier {
    /// As the instance `pod` in `namespace`.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let own_pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        };
        Self { client, own_pod, pending: Arc::new(Semaphore::new(MOST_PENDING)) }
    }

    /// Writes an event about an object, in the background: nobody waits for it.
    pub(crate) fn about(&self, object: &ObjectReference, type_: EventType, reason: &'static str, note: &str) {
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let (api, pending) = (Api::<Event>::namespaced(self.client.clone(), &namespace), self.pending.clone());
        let event = event(object, self.own_pod.name.clone(), type_, reason, note);
        // With so many events on their way, one more is of no use to anybody.
        let Ok(permit) = pending.try_acquire_owned() else { return };
        tokio::spawn(async move {
            match tokio::time::timeout(WRITE_TIMEOUT, api.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, reason, "failed to write an event"),
                Err(_) => tracing::warn!(reason, "failed to write an event: no answer"),
            }
            drop(permit);
        });
    }

    /// Writes an event about this program, on its own pod.
    pub(crate) fn about_self(&self, type_: EventType, reason: &'static str, note: &str) {
        self.about(&self.own_pod, type_, reason, note);
    }
}

fn event(object: &ObjectReference, instance: Option<String>, type_: EventType, reason: &str, note: &str) -> Event {
    let now = Timestamp::now();
    let name = format!("{}.{:x}", object.name.as_deref().unwrap_or(CONTROLLER), now.as_nanosecond());
    Event {
        action: Some(reason.to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(object.clone()),
        note: Some(note.chars().take(LONGEST_NOTE).collect()),
        metadata: ObjectMeta { namespace: object.namespace.clone(), name: Some(name), ..ObjectMeta::default() },
        reason: Some(reason.to_owned()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.unwrap_or_else(|| CONTROLLER.to_owned())),
        type_: Some(if matches!(type_, EventType::Warning) { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_events_of_one_reason_have_their_own_notes() {
        let object = ObjectReference { name: Some("hello-00001".to_owned()), ..ObjectReference::default() };
        let one = event(&object, None, EventType::Warning, "NoRoom", "1 pod found no node");
        let two = event(&object, None, EventType::Warning, "NoRoom", &"2 pods".repeat(1000));
        assert_eq!((one.note.as_deref(), two.note.unwrap().len()), (Some("1 pod found no node"), LONGEST_NOTE));
        assert_ne!(one.metadata.name, two.metadata.name);
    }
}
