//! The reconciler of one PodAutoscaler: look, decide, write.

mod hand_back;
mod lead;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use placement::{Freshness, MatrixError, NodeName, ProblemError, UnplacedReason};
use gateway_link::{RevisionKey, RouteStreamError};

pub use lead::lead;
pub use state::Context;
pub(crate) use state::Held;

use crate::apply::{self, TOTAL_ANNOTATION, WriteError, Writer};
use crate::autoscaler::{DemandHistory, locality};
use crate::decide::{Decision, Now, Observation, decide};
use crate::gather::{self, Gathered};
use crate::handback::{Duty, MARKER, duty};
use crate::knative::{ConditionStatus, PodAutoscaler, PodAutoscalerStatus, Reachability, SERVICE_LABEL, ServerlessService};
use crate::metrics::RevisionLabels;
use crate::rollout::Counts;
use crate::routes::Entry;
use crate::settings::{RevisionSettings, Toggle};
use crate::status;

/// How often a revision with pods is looked at when nothing calls for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often one at zero is: a request calls at once.
const LOOK_AT_ZERO_EVERY: Duration = Duration::from_secs(5);

/// Why a revision could not be seen to.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The placement library refuses the numbers.
    #[error("failed to place revision {key}")]
    Place {
        /// The revision.
        key: RevisionKey,
        /// Why.
        source: ProblemError,
    },
    /// Nodes were listed twice.
    #[error("failed to make the latency matrix for revision {key}")]
    Latency {
        /// The revision.
        key: RevisionKey,
        /// Why.
        source: MatrixError,
    },
    /// Weights that do not sum up.
    #[error("failed to publish the routes of revision {key}")]
    Routes {
        /// The revision.
        key: RevisionKey,
        /// Why.
        source: Box<RouteStreamError>,
    },
}

