//! Which Seikas are to be worked on, and since when they wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use crate::crd::MaybeSeika;
use crate::index::Owner;

/// Since when each waiting Seika waits, by namespace and name. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<(String, String), Instant>>>);

impl Waiting {
    /// This one waits; if it does already, since then.
    pub(crate) fn begins(&self, namespace: &str, name: &str) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry((namespace.to_owned(), name.to_owned())).or_insert_with(Instant::now);
    }

    /// It is worked on from now; how long it had to wait, where something other than its own timer had asked for it.
    pub(crate) fn ends(&self, namespace: &str, name: &str) -> Option<Duration> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&(namespace.to_owned(), name.to_owned())).map(|since| since.elapsed())
    }
}

/// Sends Seikas to be worked on.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<ObjectRef<MaybeSeika>>,
    waiting: Waiting,
}

impl Queue {
    /// A queue, and its other end.
    pub(crate) fn new(waiting: Waiting) -> (Self, mpsc::UnboundedReceiver<ObjectRef<MaybeSeika>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, waiting }, receiver)
    }

    /// This one is to be worked on.
    pub(crate) fn push(&self, owner: &Owner) {
        self.waiting.begins(&owner.namespace, &owner.name);
        // Nobody listens any more only when all of it is being stopped.
        let _ = self.sender.send(ObjectRef::new(&owner.name).within(&owner.namespace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
