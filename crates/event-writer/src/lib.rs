//! Kubernetes events of a daemon, for people who use `kubectl describe`.
//!
//! Events are a courtesy: they are written beside the work. Where the API server is too slow for
//! them they are dropped, and a failure to write one is logged and does no other harm.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as events_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use tokio::sync::mpsc;

/// Events that may wait to be written.
const QUEUE_LENGTH: usize = 256;
/// How long the API server may take to answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest note that the API server accepts, in bytes.
const NOTE_BYTES: usize = 1024;

/// What becomes of an event that repeats an earlier one: one of the same reason and action about
/// the same objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// The earlier event counts it and keeps its own note.
    Counted,
    /// It is an event of its own, with its own note.
    Separate,
}

/// Takes the events of a daemon. Clones share one queue.
#[derive(Clone, Debug)]
pub struct EventWriter {
    queue: mpsc::Sender<(ObjectReference, Event)>,
    own_pod: ObjectReference,
}

impl EventWriter {
    /// A writer for the daemon `controller` in the pod `own_pod`, and the task that writes to the
    /// API server for as long as it is polled. Without a client, for a daemon that must not write,
    /// events are logged.
    pub fn new(
        client: Option<Client>,
        controller: &str,
        own_pod: ObjectReference,
        repeats: Repeats,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, mut queued) = mpsc::channel(QUEUE_LENGTH);
        let reporter = Reporter { controller: controller.to_owned(), instance: own_pod.name.clone() };
        let recorder = client.clone().map(|client| Recorder::new(client, reporter.clone()));
        let write = async move {
            while let Some((about, event)) = queued.recv().await {
                let written = async {
                    match (&client, &recorder, repeats) {
                        (Some(client), _, Repeats::Separate) => create(client, &reporter, &about, &event).await,
                        (_, Some(recorder), Repeats::Counted) => recorder.publish(&event, &about).await,
                        _ => {
                            tracing::info!(object = about.name, reason = event.reason, note = event.note, "event");
                            Ok(())
                        }
                    }
                };
                match tokio::time::timeout(WRITE_TIMEOUT, written).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, reason = event.reason, "failed to write an event");
                    }
                    Err(_) => tracing::warn!(reason = event.reason, "failed to write an event: no answer"),
                }
            }
        };
        (Self { queue, own_pod }, write)
    }

    /// Queues an event about an object. Returns false if the queue is full and the event dropped.
    pub fn write(&self, about: &ObjectReference, mut event: Event) -> bool {
        event.note = event.note.map(cut);
        self.queue.try_send((about.clone(), event)).is_ok()
    }

    /// Queues an event about an object whose action has the name of its reason.
    pub fn about(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) -> bool {
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        self.write(object, event)
    }

    /// Queues an event about this daemon, on its own pod.
    pub fn about_self(&self, type_: EventType, reason: &str, note: String) -> bool {
        self.about(&self.own_pod, type_, reason, note)
    }
}

fn cut(mut note: String) -> String {
    let ends = note.char_indices().map(|(start, character)| start + character.len_utf8());
    note.truncate(ends.take_while(|end| *end <= NOTE_BYTES).last().unwrap_or(0));
    note
}

/// The pod `name` as the object of an event.
#[must_use]
pub fn pod(namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

async fn create(client: &Client, reporter: &Reporter, about: &ObjectReference, event: &Event) -> Result<(), kube::Error> {
    let event = object(reporter, about, event, Timestamp::now());
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await.map(|_| ())
}

fn object(reporter: &Reporter, about: &ObjectReference, event: &Event, now: Timestamp) -> events_v1::Event {
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or(&reporter.controller), now.as_nanosecond());
    let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let type_ = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    events_v1::Event {
        action: Some(event.action.clone()),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
        note: event.note.clone(),
        reason: Some(event.reason.clone()),
        regarding: Some(about.clone()),
        related: event.secondary.clone(),
        reporting_controller: Some(reporter.controller.clone()),
        reporting_instance: Some(reporter.instance.clone().unwrap_or_else(|| reporter.controller.clone())),
        type_: Some(type_.to_owned()),
        ..events_v1::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    /// A client of an API server that is not there.
    fn client() -> Client {
        Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap()
    }

    fn event(note: &str) -> Event {
        Event {
            type_: EventType::Warning,
            reason: "NoRoom".to_owned(),
            note: Some(note.to_owned()),
            action: "Place".to_owned(),
            secondary: None,
        }
    }

    #[test]
    fn separate_events_of_one_reason_have_their_own_names_and_notes() {
        let reporter = Reporter { controller: "extra-controller".to_owned(), instance: None };
        let about = ObjectReference { name: Some("hello-00001".to_owned()), ..ObjectReference::default() };
        let at = |nanoseconds| Timestamp::from_nanosecond(nanoseconds).unwrap();
        let one = object(&reporter, &about, &event("1 pod found no node"), at(1));
        let two = object(&reporter, &about, &event("2 pods found no node"), at(2));
        assert_eq!((one.note.as_deref(), two.note.as_deref()), (Some("1 pod found no node"), Some("2 pods found no node")));
        assert_eq!(one.type_.as_deref(), Some("Warning"));
        assert_ne!(one.metadata.name, two.metadata.name);
    }

    #[tokio::test]
    async fn notes_are_cut_to_what_the_api_server_accepts() {
        let (queue, mut queued) = mpsc::channel(1);
        let writer = EventWriter { queue, own_pod: ObjectReference::default() };
        assert!(writer.about_self(EventType::Normal, "TakenOver", format!("-{}", "é".repeat(NOTE_BYTES))));
        let (_, event) = queued.recv().await.unwrap();
        assert_eq!(event.note, Some(format!("-{}", "é".repeat(NOTE_BYTES / 2 - 1))));
    }

    #[tokio::test]
    async fn a_full_queue_drops_events_and_says_so() {
        let (writer, _write) = EventWriter::new(Some(client()), "extra-controller", pod("default", "own"), Repeats::Separate);
        for _ in 0..QUEUE_LENGTH {
            assert!(writer.about_self(EventType::Normal, "TakenOver", String::new()));
        }
        assert!(!writer.about_self(EventType::Normal, "TakenOver", String::new()));
    }
}
