//! The watches that send every [`ObjectChange`] of an object.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::convert;
use super::objects::ObjectName;
use super::revision::WatchedRevision;
use crate::state::change::{ChangeSource, ObjectChange};
use k8s_api::kingress::{FOREIGN_FINALIZER, KIngress};

/// How long to wait before listing a kind again that the API server does not serve: its definition
/// may be created at any time.
const UNSERVED_PAUSE: Duration = Duration::from_secs(10);

/// A terminating Ingress of our class that is blocked by another implementation's finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignFinalizer {
    /// The Ingress.
    pub name: ObjectName,
    /// The finalizers to keep.
    pub remaining: Vec<String>,
    /// The resource version seen.
    pub resource_version: Option<String>,
}

/// A running watch; it stops when dropped.
pub(crate) type Watch = BoxFuture<'static, ()>;

/// Creates all watches that routes depend on, to be run concurrently. Ingresses of other classes
/// than `class` are ignored. Knative's settings are read in `knative_namespace`; Secrets in
/// `secret_namespaces`, or in all namespaces if that is empty.
#[must_use]
pub(crate) fn watch_all(
    client: &Client,
    class: &str,
    knative_namespace: &str,
    secret_namespaces: &[String],
    changes: &mpsc::Sender<ObjectChange>,
    foreign: mpsc::Sender<ForeignFinalizer>,
) -> Vec<Watch> {
    let class = class.to_owned();
    let ingresses = watcher(Api::<DeserializeGuard<KIngress>>::all(client.clone()), config());
    let ingress = move |object: DeserializeGuard<KIngress>| match object.0 {
        Ok(ingress) if ingress.is_of_class(&class) => {
            if ingress.metadata.deletion_timestamp.is_none() {
                return Some(Box::new(convert::ingress(ingress)));
            }
            // A full channel means that many are being deleted: the next event of the object, or
            // the next list, reports it again.
            held_by_foreign_finalizer(&ingress).map(|one| foreign.try_send(one));
            None
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "skipped an Ingress that cannot be parsed");
            None
        }
    };
    let of = |source| InitialLists::new(source, 1, changes.clone());
    let services = watcher(Api::<Service>::all(client.clone()), config());
    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), config());
    let nodes = watcher(Api::<Node>::all(client.clone()), config());
    let node = |node: Node| Some(convert::node(&node));
    // Without Knative Serving the kind does not exist, which delays nothing.
    let revisions = watcher(Api::<WatchedRevision>::all(client.clone()), config());
    let read = |revision: WatchedRevision| Some(revision.read());
    let settings = Api::<ConfigMap>::namespaced(client.clone(), knative_namespace);
    let settings = watcher(settings, config().fields(&format!("metadata.name={AUTOSCALER_CONFIG}")));
    let burst_capacity = |_, is_set: Option<bool>| ObjectChange::BurstCapacityDefault(is_set.unwrap_or(false));
    let mut watches: Vec<Watch> = vec![
        Box::pin(relay_events(ingresses, of(ChangeSource::Ingresses), ingress, ObjectChange::Ingress)),
        Box::pin(relay_events(services, of(ChangeSource::Services), |one| Some(convert::service(one)), ObjectChange::Service)),
        Box::pin(relay_events(slices, of(ChangeSource::Slices), convert::slice, ObjectChange::Slice)),
        Box::pin(relay_events(nodes, of(ChangeSource::Nodes), node, |name, node| ObjectChange::Node(name.name, node))),
        Box::pin(relay_events(revisions, of(ChangeSource::Revisions), read, ObjectChange::Revision)),
        Box::pin(relay_events(settings, of(ChangeSource::Settings), |map| Some(sets_burst_capacity(&map)), burst_capacity)),
    ];
    // Certificates are often in Secrets of type Opaque. Other types, such as tokens and registry
    // passwords, are not read.
    let places: Vec<Api<Secret>> = match secret_namespaces {
        [] => vec![Api::all(client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    };
    let lists: Vec<_> = places.iter().flat_map(|api| SECRET_TYPES.map(|of_type| (api.clone(), of_type))).collect();
    let listing = InitialLists::new(ChangeSource::Secrets, lists.len(), changes.clone());
    for (api, of_type) in lists {
        let secrets = watcher(api, config().fields(&format!("type={of_type}")));
        watches.push(Box::pin(relay_events(secrets, listing.clone(), convert::secret, ObjectChange::Secret)));
    }
    watches
}

/// Knative's settings of autoscaling.
const AUTOSCALER_CONFIG: &str = "config-autoscaler";

/// Whether the cluster sets a burst capacity for all revisions: stock Knative's own default does
/// not count.
fn sets_burst_capacity(map: &ConfigMap) -> bool {
    map.data.as_ref().is_some_and(|data| data.contains_key("target-burst-capacity"))
}

/// The types of Secrets that may hold a certificate.
const SECRET_TYPES: [&str; 2] = ["kubernetes.io/tls", "Opaque"];

/// The time limit of a watch on the API server's side. A watch that is silent for a little longer
/// is dead, whatever the state of its connection, and is restarted.
const WATCH_SECONDS: u32 = 15;

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// The number of watches of a source that have not listed all objects yet.
#[derive(Clone)]
struct InitialLists {
    source: ChangeSource,
    missing: Arc<AtomicUsize>,
    changes: mpsc::Sender<ObjectChange>,
}

impl InitialLists {
    fn new(source: ChangeSource, watches: usize, changes: mpsc::Sender<ObjectChange>) -> Self {
        Self { source, missing: Arc::new(AtomicUsize::new(watches)), changes }
    }

    /// Counts a watch that has listed all objects.
    fn finish_watch(&self) -> Option<ObjectChange> {
        (self.missing.fetch_sub(1, Ordering::Relaxed) == 1).then_some(ObjectChange::Listed(self.source))
    }
}

fn held_by_foreign_finalizer(ingress: &KIngress) -> Option<ForeignFinalizer> {
    let finalizers = ingress.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|one| one == FOREIGN_FINALIZER).then(|| ForeignFinalizer {
        name: object_name(ingress),
        remaining: finalizers.iter().filter(|one| *one != FOREIGN_FINALIZER).cloned().collect(),
        resource_version: ingress.metadata.resource_version.clone(),
    })
}

