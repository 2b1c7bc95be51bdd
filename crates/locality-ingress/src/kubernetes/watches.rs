//! Watches that tell the [`ControlPlaneState`](crate::state::ControlPlaneState) what changed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::convert;
use super::objects::ObjectName;
use super::revision::Revision;
use crate::state::change::{Change, Source};
use k8s_api::kingress::{FOREIGN_FINALIZER, KIngress};

/// How long until a kind that the API server does not serve is asked for again: its definition may
/// come at any time.
const UNSERVED_PAUSE: Duration = Duration::from_secs(10);

/// An Ingress of our class that is being deleted and held by another implementation's finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignFinalizer {
    /// The Ingress.
    pub name: ObjectName,
    /// The finalizers that are to stay.
    pub remaining: Vec<String>,
    /// The version that was seen.
    pub resource_version: Option<String>,
}

/// A watch that is at work until it is dropped.
pub(crate) type Watch = BoxFuture<'static, ()>;

/// Watches everything that routes depend on, each to be run beside the others. Ingresses of another
/// class than `class` are as good as not there. Secrets are read in `secret_namespaces` only, or
/// everywhere where there are none.
#[must_use]
pub(crate) fn watch_all(
    client: &Client,
    class: &str,
    secret_namespaces: &[String],
    changes: &mpsc::Sender<Change>,
    foreign: mpsc::Sender<ForeignFinalizer>,
) -> Vec<Watch> {
    let class = class.to_owned();
    let ingresses = watcher(Api::<DeserializeGuard<KIngress>>::all(client.clone()), config());
    let ingress = move |object: DeserializeGuard<KIngress>| match object.0 {
        Ok(ingress) if ingress.is_of_class(&class) => {
            if ingress.metadata.deletion_timestamp.is_none() {
                return Some(Box::new(convert::ingress(ingress)));
            }
            // Full means that many are being deleted: the next event of this object, or the next
            // list, tells of it again.
            held_by_foreign_finalizer(&ingress).map(|one| foreign.try_send(one));
            None
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "skipped an Ingress that cannot be parsed");
            None
        }
    };
    let of = |source| Listing::new(source, 1, changes.clone());
    let services = watcher(Api::<Service>::all(client.clone()), config());
    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), config());
    let nodes = watcher(Api::<Node>::all(client.clone()), config());
    let node = |node: Node| Some(convert::node(&node));
    // Where there is no Serving there is no such kind, which holds nothing up.
    let revisions = watcher(Api::<Revision>::all(client.clone()), config());
    let limit = |revision: Revision| Some(revision.concurrency());
    let mut watches: Vec<Watch> = vec![
        Box::pin(relay_events(ingresses, of(Source::Ingresses), ingress, Change::Ingress)),
        Box::pin(relay_events(services, of(Source::Services), |one| Some(convert::service(one)), Change::Service)),
        Box::pin(relay_events(slices, of(Source::Slices), convert::slice, Change::Slice)),
        Box::pin(relay_events(nodes, of(Source::Nodes), node, |name, node| Change::Node(name.name, node))),
        Box::pin(relay_events(revisions, of(Source::Revisions), limit, Change::Concurrency)),
    ];
    // Certificates that people bring are often of no particular type. No other types are asked for:
    // tokens of accounts, passwords of registries.
    let places: Vec<Api<Secret>> = match secret_namespaces {
        [] => vec![Api::all(client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    };
    let lists: Vec<_> = places.iter().flat_map(|api| SECRET_TYPES.map(|of_type| (api.clone(), of_type))).collect();
    let listing = Listing::new(Source::Secrets, lists.len(), changes.clone());
    for (api, of_type) in lists {
        let secrets = watcher(api, config().fields(&format!("type={of_type}")));
        watches.push(Box::pin(relay_events(secrets, listing.clone(), convert::secret, Change::Secret)));
    }
    watches
}

/// The types of Secrets that may hold a certificate.
const SECRET_TYPES: [&str; 2] = ["kubernetes.io/tls", "Opaque"];

/// How long the API server lets a watch be before it ends it and another one takes its place. A
/// watch on which nothing comes for a little longer than that is dead, however well its connection
/// looks: it is made anew.
const WATCH_SECONDS: u32 = 15;

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What is still to be told of a source, by however many watches it takes, before all of it has
/// been told once.
#[derive(Clone)]
struct Listing {
    source: Source,
    missing: Arc<AtomicUsize>,
    changes: mpsc::Sender<Change>,
}

impl Listing {
    fn new(source: Source, watches: usize, changes: mpsc::Sender<Change>) -> Self {
        Self { source, missing: Arc::new(AtomicUsize::new(watches)), changes }
    }

    /// One of the watches has told what there is.
    fn finish_watch(&self) -> Option<Change> {
        (self.missing.fetch_sub(1, Ordering::Relaxed) == 1).then_some(Change::Listed(self.source))
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

/// Whether the API server knows no such kind: 404, as opposed to a kind of which it has no objects.
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

/// Tells each object as `convert` sees it; one that `convert` refuses is as good as gone. After a
/// new list, what it lacks is told as gone.
async fn relay_events<K, T>(
    events: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send,
    listing: Listing,
    convert: impl Fn(K) -> Option<T>,
    change: impl Fn(ObjectName, Option<T>) -> Change,
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
            // Each attempt begins with this.
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
        // Whoever gives us no Secrets wants to be served without HTTPS rather than not at all.
        if source == Source::Secrets && event.as_ref().is_err_and(is_forbidden) && std::mem::take(&mut to_be_listed) {
            tracing::warn!("no permission to read Secrets: their certificates are not served");
            news.extend(listing.finish_watch());
        }
        match event {
            Ok(Event::Apply(object)) => {
                let name = object_name(&object);
                let converted = convert(object);
                // What never was, for us, need not be told as gone.
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
