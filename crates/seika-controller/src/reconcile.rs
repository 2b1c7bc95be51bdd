//! One pass over one Seika: validate, gather, decide, apply, status.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{Selector, SelectorExt as _};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};

use crate::announce::Announcer;
use crate::backoff::Backoffs;
use crate::crd::{MaybeSeika, REVISION_HISTORY_LIMIT, Rollout, Seika, SeikaStatus};
use crate::index::Owner;
use crate::manifest;
use crate::metrics::{ErrorLabels, Metrics};
use crate::naming::revision;
use crate::observed::{Nodes, PodView};
use crate::ownership::{Claims, claims};
use crate::plan::{Asked, Create, Delete, Plan, Seen, plan};
use crate::queue::Waiting;
use crate::status::{Circumstances, Trouble, next_deadline, rejected, status};
use crate::taints::Tolerations;
use crate::writes::{WriteError, Writer};

/// Statuses of one Seika are written no faster than this, so that a thousand pods becoming ready do not cost a thousand writes.
const STATUS_SPACING: Duration = Duration::from_millis(100);
/// For how long a name that somebody else holds is not asked for again.
const TAKEN_FOR: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// What is remembered of a Seika between passes.
#[derive(Debug, Default)]
struct Book {
    written: Option<(SeikaStatus, Instant)>,
    taken: HashMap<String, Instant>,
    failures_in_a_row: u32,
    trouble: Option<Trouble>,
    /// The revision whose template is known to be kept.
    recorded: Option<String>,
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
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).forget(&owner.uid);
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner.uid);
    }

    /// Seikas that went while nobody watched are no more either.
    pub(crate) fn forget_all_but_stored(&self) {
        let stored: HashSet<String> = self.seikas.state().iter().filter_map(|seika| seika.uid()).collect();
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid| stored.contains(uid));
        self.books.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| stored.contains(uid));
    }

    fn with_book<T>(&self, owner: &Owner, read_or_write: impl FnOnce(&mut Book) -> T) -> T {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        read_or_write(books.entry(owner.uid.clone()).or_default())
    }
}

/// A Seika that passed validation, and what follows from its spec.
struct Valid<'a> {
    seika: &'a Seika,
    owner: Owner,
    reference: ObjectReference,
    owner_reference: OwnerReference,
    labels: std::collections::BTreeMap<String, String>,
    selector: Selector,
    revision: String,
    rollout: Rollout,
    tolerations: Tolerations,
}

impl Valid<'_> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            seika: &self.owner.name,
            uid: &self.owner.uid,
            counts: &self.seika.spec.repurika,
            revision: &self.revision,
            rollout: &self.rollout,
            min_ready: SignedDuration::from_secs(self.seika.spec.min_ready_seconds.into()),
            tolerations: &self.tolerations,
        }
    }

    fn manifest(&self, create: &Create) -> serde_json::Value {
        manifest::pod(&create.name, &create.node, &self.revision, &self.labels, &self.seika.spec.template, &self.owner_reference)
    }
}

