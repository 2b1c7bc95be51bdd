//! The watches and what they set going.

mod tasks;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use event_writer::{EventWriter, Repeats};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::Api;
use kube::runtime::controller::{Config as QueueConfig, ReconcileRequest, applier};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector as reflect};
use kube::{Client, Resource as _, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::tasks::Ended;
use self::tasks::Tasks;
use crate::announce::Announcer;
use crate::index::{Owner, PodChange, Stray};
use crate::metrics::Metrics;
use crate::observed::{NodeChange, NodeView, Nodes, PodView};
use crate::options::ControllerOptions;
use crate::pace::WritePace;
use crate::queue::{Queue, Waiting};
use crate::reconcile::{Context, after_error, owner_of, reconcile};
use crate::watched::WatchedPod;
use crate::writes::{SharedIndex, Writer};
use k8s_api::client::WATCH_SECONDS;
use k8s_api::seika::{MaybeSeika, NODE_LABEL, Seika};

/// The daemon's name: of its Lease, and of what reports its events.
pub(crate) const NAME: &str = "seika-controller";

/// Reconciles all Seikas until `stop`, then finishes the reconciliations under way. Only one
/// process may do so at a time.
///
/// Each call fills new caches: a new leader starts from the state in the API server, not from what
/// it watched while another process led.
///
/// # Errors
/// If a part of it ends before `stop`. The process should then be restarted.
pub async fn run(
    client: Client,
    options: ControllerOptions,
    own_pod: ObjectReference,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let waiting = Waiting::default();
    let (store, store_writer) = reflector::store::<MaybeSeika>();
    let (queue, mut queued) = Queue::new(waiting.clone(), store.clone());
    let index = SharedIndex::default();
    let nodes = Arc::new(RwLock::new(Nodes::default()));
    // Dropped, and with it ended, when this function ends.
    let mut tasks = Tasks::default();

    let (events, write_events) = EventWriter::new(Some(client.clone()), NAME, own_pod, Repeats::Counted);
    tasks.spawn("the writer of events", write_events);
    let announcer = Announcer::new(events, metrics.clone());
    let (pods_known, pods_are_known) = watch::channel(false);
    let pods = watch_pods(api(&client, &options), index.clone(), store.clone(), queue.clone(), pods_known, metrics.clone());
    tasks.spawn("the watch of pods", pods);
    let (nodes_known, nodes_are_known) = watch::channel(false);
    let watching = NodeWatch { nodes: Arc::clone(&nodes), index: index.clone(), seikas: store.clone(), queue };
    tasks.spawn("the watch of nodes", watching.run(Api::all(client.clone()), nodes_known, metrics.clone()));

    // Before both are whole, every pod would look missing and every node gone.
    let whole = async |mut known: watch::Receiver<bool>| {
        let _ = known.wait_for(|known| *known).await;
    };
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ended = tasks.one_ends() => return Err(ended),
        _ = future::join(whole(pods_are_known), whole(nodes_are_known)) => {}
    }

    let writer = Writer {
        client: client.clone(),
        index,
        metrics: metrics.clone(),
        at_once: options.writes_at_once.max(1),
        pace: WritePace::new(options.writes_at_once, options.writes_per_second),
    };
    let context = Arc::new(Context::new(writer, nodes, store.clone(), waiting, announcer, metrics.clone()));
    let seikas = watch_seikas(api(&client, &options), store_writer, Arc::clone(&context));
    let queued = stream::poll_fn(move |context| queued.poll_recv(context)).map(Ok);
    let triggers = stream::select(seikas, queued).map_ok(ReconcileRequest::from).take_until(stop.clone().cancelled_owned());
    let never_began = stopped_before_ready(store.clone(), stop.clone());
    tracing::info!("keeping seikas");
    let kept = applier(
        |seika, context| Box::pin(reconcile(seika, context)),
        |seika: Arc<MaybeSeika>, error, context: Arc<Context>| after_error(&seika, error, &context),
        context,
        store,
        triggers,
        QueueConfig::default().concurrency(options.seikas_at_once),
    )
    .for_each(|_| future::ready(()));
    let result = tokio::select! {
        () = kept => if stop.is_cancelled() { Ok(()) } else { Err(Ended::by_itself("the watch of seikas")) },
        () = never_began => Ok(()),
        ended = tasks.one_ends() => Err(ended),
    };
    tracing::info!("no longer keeping seikas");
    result
}

