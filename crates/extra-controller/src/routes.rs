//! The routes as decided last, for everyone who follows them: the ingress by a stream, people by
//! the weights API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use autoscaler::Routes;
use gateway_link::{Event, RevisionKey, RouteStreamError};
use latency_matrix::NodeName;
use tokio::sync::broadcast;

/// The routes of one revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteEntry {
    /// The Knative Service that the revision belongs to; empty where Knative does not say.
    pub(crate) service: String,
    /// Its routes; `None` while no pod is ready.
    pub(crate) routes: Option<Arc<Routes>>,
}

/// A follower that falls this many changes behind starts again from a snapshot.
const BACKLOG: usize = 1024;

/// All routes. The tick writes them, the API reads them.
#[derive(Debug)]
pub(crate) struct RouteBook {
    state: Mutex<State>,
    changes: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Whether every revision was decided on at least once. Before that a snapshot would make
    /// followers forget good routes.
    complete: bool,
    entries: BTreeMap<RevisionKey, RouteEntry>,
    nodes: Vec<NodeName>,
    /// The nodes that traffic is routed to, as of a version.
    serving: Option<(u64, BTreeSet<NodeName>)>,
}

impl Default for RouteBook {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: broadcast::channel(BACKLOG).0 }
    }
}

impl RouteBook {
    /// Sets the entry of `key`. Followers get an update only if the routes changed.
    ///
    /// # Errors
    /// Where a row of the weights does not sum to 100.
    pub(crate) fn set(&self, key: &RevisionKey, entry: RouteEntry) -> Result<(), RouteStreamError> {
        let is_same = self.with(|state| {
            let before = state.entries.get(key).map(|before| &before.routes);
            let is_same = before.map_or(entry.routes.is_none(), |before| is_same(before.as_ref(), entry.routes.as_ref()));
            if is_same {
                state.entries.insert(key.clone(), entry.clone());
            }
            is_same
        });
        if is_same {
            return Ok(());
        }
        let wire = entry.routes.as_ref().map(|routes| routes.to_wire(key)).transpose()?;
        self.with(|state| {
            state.entries.insert(key.clone(), entry);
            state.version += 1;
            let (routes, removed) = match wire {
                Some(routes) => (vec![routes], vec![]),
                None => (vec![], vec![key.clone()]),
            };
            // No follower is no error.
            let _ = self.changes.send(Event::Update { version: state.version, routes, removed });
        });
        Ok(())
    }

    /// There is no such revision (of ours) any more.
    pub(crate) fn remove(&self, key: &RevisionKey) {
        self.with(|state| {
            if state.entries.remove(key).is_some_and(|entry| entry.routes.is_some()) {
                state.version += 1;
                let _ = self.changes.send(Event::Update { version: state.version, routes: vec![], removed: vec![key.clone()] });
            }
        });
    }

    /// Tells which nodes there are, in name order, and which revisions: others are forgotten.
    pub(crate) fn retain(&self, nodes: Vec<NodeName>, revisions: &BTreeSet<RevisionKey>) {
        let gone: Vec<RevisionKey> = self.with(|state| {
            state.nodes = nodes;
            state.entries.keys().filter(|key| !revisions.contains(key)).cloned().collect()
        });
        for key in &gone {
            self.remove(key);
        }
    }

    /// Every revision was decided on: followers may take a snapshot for the whole.
    pub(crate) fn complete(&self) {
        self.with(|state| state.complete = true);
    }

    /// This instance leads no more: its routes are dropped.
    pub(crate) fn reset(&self) {
        self.with(|state| {
            let version = state.version;
            *state = State { version, ..State::default() };
        });
    }

    /// A snapshot in its parts and all changes after it; `None` before the first complete set of
    /// routes.
    #[must_use]
    pub(crate) fn follow(&self) -> Option<(Vec<Event>, broadcast::Receiver<Event>)> {
        self.with(|state| state.complete.then(|| (state.snapshot(), self.changes.subscribe())))
    }

