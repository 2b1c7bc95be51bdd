//! What all passes share, and what is remembered of each Seika between passes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::announce::Announcer;
use crate::backoff::Backoffs;
use crate::index::Owner;
use crate::metrics::Metrics;
use crate::observed::{Nodes, PodView};
use crate::ownership::Attempts;
use crate::plan::{DesiredPods, ObservedPods};
use crate::queue::Waiting;
use crate::status::Trouble;
use crate::writes::Writer;
use k8s_api::seika::{MaybeSeika, SeikaStatus};

use super::valid::Valid;

/// What is remembered of a Seika between passes.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) written: Option<(SeikaStatus, Instant)>,
    /// Names that others hold, and since when they are known to.
    pub(super) taken: HashMap<String, Instant>,
    /// Nodes for which pods were refused lately. They are asked for last, so that they hold up no
    /// other node.
    pub(super) refused_nodes: HashSet<String>,
    pub(super) failures_in_a_row: u32,
    /// What went wrong with creating and deleting pods.
    pub(super) trouble: Option<Trouble>,
    /// The revision whose template is known to be kept.
    pub(super) recorded: Option<String>,
    /// The total that was written last, and to which generation.
    pub(super) total: Option<(i32, Option<i64>)>,
    pub(super) attempts: Attempts,
}

/// What all passes share.
pub(crate) struct Context {
    pub(crate) writer: Writer,
    pub(crate) nodes: Arc<RwLock<Nodes>>,
    pub(crate) seikas: Store<MaybeSeika>,
    pub(crate) waiting: Waiting,
    pub(crate) announcer: Announcer,
    pub(crate) metrics: Metrics,
    backoffs: Mutex<Backoffs>,
    books: Mutex<HashMap<String, Book>>,
}

impl Context {
    pub(crate) fn new(
        writer: Writer,
        nodes: Arc<RwLock<Nodes>>,
        seikas: Store<MaybeSeika>,
        waiting: Waiting,
        announcer: Announcer,
        metrics: Metrics,
    ) -> Self {
        Self { writer, nodes, seikas, waiting, announcer, metrics, backoffs: Mutex::default(), books: Mutex::default() }
    }

    /// The Seika is no more.
    pub(crate) fn forget(&self, owner: &Owner) {
        self.writer.index.lock().forget(owner);
        self.waiting.ends(&owner.namespace, &owner.name);
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).forget(&owner.uid);
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner.uid);
    }

    /// Also forgets Seikas that were deleted while the watch was down.
    pub(crate) fn forget_all_but_stored(&self) {
        let there = self.seikas.state();
        let stored: HashSet<String> = there.iter().filter_map(|seika| seika.uid()).collect();
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid| stored.contains(uid));
        self.books.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| stored.contains(uid));
        let named: HashSet<_> = there.iter().map(|seika| (seika.namespace().unwrap_or_default(), seika.name_any())).collect();
        self.waiting.retain(|namespace, name| named.contains(&(namespace.to_owned(), name.to_owned())));
    }

    /// A pass over this Seika begins.
    pub(super) fn open_book(&self, owner: &Owner) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).entry(owner.uid.clone()).or_default();
    }

    /// The pass has ended. Where the Seika went meanwhile it was forgotten already, and what the
    /// pass has noted since goes, too.
    pub(super) fn pass_ends(&self, owner: &Owner) {
        let stored = self.seikas.get(&ObjectRef::new(&owner.name).within(&owner.namespace));
        if stored.is_none_or(|stored| stored.uid().as_deref() != Some(&owner.uid)) {
            self.writer.index.lock().forget(owner);
            self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).forget(&owner.uid);
            self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner.uid);
        }
    }

    /// Reads or changes what is remembered. Of a Seika that was forgotten, nothing is.
    pub(super) fn with_book<T>(&self, owner: &Owner, read_or_write: impl FnOnce(&mut Book) -> T) -> T {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        match books.get_mut(&owner.uid) {
            Some(book) => read_or_write(book),
            None => read_or_write(&mut Book::default()),
        }
    }

    /// Shows `decide` what is asked and seen now.
    pub(super) fn look<T>(&self, valid: &Valid<'_>, decide: impl FnOnce(&DesiredPods<'_>, &ObservedPods<'_>) -> T) -> T {
        let picture = self.writer.index.lock().picture(&valid.owner);
        let taken: HashSet<String> = self.with_book(&valid.owner, |book| book.taken.keys().cloned().collect());
        let now = Timestamp::now();
        let pods = picture.pods.iter().map(|pod| -> &PodView { pod });
        let held = self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).observe(&valid.owner.uid, pods, now);
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        decide(&valid.asked(), &ObservedPods { nodes: &nodes, picture: &picture, taken: &taken, held: &held, now })
    }
}