/// See [`crate::client`].
fn watched() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Returns if `stop` comes before the Seikas have been listed, and only then. The applier would
/// wait for ever for that list, which is no longer requested, and the Lease would not be released.
async fn stopped_before_ready(store: Store<MaybeSeika>, stop: CancellationToken) {
    tokio::select! {
        biased;
        _ = store.wait_until_ready() => future::pending().await,
        () = stop.cancelled() => {}
    }
}

fn api<K>(client: &Client, options: &ControllerOptions) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Seikas that changed. Those that went are forgotten.
fn watch_seikas(
    seikas: Api<MaybeSeika>,
    store_writer: reflector::store::Writer<MaybeSeika>,
    context: Arc<Context>,
) -> BoxStream<'static, Result<ObjectRef<MaybeSeika>, watcher::Error>> {
    let (metrics, waiting) = (context.metrics.clone(), context.waiting.clone());
    // Who manages which field is nothing to us, and takes more room than all the rest.
    let seikas = watcher(seikas, watched()).modify(|seika| seika.meta_mut().managed_fields = None);
    reflect(store_writer, seikas)
        .backoff(Patience::default())
        .inspect_err(move |error| broken("seikas", error, &metrics))
        .inspect_ok(move |event| match event {
            Event::Delete(seika) => owner_of(seika).iter().for_each(|owner| context.forget(owner)),
            Event::InitDone => context.forget_all_but_stored(),
            Event::Init | Event::InitApply(_) | Event::Apply(_) => {}
        })
        .applied_objects()
        .inspect_ok(move |seika| waiting.begins(&seika.namespace().unwrap_or_default(), &seika.name_any()))
        .map_ok(|seika| ObjectRef::from_obj(&seika))
        // The watch begins again by itself; an error here would only be logged once more.
        .filter(|result| future::ready(result.is_ok()))
        .boxed()
}

/// How long to wait before a failed watch is restarted: hardly at first, because a lagging picture
/// costs cold starts; longer while it keeps failing. An event alone is no sign of recovery: a watch
/// that restarts reports that before its first request.
#[derive(Debug, Default)]
struct Patience {
    last: Option<(Instant, Duration)>,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    /// So long without a break, and the next one is the first again.
    const CALM: Duration = Duration::from_secs(20);
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = match self.last {
            Some((at, wait)) if at.elapsed() < Self::CALM => (wait * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        };
        self.last = Some((Instant::now(), wait));
        Some(wait)
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}

fn broken(what: &'static str, error: &watcher::Error, metrics: &Metrics) {
    metrics.watch_errors.inc();
    tracing::warn!(what, error = error as &dyn std::error::Error, "watch broke, beginning again");
}

/// Keeps the index; queues the Seikas whose pods changed.
async fn watch_pods(
    pods: Api<WatchedPod>,
    index: SharedIndex,
    seikas: Store<MaybeSeika>,
    queue: Queue,
    known: watch::Sender<bool>,
    metrics: Metrics,
) {
    let config = watched().labels(NODE_LABEL);
    let mut events = watcher(pods, config).backoff(Patience::default()).boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                broken("pods", &error, &metrics);
                continue;
            }
        };
        let ends = matches!(event, Event::InitDone);
        let mut strayed = None;
        let touched = {
            let mut index = index.lock();
            match event {
                Event::Init => index.apply(PodChange::ListBegins),
                Event::InitDone => index.apply(PodChange::ListEnds),
                Event::InitApply(pod) => match owner_of_pod(&pod) {
                    Some(owner) => index.apply(PodChange::Listed(owner, PodView::of(&pod))),
                    None => index.apply(PodChange::ListedStray(pod.namespace().unwrap_or_default(), stray(&pod))),
                },
                Event::Apply(pod) => match owner_of_pod(&pod) {
                    Some(owner) => index.apply(PodChange::Put(owner, PodView::of(&pod))),
                    None => {
                        strayed = pod.namespace();
                        index.apply(PodChange::Strayed(pod.namespace().unwrap_or_default(), stray(&pod)))
                    }
                },
                Event::Delete(pod) => match owner_of_pod(&pod) {
                    Some(owner) => index.apply(PodChange::Gone(owner, PodView::of(&pod))),
                    None => {
                        strayed = pod.namespace();
                        index.apply(PodChange::StrayGone(pod.namespace().unwrap_or_default(), PodView::of(&pod)))
                    }
                },
            }
        };
        for owner in &touched {
            queue.push(owner);
        }
        // All Seikas of the namespace are reconciled: any of them may match it, or report it. Such
        // pods are rare.
        if strayed.is_some() {
            let there = seikas.state();
            let concerned = there.iter().filter(|seika| seika.namespace() == strayed).filter_map(|seika| owner_of(&**seika));
            concerned.for_each(|owner| queue.push(&owner));
        }
        if ends {
            known.send_replace(true);
        }
    }
}

