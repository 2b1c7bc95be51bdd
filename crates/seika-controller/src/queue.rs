//! Which Seikas are to be worked on, and since when they wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;

use crate::index::Owner;
use k8s_api::seika::MaybeSeika;

/// Since when each waiting Seika waits, by namespace and name. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<(String, String), Instant>>>);

impl Waiting {
    /// This one waits; if it does already, since then.
    pub(crate) fn begins(&self, namespace: &str, name: &str) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry((namespace.to_owned(), name.to_owned())).or_insert_with(Instant::now);
    }

    /// It is worked on from now; how long it had to wait, where something other than its own timer
    /// had asked for it.
    pub(crate) fn ends(&self, namespace: &str, name: &str) -> Option<Duration> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&(namespace.to_owned(), name.to_owned())).map(|since| since.elapsed())
    }

    /// Only those of which `is_there` says yes are left.
    pub(crate) fn retain(&self, is_there: impl Fn(&str, &str) -> bool) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(namespace, name), _| is_there(namespace, name));
    }
}

/// Sends Seikas to be worked on.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<ObjectRef<MaybeSeika>>,
    waiting: Waiting,
    seikas: Store<MaybeSeika>,
}

impl Queue {
    /// A queue of Seikas out of `seikas`, and its other end.
    pub(crate) fn new(waiting: Waiting, seikas: Store<MaybeSeika>) -> (Self, mpsc::UnboundedReceiver<ObjectRef<MaybeSeika>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, waiting, seikas }, receiver)
    }

    /// This one is to be worked on. One that is not there (any more) is not: its pods go one by
    /// one, and each of them asks for it.
    pub(crate) fn push(&self, owner: &Owner) {
        let seika = ObjectRef::new(&owner.name).within(&owner.namespace);
        // In this order, for who forgets a Seika that goes meanwhile does so after it has left the
        // store.
        self.waiting.begins(&owner.namespace, &owner.name);
        if self.seikas.get(&seika).is_none() {
            self.waiting.ends(&owner.namespace, &owner.name);
            return;
        }
        // Nobody listens any more only when all of it is being stopped.
        let _ = self.sender.send(seika);
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher};

    use super::*;
    use k8s_api::seika::Seika;

    #[test]
    fn who_is_not_there_does_not_wait() {
        let (store, mut writer) = reflector::store::<MaybeSeika>();
        let waiting = Waiting::default();
        let (queue, mut queued) = Queue::new(waiting.clone(), store);
        let owner = Owner { uid: "uid".into(), namespace: "default".into(), name: "hello".into() };
        queue.push(&owner);
        assert!(waiting.0.lock().unwrap().is_empty() && queued.try_recv().is_err());

        let mut seika = Seika::new(&owner.name, Default::default());
        seika.metadata.namespace = Some(owner.namespace.clone());
        writer.apply_watcher_event(&watcher::Event::Apply(kube::core::DeserializeGuard(Ok(seika))));
        queue.push(&owner);
        assert_eq!(queued.try_recv().unwrap().name, "hello");
        waiting.retain(|_, name| name != "hello");
        assert!(waiting.0.lock().unwrap().is_empty());
    }

    #[test]
    fn waiting_counts_from_the_first_time_and_once() {
        let waiting = Waiting::default();
        waiting.begins("a", "b");
        std::thread::sleep(Duration::from_millis(2));
        waiting.begins("a", "b");
        assert!(waiting.ends("a", "b").is_some_and(|waited| waited >= Duration::from_millis(2)));
        assert_eq!(waiting.ends("a", "b"), None);
    }
}