#[cfg(test)]
mod tests {
    use event_writer::{EventWriter, Repeats};
    use k8s_openapi::api::core::v1::ObjectReference;
    use kube::core::DeserializeGuard;
    use kube::runtime::{reflector, watcher};
    use kube::{Client, Config};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::index::CreateEnd;
    use crate::pace::WritePace;
    use crate::writes::SharedIndex;
    use k8s_api::seika::Seika;

    fn seika(uid: &str) -> MaybeSeika {
        let mut seika = Seika::new("hello", Default::default());
        (seika.metadata.namespace, seika.metadata.uid) = (Some("default".into()), Some(uid.into()));
        DeserializeGuard(Ok(seika))
    }

    fn owner(uid: &str) -> Owner {
        Owner { uid: uid.into(), namespace: "default".into(), name: "hello".into() }
    }

    impl Context {
        fn remembers(&self, owner: &Owner) -> bool {
            let waits = self.waiting.ends(&owner.namespace, &owner.name).is_some();
            let in_doubt = self.writer.index.lock().is_ahead_of_watch(owner);
            waits || in_doubt || self.books.lock().unwrap().contains_key(&owner.uid)
        }
    }

    #[tokio::test]
    async fn a_pass_that_outlives_its_seika_leaves_nothing() {
        let metrics = Metrics::new(&mut Registry::default());
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let index = SharedIndex::default();
        let pace = WritePace::new(1, None);
        let writer = Writer { client, index: index.clone(), metrics: metrics.clone(), at_once: 1, pace };
        let (events, _write) = EventWriter::new(None, "seika-controller", ObjectReference::default(), Repeats::Counted);
        let announcer = Announcer::new(events, metrics.clone());
        let (store, mut stored) = reflector::store::<MaybeSeika>();
        let context = Context::new(writer, Arc::default(), store, Waiting::default(), announcer, metrics);

        stored.apply_watcher_event(&watcher::Event::Apply(seika("first")));
        let first = owner("first");
        context.open_book(&first);
        context.pass_ends(&first);
        context.with_book(&first, |book| book.failures_in_a_row = 1);
        assert_eq!(context.with_book(&first, |book| book.failures_in_a_row), 1, "the book is kept while the Seika is there");

        context.open_book(&first);
        context.waiting.begins(&first.namespace, &first.name);
        stored.apply_watcher_event(&watcher::Event::Delete(seika("first")));
        context.forget(&first);
        // What the pass was at when the Seika went.
        index.lock().create_begins(&first, "hello-node1-x", "node1", "rev");
        index.lock().create_ends(&first, "hello-node1-x", &CreateEnd::Unknown);
        context.with_book(&first, |book| book.failures_in_a_row += 1);
        context.pass_ends(&first);
        context.with_book(&first, |book| book.failures_in_a_row += 1);
        assert!(!context.remembers(&first));

        // One of the same name is another one.
        stored.apply_watcher_event(&watcher::Event::Apply(seika("second")));
        context.open_book(&first);
        context.pass_ends(&first);
        assert!(!context.remembers(&first));
    }
}
