//! Watches that tell the [`World`](crate::world::World) what changed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::convert;
use super::revision::Revision;
use crate::change::{Change, Source};
use crate::kingress::{FOREIGN_FINALIZER, KIngress};
use crate::objects::ObjectName;

/// How long until a kind that the API server does not serve is asked for again: its definition may come at any time.
const UNSERVED_PAUSE: Duration = Duration::from_secs(10);

/// An Ingress of our class that is being deleted and held by another implementation's finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The Ingress.
    pub name: ObjectName,
    /// The finalizers that are to stay.
    pub remaining: Vec<String>,
    /// The version that was seen.
    pub resource_version: Option<String>,
}

/// Watches everything that routes depend on, until the stop. Ingresses of another class than `class` are as good as not there.
pub fn spawn(client: &Client, class: &str, changes: &mpsc::Sender<Change>, held: mpsc::Sender<Held>, stop: &CancellationToken) {
    let start = |task: futures::future::BoxFuture<'static, ()>| {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    };
    let all = watcher::Config::default;
    let class = class.to_owned();
    let ingresses = watcher(Api::<DeserializeGuard<KIngress>>::all(client.clone()), all());
    let ingress = move |object: DeserializeGuard<KIngress>| match object.0 {
        Ok(ingress) if ingress.is_of_class(&class) => {
            if ingress.metadata.deletion_timestamp.is_none() {
                return Some(Box::new(convert::ingress(ingress)));
            }
            // Full means that many are being deleted: the next event of this object, or the next list, tells of it again.
            held_by_foreign_finalizer(&ingress).map(|one| held.try_send(one));
            None
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "skipped an Ingress that is not one");
            None
        }
    };
    start(Box::pin(relay(ingresses, Source::Ingresses, changes.clone(), ingress, Change::Ingress)));

    let services = watcher(Api::<Service>::all(client.clone()), all());
    start(Box::pin(relay(services, Source::Services, changes.clone(), |one| Some(convert::service(one)), Change::Service)));

    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), all());
    start(Box::pin(relay(slices, Source::Slices, changes.clone(), convert::slice, Change::Slice)));

    let nodes = watcher(Api::<Node>::all(client.clone()), all());
    let node = |node: Node| Some(convert::node(&node));
    start(Box::pin(relay(nodes, Source::Nodes, changes.clone(), node, |name, node| Change::Node(name.name, node))));

    // Where there is no Serving there is no such kind, which holds nothing up.
    let revisions = watcher(Api::<Revision>::all(client.clone()), all());
    let limit = |revision: Revision| Some(revision.concurrency());
    start(Box::pin(relay(revisions, Source::Revisions, changes.clone(), limit, Change::Concurrency)));

    let secrets = watcher(Api::<Secret>::all(client.clone()), all().fields("type=kubernetes.io/tls"));
    start(Box::pin(relay(secrets, Source::Secrets, changes.clone(), convert::secret, Change::Secret)));
}

fn held_by_foreign_finalizer(ingress: &KIngress) -> Option<Held> {
    let finalizers = ingress.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|one| one == FOREIGN_FINALIZER).then(|| Held {
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
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        _ => false,
    }
}

/// Tells each object as `convert` sees it; one that `convert` refuses is as good as gone. After a new list, what it lacks is told as gone.
async fn relay<K, T>(
    events: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send,
    source: Source,
    changes: mpsc::Sender<Change>,
    convert: impl Fn(K) -> Option<T>,
    change: impl Fn(ObjectName, Option<T>) -> Change,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    let mut listed: BTreeSet<ObjectName> = BTreeSet::new();
    let mut events = pin!(events.default_backoff());
    let mut unserved = false;
    while let Some(event) = events.next().await {
        match &event {
            // Each attempt begins with this.
            Ok(Event::Init) => {}
            Ok(_) => unserved = false,
            Err(error) if is_unserved(error) => {
                if !std::mem::replace(&mut unserved, true) {
                    tracing::info!(?source, "the API server does not serve this kind, which is waited for");
                }
                tokio::time::sleep(UNSERVED_PAUSE).await;
            }
            Err(error) => tracing::warn!(?source, %error, "watch broke, trying again"),
        }
        let mut news = Vec::new();
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
                news.push(Change::Listed(source));
            }
            Err(_) => {}
        }
        for one in news {
            if changes.send(one).await.is_err() {
                return;
            }
        }
    }
}
