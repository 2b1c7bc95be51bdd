//! One pass over one Seika: validate, gather, decide, apply, report.
//!
//! Whatever fails on the way is kept and the pass goes on, so that one object that the API server
//! refuses never holds up the others. What failed first ends the pass and has it tried again.

mod claiming;
mod context;
mod report;
mod valid;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::SignedDuration;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use self::claiming::{Claimed, settle_ownership};
pub(crate) use self::context::Context;
use self::report::{reject, tell_of, write_status};
pub(crate) use self::valid::owner_of;
use self::valid::{Valid, validate};
use crate::index::SeikaView;
use crate::metrics::ErrorLabels;
use crate::plan::{PodPlan, plan};
use crate::status::Trouble;
use crate::writes::{Claimant, WriteError};
use k8s_api::seika::{MaybeSeika, REVISION_HISTORY_LIMIT};

/// How long the name of a foreign pod is not tried again.
const TAKEN_FOR: Duration = Duration::from_secs(60);
/// Usual lag of the watch.
const WATCH_LAG: Duration = Duration::from_millis(300);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// Brings one Seika a step closer.
pub(crate) async fn reconcile(seika: Arc<MaybeSeika>, context: Arc<Context>) -> Result<Action, WriteError> {
    let begun = Instant::now();
    if let Some(waited) = context.waiting.ends(&seika.namespace().unwrap_or_default(), &seika.name_any()) {
        context.metrics.queue_seconds.observe(waited.as_secs_f64());
    }
    let owner = owner_of(&*seika);
    owner.iter().for_each(|owner| context.open_book(owner));
    let result = match &seika.0 {
        Ok(seika) if seika.metadata.deletion_timestamp.is_some() => Ok(Action::await_change()),
        Ok(seika) => match validate(seika) {
            Ok(valid) => pass(&valid, &context).await,
            Err(problem) => reject(seika, &context, problem).await.map(|()| Action::await_change()),
        },
        Err(invalid) => {
            tracing::warn!(
                seika = seika.name_any(),
                namespace = seika.namespace(),
                problem = invalid.error,
                "cannot read a seika"
            );
            Ok(Action::await_change())
        }
    };
    owner.iter().for_each(|owner| context.pass_ends(owner));
    context.metrics.reconcile_seconds.observe(begun.elapsed().as_secs_f64());
    result
}

