//! What only the leader does.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use placement::NodeName;
use gateway_link::RevisionKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Context, ReconcileError, reconcile};
use crate::demand::sampler::{self, GatewayAddress, Sampled};
use crate::knative::{CLASS, PodAutoscaler};
use crate::metrics::NodeLabels;
use crate::objects::Triggers;
use crate::pins;

/// Revisions that are seen to at the same time; each waits for the API server most of its time.
const CONCURRENCY: u16 = 16;
/// A failed revision is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Decides until `stop` is cancelled, then finishes what is under way.
pub async fn lead(
    context: Arc<Context>,
    triggers: &Triggers,
    http: reqwest::Client,
    gateways: impl Fn() -> BTreeMap<String, GatewayAddress> + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let autoscalers = context.objects.autoscalers.clone();
    let queue = queue(autoscalers.clone(), triggers).take_until(stop.cancelled_owned());

    // Ends with this function.
    let mut tasks = JoinSet::new();
    let (reports, reported) = mpsc::channel(256);
    let ours = autoscalers.clone();
    tasks.spawn(sampler::run(context.demands.clone(), http, gateways, move || revisions(&ours), reports));
    tasks.spawn(listen(reported, context.clone(), triggers.clone()));
    tasks.spawn(keep_routes(context.clone(), autoscalers.clone()));
    tasks.spawn(pins::keep(context.clone()));
    tasks.spawn(context.monitors.clone().discover(context.client.clone()));

    // Ends when the queue has ended and what was under way is done.
    applier(
        |autoscaler, context| Box::pin(reconcile(autoscaler, context)),
        |autoscaler, error, context| failed(&autoscaler, error, &context),
        context.clone(),
        autoscalers,
        queue,
        Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|_| std::future::ready(()))
    .await;
}

/// All revisions at first, then whichever is called for.
fn queue(
    autoscalers: Store<PodAutoscaler>,
    triggers: &Triggers,
) -> impl Stream<Item = Result<ObjectRef<PodAutoscaler>, Infallible>> + Send + use<> {
    let all = move || stream::iter(autoscalers.state().into_iter().map(|autoscaler| ObjectRef::from_obj(&*autoscaler)));
    let calls = triggers.revisions();
    let everything = triggers.everything();
    // Listening first: what changes while all are listed is not lost.
    stream::select(calls, all().chain(everything.flat_map(move |()| all()))).map(Ok)
}

fn failed(autoscaler: &PodAutoscaler, error: &ReconcileError, context: &Context) -> Action {
    context.metrics.failures.inc();
    let revision = autoscaler.name_any();
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(revision, %error, cause, "failed, and will be tried again");
    Action::requeue(RETRY)
}

fn revisions(autoscalers: &Store<PodAutoscaler>) -> BTreeSet<RevisionKey> {
    let all = autoscalers.state();
    let ours = all.iter().filter(|autoscaler| autoscaler.class() == CLASS && autoscaler.metadata.deletion_timestamp.is_none());
    ours.map(|autoscaler| RevisionKey::new(autoscaler.namespace().unwrap_or_default(), autoscaler.name_any())).collect()
}

/// A held request calls for its revision at once.
async fn listen(mut reports: mpsc::Receiver<Sampled>, context: Arc<Context>, triggers: Triggers) {
    while let Some(report) = reports.recv().await {
        match report {
            Sampled::Held(key) => triggers.revision(&key.namespace, &key.revision),
            Sampled::Failed { node } => {
                context.metrics.gateway_failures.get_or_create(&NodeLabels { node: node.to_string() }).inc();
            }
        }
    }
}

/// Keeps the book of routes to what there is, and opens it when every revision was decided on once.
async fn keep_routes(context: Arc<Context>, autoscalers: Store<PodAutoscaler>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        let (ours, nodes): (_, Vec<NodeName>) = (revisions(&autoscalers), context.objects.node_names());
        if !context.routes.is_complete() && ours.is_subset(&context.decided()) {
            context.routes.complete();
        }
        context.routes.retain(nodes, &ours);
    }
}