/// Sees to one revision.
///
/// # Errors
/// What could not be decided or written; it is tried again.
pub async fn reconcile(autoscaler: Arc<PodAutoscaler>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let started = tokio::time::Instant::now();
    let key = RevisionKey::new(autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
    let toggle = context.objects.toggle();
    let marker = autoscaler.annotations().get(MARKER).map(String::as_str);
    let duty = duty(autoscaler.class(), marker, toggle.enabled);
    if autoscaler.meta().deletion_timestamp.is_some() || duty == Duty::Leave {
        context.forget(&key);
        return Ok(Action::await_change());
    }
    if let Duty::TakeOver(place) = duty {
        Writer::new(&context.client, &autoscaler).take_over(place).await?;
        context
            .notifier
            .about(&autoscaler.object_ref(&()), EventType::Normal, "TakenOver", format!("{key} is placed by latency again"))
            .await;
        return Ok(Action::await_change());
    }
    let mut held = context.take(&key, autoscaler.uid());
    let result = see_to(&autoscaler, &key, duty, toggle, &context, &mut held).await;
    context.put(&key, held);
    context.metrics.decisions.inc();
    context.metrics.decision_seconds.observe(started.elapsed().as_secs_f64());
    result
}

/// What one look gathered; everything is owned, so that writing holds no lock.
struct Look {
    settings: RevisionSettings,
    deployment: Arc<Deployment>,
    sks: Option<Arc<ServerlessService>>,
    gathered: Gathered,
    seika_told: Counts,
    deployment_told: u32,
}

async fn see_to(
    autoscaler: &PodAutoscaler,
    key: &RevisionKey,
    duty: Duty,
    toggle: Toggle,
    context: &Context,
    held: &mut Held,
) -> Result<Action, ReconcileError> {
    let autoscaler = &held.newest(autoscaler);
    let target = autoscaler.spec.scale_target_ref.name.as_deref().unwrap_or_default();
    // Knative makes the Deployment before the PodAutoscaler; where it is gone, it comes back, and calls.
    let Some(deployment) = gather::deployment(&context.objects, &key.namespace, target) else {
        return Ok(Action::requeue(LOOK_EVERY));
    };
    let look = look(autoscaler, key, context, held, deployment);
    if let Some(sks) = look.sks.as_deref().filter(|sks| !is_owned(sks, autoscaler)) {
        return not_owned(autoscaler, key, context, held, sks).await;
    }
    let mut decision = decide_now(autoscaler, key, toggle, context, held, &look)?;
    let writer = Writer::new(&context.client, autoscaler);
    if duty == Duty::HandBack {
        decision.step = None;
    } else if autoscaler.annotations().contains_key(MARKER) || autoscaler.annotations().contains_key(TOTAL_ANNOTATION) {
        // Left over from a way back that was not finished, or from one that was and was undone by hand.
        writer.annotate(&BTreeMap::from([(MARKER, None), (TOTAL_ANNOTATION, None)])).await?;
    }
    publish(autoscaler, key, context, &look, &decision)?;
    write(autoscaler, &writer, held, &look, &decision).await?;
    tell(autoscaler, key, context, held, &decision).await;
    if duty == Duty::HandBack {
        return hand_back::advance(autoscaler, key, context, &writer, held, &look).await;
    }
    context.monitors.ensure(&context.client, autoscaler, held).await;
    let at_zero = is_asleep(&decision.status) && look.gathered.pods.is_empty();
    Ok(Action::requeue(if at_zero { LOOK_AT_ZERO_EVERY } else { LOOK_EVERY }))
}

fn is_owned(sks: &ServerlessService, autoscaler: &PodAutoscaler) -> bool {
    let controller = sks.owner_references().iter().find(|owner| owner.controller == Some(true));
    controller.is_some_and(|owner| Some(&owner.uid) == autoscaler.metadata.uid.as_ref())
}

/// Somebody else's object has the name that ours must have: nothing can be done but to say so.
async fn not_owned(
    autoscaler: &PodAutoscaler,
    key: &RevisionKey,
    context: &Context,
    held: &mut Held,
    sks: &ServerlessService,
) -> Result<Action, ReconcileError> {
    let status = status::not_owned(autoscaler, &sks.name_any(), whole_seconds(Timestamp::now()));
    if autoscaler.status.as_ref() != Some(&status) {
        held.wrote_status(&Writer::new(&context.client, autoscaler).status(&status).await?);
        let note = format!("ServerlessService {key} is not controlled by the PodAutoscaler");
        context.notifier.about(&autoscaler.object_ref(&()), EventType::Warning, "NotOwned", note).await;
    }
    Ok(Action::requeue(LOOK_AT_ZERO_EVERY))
}

fn look(autoscaler: &PodAutoscaler, key: &RevisionKey, context: &Context, held: &mut Held, deployment: Arc<Deployment>) -> Look {
    let spec = &autoscaler.spec;
    let settings = RevisionSettings::read(
        autoscaler.annotations(),
        u32::try_from(spec.container_concurrency).unwrap_or(0),
        spec.reachability != Reachability::Unreachable,
        &context.objects.cluster_settings(),
    );
    let reference = ObjectRef::new(&key.revision).within(&key.namespace);
    let none = PodSpec::default();
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).unwrap_or(&none);
    let gathered = context.with_ledger(|ledger| gather::gather(&context.objects, key, template, ledger));
    let seika = context.objects.seikas.get(&reference);
    Look {
        settings,
        sks: context.objects.serverless_services.get(&ObjectRef::new(&key.revision).within(&key.namespace)),
        gathered,
        seika_told: held.seika_told(seika.as_deref()),
        // An API server that does not say means one.
        deployment_told: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .map_or(1, |count| u32::try_from(count).unwrap_or(0)),
        deployment,
    }
}

fn decide_now(
    autoscaler: &PodAutoscaler,
    key: &RevisionKey,
    toggle: Toggle,
    context: &Context,
    held: &mut Held,
    look: &Look,
) -> Result<Decision, ReconcileError> {
    let monotonic = context.demands.now();
    let (history, held_requests, demand_unknown) = {
        let board = context.demands.board();
        let unknown = board.gateways() == 0 || !board.unknown_sources(monotonic).is_empty();
        (board.history(key).unwrap_or_default(), board.held_now(key), unknown)
    };
    let history: &DemandHistory = &history;
    let held_requests: &BTreeMap<NodeName, f64> = &held_requests;
    let latency = context
        .latency
        .load()
        .matrix(context.objects.node_names(), monotonic.as_secs_f64(), Freshness::default())
        .map_err(|source| ReconcileError::Latency { key: key.clone(), source })?;
    let policy = locality::Policy::default();
    let wants_locality = look.settings.locality_replicas.unwrap_or(toggle.locality_replicas);
    let observation = Observation {
        now: Now { wall: whole_seconds(Timestamp::now()), monotonic },
        key,
        autoscaler,
        sks: look.sks.as_deref(),
        settings: &look.settings,
        pods: &look.gathered.pods,
        seika: &look.seika_told,
        deployment: look.deployment_told,
        history,
        held: held_requests,
        demand_unknown,
        latency: &latency,
        capacities: &look.gathered.capacities,
        model: context.model,
        // Gateways that spread evenly answer nothing locally, wherever the pods are.
        locality: (wants_locality && context.model == placement::CostModel::LocalFirst).then_some(&policy),
    };
    decide(&observation, &mut held.memory).map_err(|source| ReconcileError::Place { key: key.clone(), source })
}