    /// The version of the last change.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.with(|state| state.version)
    }

    /// Whether the routes are complete; false on an instance that does not lead.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.with(|state| state.complete)
    }

    /// The weights of the revision that the two names mean, rows and columns in name order of the
    /// nodes. `kodomo` is a revision or a Knative Service, `okasan` its Service or its namespace.
    /// Identity where no pod of it runs, `None` where there is no such revision.
    #[must_use]
    pub(crate) fn weights(&self, okasan: &str, kodomo: &str) -> Option<Vec<Vec<u32>>> {
        self.with(|state| {
            let entry = names(&state.entries, okasan, kodomo)?;
            let identity = || Routes::identity(&state.nodes).to_matrix();
            Some(entry.routes.as_ref().map_or_else(identity, |routes| routes.to_matrix()))
        })
    }

    /// Nodes that any traffic is routed to.
    #[must_use]
    pub(crate) fn serving(&self) -> BTreeSet<NodeName> {
        self.with(|state| {
            if let Some((_, serving)) = state.serving.as_ref().filter(|(version, _)| *version == state.version) {
                return serving.clone();
            }
            let routes = state.entries.values().filter_map(|entry| entry.routes.as_ref());
            let nodes: BTreeSet<&NodeName> = routes.flat_map(|routes| routes.serving()).collect();
            let serving: BTreeSet<NodeName> = nodes.into_iter().cloned().collect();
            state.serving = Some((state.version, serving.clone()));
            serving
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Every change of the state is one insertion or removal; a panic between two leaves nothing
        // half done.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn snapshot(&self) -> Vec<Event> {
        let routes = self.entries.iter().filter_map(|(key, entry)| entry.routes.as_ref()?.to_wire(key).ok());
        Event::snapshot(self.version, routes)
    }
}

fn is_same(one: Option<&Arc<Routes>>, other: Option<&Arc<Routes>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// The parent that the originals gave every service; kept as a name for any.
const ANY_OKASAN: &str = "okaasan";

/// Finds a revision by the two names of the weights API: `kodomo` is a revision or a Knative
/// Service (of which the newest revision with pods is meant, revisions being numbered), `okasan`
/// the Service or the namespace it is in, or the originals' `okaasan` for any.
fn names<'a>(entries: &'a BTreeMap<RevisionKey, RouteEntry>, okasan: &str, kodomo: &str) -> Option<&'a RouteEntry> {
    entries
        .iter()
        .filter(|(key, entry)| {
            (key.revision == kodomo || entry.service == kodomo)
                && (okasan == ANY_OKASAN || entry.service == okasan || key.namespace == okasan)
        })
        .max_by_key(|(key, entry)| (key.revision == kodomo, entry.routes.is_some(), key.revision.as_str()))
        .map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(revision: &str) -> RevisionKey {
        RevisionKey::new("default", revision)
    }

    fn nodes() -> Vec<NodeName> {
        ["node1", "node2"].map(NodeName::from).to_vec()
    }

    fn entry(routes: Option<Routes>) -> RouteEntry {
        RouteEntry { service: "hello".to_owned(), routes: routes.map(Arc::new) }
    }

    #[test]
    fn followers_get_a_snapshot_then_changes_only() {
        let book = RouteBook::default();
        book.set(&key("hello-00001"), entry(Some(Routes::identity(&nodes())))).unwrap();
        assert!(book.follow().is_none());
        book.complete();
        let (snapshot, mut changes) = book.follow().unwrap();
        assert!(matches!(&snapshot[..], [Event::Snapshot { version: 1, parts_left: 0, routes }] if routes.len() == 1));
        book.set(&key("hello-00001"), entry(Some(Routes::identity(&nodes())))).unwrap();
        book.set(&key("hello-00002"), entry(None)).unwrap();
        assert!(changes.try_recv().is_err());
        book.set(&key("hello-00001"), entry(None)).unwrap();
        assert_eq!(changes.try_recv().unwrap(), Event::Update { version: 2, routes: vec![], removed: vec![key("hello-00001")] });
        book.retain(nodes(), &BTreeSet::new());
        assert!(changes.try_recv().is_err());
        book.reset();
        assert!(book.follow().is_none() && book.version() == 2);
    }

    #[test]
    fn who_serves_is_known_after_every_change() {
        let (book, routes) = (RouteBook::default(), || entry(Some(Routes::identity(&nodes()))));
        let all: BTreeSet<NodeName> = nodes().into_iter().collect();
        book.set(&key("hello-00001"), routes()).unwrap();
        assert_eq!((book.serving(), book.serving()), (all.clone(), all.clone()));
        book.set(&key("hello-00001"), entry(None)).unwrap();
        assert_eq!(book.serving(), BTreeSet::new());
        book.set(&key("hello-00001"), routes()).unwrap();
        assert_eq!(book.serving(), all);
        book.reset();
        assert_eq!(book.serving(), BTreeSet::new());
    }

    #[test]
    fn weights_are_found_by_any_of_their_names() {
        let book = RouteBook::default();
        book.retain(nodes(), &BTreeSet::new());
        book.set(&key("hello-00001"), entry(None)).unwrap();
        for (okasan, kodomo) in [("hello", "hello-00001"), ("hello", "hello"), ("default", "hello"), ("okaasan", "hello")] {
            assert_eq!(book.weights(okasan, kodomo), Some(vec![vec![100, 0], vec![0, 100]]), "{okasan}/{kodomo}");
        }
        assert_eq!(book.weights("other", "hello"), None);
        assert_eq!(book.weights("hello", "hello-00009"), None);
    }
}