fn object_name<K: Resource>(object: &K) -> ObjectName {
    ObjectName::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether the API server does not know the kind: 404, as opposed to a kind without objects.
fn is_unserved(error: &watcher::Error) -> bool {
    status_of(error) == Some(404)
}

fn is_forbidden(error: &watcher::Error) -> bool {
    status_of(error) == Some(403)
}

fn status_of(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        _ => None,
    }
}

/// Sends each object as `convert` returns it; `None` counts as deleted. After a new list, missing
/// objects are sent as deleted.
async fn relay_events<K, T>(
    events: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send,
    listing: InitialLists,
    convert: impl Fn(K) -> Option<T>,
    change: impl Fn(ObjectName, Option<T>) -> ObjectChange,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    let mut listed: BTreeSet<ObjectName> = BTreeSet::new();
    let mut events = pin!(events.default_backoff());
    let mut unserved = false;
    let mut to_be_listed = true;
    let source = listing.source;
    while let Some(event) = events.next().await {
        match &event {
            // Each attempt begins with this event.
            Ok(Event::Init) => {}
            Ok(_) => unserved = false,
            Err(error) if is_unserved(error) => {
                if !std::mem::replace(&mut unserved, true) {
                    tracing::info!(?source, "the API server does not serve this kind yet, retrying");
                }
                tokio::time::sleep(UNSERVED_PAUSE).await;
            }
            Err(error) => tracing::warn!(?source, %error, "watch failed, retrying"),
        }
        let mut news = Vec::new();
        // Without permission to read Secrets, requests are served without HTTPS rather than not at
        // all.
        if source == ChangeSource::Secrets && event.as_ref().is_err_and(is_forbidden) && std::mem::take(&mut to_be_listed) {
            tracing::warn!("no permission to read Secrets: their certificates are not served");
            news.extend(listing.finish_watch());
        }
        match event {
            Ok(Event::Apply(object)) => {
                let name = object_name(&object);
                let converted = convert(object);
                // An object that was never sent need not be sent as deleted.
                if converted.is_some() || known.contains(&name) {
                    if converted.is_some() {
                        known.insert(name.clone())
                    } else {
                        known.remove(&name)
                    };
                    news.push(change(name, converted));
                }
            }
            Ok(Event::Delete(object)) => {
                let name = object_name(&object);
                if known.remove(&name) {
                    news.push(change(name, None));
                }
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let name = object_name(&object);
                if let Some(converted) = convert(object) {
                    listed.insert(name.clone());
                    news.push(change(name, Some(converted)));
                }
            }
            Ok(Event::InitDone) => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                news.extend(before.difference(&known).map(|gone| change(gone.clone(), None)));
                if std::mem::take(&mut to_be_listed) {
                    news.extend(listing.finish_watch());
                }
            }
            Err(_) => {}
        }
        for one in news {
            if listing.changes.send(one).await.is_err() {
                return;
            }
        }
    }
}