/// Conditions hold whole seconds, as all of Kubernetes writes them.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// In memory, for whoever follows; before anything is removed.
fn publish(
    autoscaler: &PodAutoscaler,
    key: &RevisionKey,
    context: &Context,
    look: &Look,
    decision: &Decision,
) -> Result<(), ReconcileError> {
    context.with_ledger(|ledger| ledger.plan(key, decision.target.clone(), look.gathered.each));
    let service = autoscaler.labels().get(SERVICE_LABEL).cloned().unwrap_or_default();
    let entry = Entry { service, weights: decision.weights.clone() };
    context.routes.set(key, entry).map_err(|source| ReconcileError::Routes { key: key.clone(), source: Box::new(source) })?;
    context.demands.set_asleep(key, is_asleep(&decision.status));
    let labels = RevisionLabels::from(key);
    if let Some(demand) = decision.stable_demand {
        context.metrics.demand.get_or_create(&labels).set(demand);
    }
    context.metrics.pods_wanted.get_or_create(&labels).set(i64::from(decision.target.values().sum::<u32>()));
    let ready = look.gathered.pods.iter().filter(|pod| pod.ready).count();
    context.metrics.pods_ready.get_or_create(&labels).set(i64::try_from(ready).unwrap_or(i64::MAX));
    Ok(())
}

fn is_asleep(status: &PodAutoscalerStatus) -> bool {
    status.condition(PodAutoscalerStatus::ACTIVE).is_some_and(|active| active.status == ConditionStatus::False)
}

/// To the API server. What does not depend on each other goes at once; pods of the Deployment go last.
async fn write(
    autoscaler: &PodAutoscaler,
    writer: &Writer<'_>,
    held: &mut Held,
    look: &Look,
    decision: &Decision,
) -> Result<(), WriteError> {
    let counts = decision.step.as_ref().map_or(&look.seika_told, |step| &step.seika);
    let template = apply::pod_template(&autoscaler.name_any(), &look.deployment);
    let seika_differs = held.seika_differs(counts, &look.seika_told, &template);
    let status_differs = autoscaler.status.as_ref() != Some(&decision.status);
    let (seika, (), status) = tokio::try_join!(
        async { if seika_differs { writer.seika(counts, &look.deployment).await.map(Some) } else { Ok(None) } },
        writer.serverless_service(look.sks.as_deref(), decision.mode),
        async { if status_differs { writer.status(&decision.status).await.map(Some) } else { Ok(None) } },
    )?;
    if let Some(seika) = seika {
        held.wrote_seika(&seika, counts.clone(), template);
    }
    if let Some(written) = status {
        held.wrote_status(&written);
    }
    match &decision.step {
        Some(step) if step.deployment < look.deployment_told => writer.deployment(step.deployment, &step.victims).await,
        _ => Ok(()),
    }
}

/// Events and logs, on change only.
async fn tell(autoscaler: &PodAutoscaler, key: &RevisionKey, context: &Context, held: &mut Held, decision: &Decision) {
    let was = autoscaler.status.as_ref().is_some_and(is_asleep);
    if was && !is_asleep(&decision.status) {
        context.metrics.wakeups.inc();
    }
    if held.told_target.as_ref() != Some(&decision.target) {
        tracing::info!(revision = %key, target = ?decision.target, demand = decision.stable_demand, panicking = decision.panicking, "placement");
        held.told_target = Some(decision.target.clone());
    }
    let unplaced = decision.unplaced.as_ref().map(|unplaced| unplaced.replicas);
    if unplaced.is_some()
        && held.told_unplaced != unplaced
        && let Some(unplaced) = &decision.unplaced
    {
        let reasons: Vec<String> = unplaced.reasons.iter().map(|(node, reason)| format!("{node}: {}", why(reason))).collect();
        let note = format!("{} pods found no node ({})", unplaced.replicas, reasons.join(", "));
        let note: String = note.chars().take(1000).collect();
        context.notifier.about(&autoscaler.object_ref(&()), EventType::Warning, "NoRoom", note).await;
    }
    held.told_unplaced = unplaced;
}

fn why(reason: &UnplacedReason) -> String {
    match reason {
        UnplacedReason::Full { max_replicas } => format!("full with {max_replicas}"),
        UnplacedReason::Cordoned => "takes no new pods".to_owned(),
        UnplacedReason::Excluded(exclusion) => exclusion.to_string(),
        UnplacedReason::Unreachable => "out of reach".to_owned(),
    }
}