pub(crate) fn owner_of(seika: &impl kube::Resource<DynamicType = ()>) -> Option<Owner> {
    let metadata = seika.meta();
    Some(Owner { uid: metadata.uid.clone()?, namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
}

/// What the API server's own validation cannot see.
fn validate(seika: &Seika) -> Result<Valid<'_>, String> {
    let owner = owner_of(seika).ok_or("it has no UID")?;
    let selector = Selector::try_from(seika.spec.selector.clone()).map_err(|error| format!("its selector: {error}"))?;
    let match_labels = seika.spec.selector.match_labels.clone().unwrap_or_default();
    let labels = manifest::labels(&match_labels, &seika.spec.template);
    if !selector.matches(&labels) {
        return Err("its selector does not match the labels of its own template".to_owned());
    }
    let owner_reference = seika.controller_owner_ref(&()).ok_or("it has no name")?;
    Ok(Valid {
        seika,
        owner,
        reference: seika.object_ref(&()),
        owner_reference,
        labels,
        selector,
        revision: revision(&seika.spec.template),
        rollout: seika.spec.rollout.clone().unwrap_or_default(),
        tolerations: Tolerations::of(&seika.spec.template),
    })
}

/// Brings one Seika a step closer.
pub(crate) async fn reconcile(seika: Arc<MaybeSeika>, context: Arc<Context>) -> Result<Action, WriteError> {
    let begun = Instant::now();
    if let Some(waited) = context.waiting.ends(&seika.namespace().unwrap_or_default(), &seika.name_any()) {
        context.metrics.queue_seconds.observe(waited.as_secs_f64());
    }
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
    context.metrics.reconcile_seconds.observe(begun.elapsed().as_secs_f64());
    result
}

async fn pass(valid: &Valid<'_>, context: &Context) -> Result<Action, WriteError> {
    let owner = &valid.owner;
    if context.writer.index.lock().is_ahead_of_watch(owner) {
        context.metrics.stale_passes.inc();
    }
    settle_doubts(owner, context).await?;
    let foreign = settle_ownership(valid, context).await?;

    let Plan { creates, deletes, again_after } = look(valid, context, plan);
    let (wants_creates, wants_deletes) = (!creates.is_empty(), !deletes.is_empty());
    let still_wanted = || is_still_wanted(valid, context);
    let (created, deleted) = tokio::join!(
        context.writer.create_all(owner, &valid.revision, creates, |create| valid.manifest(create), still_wanted),
        context.writer.delete_all(owner, deletes, still_wanted),
    );

    tell_of(valid, context, &created.pods, &deleted.pods);
    let error = created.error.or(deleted.error);
    context.with_book(owner, |book| {
        let now = Instant::now();
        book.taken.retain(|_, since| now.duration_since(*since) < TAKEN_FOR);
        book.taken.extend(created.taken.iter().map(|name| (name.clone(), now)));
        match &error {
            Some(error) => book.trouble = Some(Trouble { reason: error.reason(), message: error.whole_message() }),
            None if wants_creates || wants_deletes || book.failures_in_a_row > 0 => book.trouble = None,
            None => {}
        }
    });
    let status_due = write_status(valid, context, foreign).await?;
    if let Some(error) = error {
        return Err(error);
    }
    // Last, for nobody waits for it.
    keep_template(valid, context).await?;
    context.with_book(owner, |book| book.failures_in_a_row = 0);
    let retaken = (!created.taken.is_empty()).then_some(Duration::ZERO);
    let again_after = again_after.map(SignedDuration::unsigned_abs);
    Ok([again_after, status_due, retaken].into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// Whether the spec that a plan was made from still holds. If not, the plan's rest is dropped: the change has queued another pass.
fn is_still_wanted(valid: &Valid<'_>, context: &Context) -> bool {
    let now = context.seikas.get(&ObjectRef::new(&valid.owner.name).within(&valid.owner.namespace));
    now.is_some_and(|now| {
        let (now, planned) = (now.meta(), &valid.seika.metadata);
        now.uid == planned.uid && now.generation == planned.generation && now.deletion_timestamp.is_none()
    })
}

/// Asks about pods that were asked for, or asked to go, without an answer.
async fn settle_doubts(owner: &Owner, context: &Context) -> Result<(), WriteError> {
    let picture = context.writer.index.lock().picture(owner);
    for pod in picture.pods.iter().filter(|pod| pod.doomed) {
        context.writer.settle_delete(owner, &pod.name, &pod.uid).await?;
    }
    for (_, name) in &picture.unresolved {
        context.writer.settle_create(owner, name).await?;
    }
    Ok(())
}

/// Takes in orphans that match, lets go what no longer does. Returns pods of other owners that match.
async fn settle_ownership(valid: &Valid<'_>, context: &Context) -> Result<Vec<String>, WriteError> {
    let owner = &valid.owner;
    let Claims { adopt, release, foreign } = {
        let index = context.writer.index.lock();
        claims(&valid.selector, &index.picture(owner), index.strays(&owner.namespace))
    };
    if !adopt.is_empty() && context.writer.may_adopt(owner).await? {
        for orphan in adopt {
            if context.writer.adopt(owner, &valid.owner_reference, &orphan).await? {
                tell_of_pod(valid, context, "SuccessfulAdopt", "Adopt", &orphan, "adopted");
            }
        }
    }
    for pod in release {
        if context.writer.release(owner, &pod).await? {
            tell_of_pod(valid, context, "SuccessfulRelease", "Release", &pod, "released");
        }
    }
    Ok(foreign)
}

fn tell_of_pod(valid: &Valid<'_>, context: &Context, reason: &str, action: &str, pod: &PodView, done: &str) {
    tracing::info!(seika = valid.owner.name, namespace = valid.owner.namespace, pod = pod.name, "{done}");
    context.announcer.done(&valid.reference, reason, action, &pod.name, format!("{done} {}", pod.name));
}

/// Shows `decide` what is asked and seen now.
fn look<T>(valid: &Valid<'_>, context: &Context, decide: impl FnOnce(&Asked<'_>, &Seen<'_>) -> T) -> T {
    let picture = context.writer.index.lock().picture(&valid.owner);
    let taken: HashSet<String> = context.with_book(&valid.owner, |book| book.taken.keys().cloned().collect());
    let now = Timestamp::now();
    let pods = picture.pods.iter().map(|pod| -> &PodView { pod });
    let held = context.backoffs.lock().unwrap_or_else(PoisonError::into_inner).observe(&valid.owner.uid, pods, now);
    let nodes = context.nodes.read().unwrap_or_else(PoisonError::into_inner);
    decide(&valid.asked(), &Seen { nodes: &nodes, picture: &picture, taken: &taken, held: &held, now })
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

/// Writes the status if it changed. Returns when to write it if it is too early now.
async fn write_status(valid: &Valid<'_>, context: &Context, mut foreign: Vec<String>) -> Result<Option<Duration>, WriteError> {
    foreign.extend(overlapping(valid, context));
    let (trouble, written) = context.with_book(&valid.owner, |book| (book.trouble.clone(), book.written.clone()));
    // The store may be behind what was written last.
    let stored = valid.seika.status.clone().unwrap_or_default();
    let known = written.as_ref().map_or(&stored, |(status, _)| status);
    let circumstances = Circumstances {
        generation: valid.seika.metadata.generation,
        trouble: trouble.as_ref(),
        foreign: &foreign,
        before: Some(known),
    };
    let status = look(valid, context, |asked, seen| status(asked, seen, &circumstances));
    // Nothing may happen until then: that is what the deadline is about.
    let deadline = next_deadline(&status, &valid.rollout, Timestamp::now()).map(SignedDuration::unsigned_abs);
    let since_written = written.as_ref().map(|(_, at)| at.elapsed());
    // Somebody else may have written over it, which the store shows sooner or later.
    let overwritten = stored != status && since_written.is_none_or(|since| since > Duration::from_secs(10));
    if *known == status && !overwritten {
        return Ok(deadline);
    }
    if let Some(wait) = since_written.and_then(|since| STATUS_SPACING.checked_sub(since)) {
        return Ok(Some(wait));
    }
    context.writer.write_status(&valid.owner, &status).await?;
    context.with_book(&valid.owner, |book| book.written = Some((status, Instant::now())));
    Ok(deadline)
}

/// Other Seikas of the namespace whose pods this one's selector matches too.
fn overlapping(valid: &Valid<'_>, context: &Context) -> Vec<String> {
    let others = context.seikas.state();
    let mut names: Vec<String> = others
        .iter()
        .filter_map(|other| other.0.as_ref().ok())
        .filter(|other| {
            other.metadata.namespace == valid.seika.metadata.namespace && other.metadata.uid != valid.seika.metadata.uid
        })
        .filter(|other| {
            let match_labels = other.spec.selector.match_labels.clone().unwrap_or_default();
            valid.selector.matches(&manifest::labels(&match_labels, &other.spec.template))
        })
        .map(|other| format!("the pods of seika {}", other.name_any()))
        .collect();
    names.sort();
    names
}

fn tell_of(valid: &Valid<'_>, context: &Context, created: &[Create], deleted: &[Delete]) {
    let Owner { namespace, name, .. } = &valid.owner;
    if !created.is_empty() {
        let names: Vec<&str> = created.iter().map(|create| create.name.as_str()).collect();
        tracing::info!(seika = name, namespace, pods = names.len(), first = names[0], "created");
        let note = format!("created {}", names.join(", "));
        context.announcer.done(&valid.reference, "SuccessfulCreate", "Create", names[0], note);
    }
    if !deleted.is_empty() {
        let names: Vec<String> = deleted.iter().map(|delete| format!("{} ({:?})", delete.name, delete.cause)).collect();
        tracing::info!(seika = name, namespace, pods = names.len(), first = names[0], "deleted");
        let note = format!("deleted {}", names.join(", "));
        context.announcer.done(&valid.reference, "SuccessfulDelete", "Delete", &deleted[0].name, note);
    }
}

/// Says why nothing is done. The pods stay as they are: a mistake in a spec must not cost what serves.
async fn reject(seika: &Seika, context: &Context, problem: String) -> Result<(), WriteError> {
    let Some(owner) = owner_of(seika) else { return Ok(()) };
    let before = seika.status.clone().unwrap_or_default();
    let status = rejected(&before, seika.metadata.generation, &problem, Timestamp::now());
    if status == before {
        return Ok(());
    }
    tracing::warn!(seika = owner.name, namespace = owner.namespace, problem, "cannot act on a seika");
    context.announcer.warning(&seika.object_ref(&()), "Invalid", "Validate", problem);
    context.writer.write_status(&owner, &status).await?;
    context.with_book(&owner, |book| book.written = Some((status, Instant::now())));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seika(selector: &serde_json::Value) -> Seika {
        let spec = json!({ "repurika": { "node1": 1 }, "selector": selector,
            "template": { "metadata": { "labels": { "tier": "front" } }, "spec": { "containers": [] } } });
        let metadata = json!({ "name": "hello", "namespace": "default", "uid": "uid" });
        let seika = json!({ "apiVersion": "batch.bonavadeur.io/v1", "kind": "Seika", "metadata": metadata, "spec": spec });
        serde_json::from_value(seika).unwrap()
    }

    /// The API server refuses these, but may hold some from before it did.
    #[test]
    fn a_seika_whose_pods_would_not_be_its_own_is_not_acted_on() {
        let expression = |key: &str, operator: &str| json!({ "matchExpressions": [{ "key": key, "operator": operator }] });
        assert!(validate(&seika(&json!({ "matchLabels": { "app": "hello" } }))).is_ok());
        assert!(validate(&seika(&expression("tier", "Exists"))).is_ok());
        assert!(validate(&seika(&json!({ "matchLabels": { "tier": "back" } }))).is_err());
        assert!(validate(&seika(&expression("app", "Exists"))).is_err());
        assert!(validate(&seika(&expression("tier", "DoesNotExist"))).is_err());
        assert!(validate(&seika(&expression("tier", "Resembles"))).is_err());
    }
}