async fn pass(valid: &Valid<'_>, context: &Context) -> Result<Action, WriteError> {
    let owner = &valid.owner;
    if context.writer.index.lock().is_ahead_of_watch(owner) {
        context.metrics.stale_passes.inc();
    }
    let settled = settle_doubts(valid, context).await;
    let Claimed { foreign, again_in: claim_again_in } = settle_ownership(valid, context).await;

    let PodPlan { mut creates, deletes, again_after } = context.look(valid, plan);
    context.with_book(owner, |book| creates.sort_by_key(|create| book.refused_nodes.contains(&create.node)));
    let (wants_creates, wants_deletes) = (!creates.is_empty(), !deletes.is_empty());
    let still_wanted = || is_still_wanted(valid, context);
    let claimant = claimant(valid);
    let (created, deleted, total) = tokio::join!(
        context.writer.create_all(&claimant, &valid.revision, creates, |create| valid.manifest(create), still_wanted),
        context.writer.delete_all(owner, deletes, still_wanted),
        keep_total(valid, context),
    );

    tell_of(valid, context, &created.pods, &deleted.pods);
    let error = created.error.or(deleted.error).or(settled.err()).or(total.err());
    context.with_book(owner, |book| {
        let now = Instant::now();
        book.taken.retain(|_, since| now.duration_since(*since) < TAKEN_FOR);
        book.taken.extend(created.taken.iter().map(|name| (name.clone(), now)));
        book.refused_nodes.retain(|node| created.pods.iter().all(|create| create.node != *node));
        book.refused_nodes.extend(created.refused_nodes);
        created.unlike.iter().for_each(|pod| book.attempts.came_out_unlike(&pod.uid, &pod.name));
        match &error {
            Some(error) => book.trouble = Some(Trouble { reason: error.reason(), message: error.whole_message() }),
            None if wants_creates || wants_deletes || book.failures_in_a_row > 0 => book.trouble = None,
            None => {}
        }
    });
    let status_due = write_status(valid, context, foreign).await;
    // Last, because nothing waits for it; and also after failures, because a template is history
    // from when it was desired.
    let kept = keep_template(valid, context).await;
    let status_due = match (error, status_due, kept) {
        (Some(error), ..) | (None, Err(error), _) | (None, Ok(_), Err(error)) => return Err(error),
        (None, Ok(due), Ok(())) => due,
    };
    context.with_book(owner, |book| {
        book.failures_in_a_row = 0;
        book.refused_nodes.clear();
    });
    let retaken = (!created.taken.is_empty()).then_some(Duration::ZERO);
    let again_after = again_after.map(SignedDuration::unsigned_abs);
    let due = [again_after, claim_again_in, status_due, retaken];
    Ok(due.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

fn claimant<'a>(valid: &'a Valid<'_>) -> Claimant<'a> {
    Claimant { owner: &valid.owner, selector: &valid.selector }
}

/// Whether the spec that a plan was made from still holds. If not, the plan's rest is dropped: the
/// change has queued another pass.
fn is_still_wanted(valid: &Valid<'_>, context: &Context) -> bool {
    let now = context.seikas.get(&ObjectRef::new(&valid.owner.name).within(&valid.owner.namespace));
    now.is_some_and(|now| {
        let planned = valid.seika;
        let same_spec = now.0.as_ref().is_ok_and(|now| {
            // We change the generation ourselves, by writing the total.
            now.metadata.generation == planned.metadata.generation || now.spec.asks_the_same(&planned.spec)
        });
        same_spec && now.meta().uid == planned.metadata.uid && now.meta().deletion_timestamp.is_none()
    })
}

/// A write without an answer.
enum UnansweredWrite {
    Create { name: String },
    Delete { name: String, uid: String },
}

/// Asks about pods that were asked for, or asked to go, without an answer. What stays in doubt is
/// asked for again under its name, so the pass can go on. After the first question that fails, no
/// more are asked.
async fn settle_doubts(valid: &Valid<'_>, context: &Context) -> Result<(), WriteError> {
    let SeikaView { pods, unresolved } = context.writer.index.lock().picture(&valid.owner);
    let doomed = pods.iter().filter(|pod| pod.doomed);
    let deletes = doomed.map(|pod| UnansweredWrite::Delete { name: pod.name.clone(), uid: pod.uid.clone() });
    let creates = unresolved.into_iter().map(|(_, name)| UnansweredWrite::Create { name });
    let doubts: Vec<UnansweredWrite> = deletes.chain(creates).collect();
    let mut asked = FuturesUnordered::new();
    for doubt in doubts {
        if asked.len() >= context.writer.at_once {
            asked.next().await.unwrap_or(Ok(()))?;
        }
        asked.push(settle(valid, context, doubt));
    }
    while let Some(settled) = asked.next().await {
        settled?;
    }
    Ok(())
}

async fn settle(valid: &Valid<'_>, context: &Context, doubt: UnansweredWrite) -> Result<(), WriteError> {
    match doubt {
        UnansweredWrite::Delete { name, uid } => context.writer.settle_delete(&valid.owner, &name, &uid).await,
        UnansweredWrite::Create { name } => {
            if let Some(unlike) = context.writer.settle_create(&claimant(valid), &name).await? {
                context.with_book(&valid.owner, |book| book.attempts.came_out_unlike(&unlike.uid, &unlike.name));
            }
            Ok(())
        }
    }
}

/// Keeps `spec.replicas` the sum of the counts, which disruption budgets go by.
async fn keep_total(valid: &Valid<'_>, context: &Context) -> Result<(), WriteError> {
    let written = (valid.total, valid.seika.metadata.generation);
    if valid.seika.spec.replicas == Some(valid.total) || context.with_book(&valid.owner, |book| book.total == Some(written)) {
        return Ok(());
    }
    match context.writer.write_total(&valid.owner, valid.total).await {
        Ok(()) => {
            context.with_book(&valid.owner, |book| book.total = Some(written));
            Ok(())
        }
        // Of counts that have changed meanwhile it is no longer the sum. The watch may be about to
        // say so.
        Err(error) if error.is_refusal() => {
            tokio::time::sleep(WATCH_LAG).await;
            if is_still_wanted(valid, context) { Err(error) } else { Ok(()) }
        }
        Err(error) => Err(error),
    }
}

/// Keeps the template of the present revision, unless it is known to be kept.
async fn keep_template(valid: &Valid<'_>, context: &Context) -> Result<(), WriteError> {
    if context.with_book(&valid.owner, |book| book.recorded.as_ref() == Some(&valid.revision)) {
        return Ok(());
    }
    let picture = context.writer.index.lock().picture(&valid.owner);
    let used: HashSet<&str> = picture.pods.iter().map(|pod| pod.revision.as_str()).collect();
    let spec = &valid.seika.spec;
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(REVISION_HISTORY_LIMIT)).unwrap_or(0);
    let Valid { owner, owner_reference, revision, .. } = valid;
    context.writer.record_template(owner, owner_reference, revision, &spec.template, &used, limit).await?;
    context.with_book(owner, |book| book.recorded = Some(revision.clone()));
    Ok(())
}

/// What to do after a pass that failed: again, later each time.
pub(crate) fn after_error(seika: &MaybeSeika, error: &WriteError, context: &Context) -> Action {
    context.metrics.reconcile_errors.get_or_create(&ErrorLabels { reason: error.reason() }).inc();
    tracing::warn!(seika = seika.name_any(), namespace = seika.namespace(), error = error.whole_message(), "trying again");
    let Some(owner) = owner_of(seika) else { return Action::await_change() };
    let failures = context.with_book(&owner, |book| {
        book.failures_in_a_row += 1;
        book.failures_in_a_row
    });
    if failures == 1 {
        context.announcer.warning(&seika.object_ref(&()), error.reason(), "Reconcile", error.whole_message());
    }
    Action::requeue((RETRY_FIRST * 2_u32.pow(failures.min(12) - 1)).min(RETRY_LAST))
}