fn stray(pod: &WatchedPod) -> Stray {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    Stray {
        pod: Arc::new(PodView::of(pod)),
        controller: controller.map(|controller| format!("{} {}", controller.kind, controller.name)),
    }
}

fn owner_of_pod(pod: &WatchedPod) -> Option<Owner> {
    Owner::controlling(&pod.namespace()?, pod.owner_references())
}

struct NodeWatch {
    nodes: Arc<RwLock<Nodes>>,
    index: SharedIndex,
    seikas: Store<MaybeSeika>,
    queue: Queue,
}

impl NodeWatch {
    /// Keeps the nodes; queues the Seikas that a change concerns.
    async fn run(self, api: Api<Node>, known: watch::Sender<bool>, metrics: Metrics) {
        let mut events = watcher(api, watched()).backoff(Patience::default()).boxed();
        let mut listed = Nodes::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = Nodes::default(),
                Ok(Event::InitApply(node)) => {
                    listed.put(&node.name_any(), NodeView::of(&node));
                }
                Ok(Event::InitDone) => {
                    self.replace(std::mem::take(&mut listed));
                    known.send_replace(true);
                }
                Ok(Event::Apply(node)) => {
                    let change = self.write().put(&node.name_any(), NodeView::of(&node));
                    self.changed(&node.name_any(), change);
                }
                Ok(Event::Delete(node)) => {
                    let change = self.write().remove(&node.name_any(), Timestamp::now());
                    self.changed(&node.name_any(), change);
                }
                Err(error) => broken("nodes", &error, &metrics),
            }
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, listed: Nodes) {
        let changes = self.write().replace(listed, Timestamp::now());
        for (node, change) in changes {
            self.changed(&node, change);
        }
    }

    fn changed(&self, node: &str, change: NodeChange) {
        if change == NodeChange::None {
            return;
        }
        tracing::debug!(node, ?change, "node changed");
        // Each status lists the cluster's nodes, so which there are concerns every Seika; how one
        // is concerns those that name it.
        let concerned = |seika: &Seika| change == NodeChange::Membership || seika.spec.repurika.contains_key(node);
        for seika in self.seikas.state() {
            if let Ok(seika) = &seika.0
                && concerned(seika)
                && let Some(owner) = owner_of(seika)
            {
                self.queue.push(&owner);
            }
        }
        let with_pods: Vec<Owner> = self.index.lock().with_pods_on(node).cloned().collect();
        with_pods.iter().for_each(|owner| self.queue.push(owner));
    }
}
