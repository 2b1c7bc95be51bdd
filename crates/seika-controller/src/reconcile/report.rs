//! Status, events and logs.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::core::SelectorExt as _;
use kube::{Resource as _, ResourceExt as _};

use crate::index::Owner;
use crate::manifest;
use crate::plan::{Create, Delete};
use crate::status::{Circumstances, next_deadline, rejected, status};
use crate::writes::WriteError;
use k8s_api::seika::Seika;

use super::context::Context;
use super::valid::{Valid, owner_of};

/// Statuses of one Seika are written no faster than this, so that a thousand pods becoming ready do
/// not cost a thousand writes.
const STATUS_SPACING: Duration = Duration::from_millis(100);

/// Writes the status if it changed. Returns when to write it if it is too early now.
pub(super) async fn write_status(
    valid: &Valid<'_>,
    context: &Context,
    mut foreign: Vec<String>,
) -> Result<Option<Duration>, WriteError> {
    foreign.extend(overlapping(valid, context));
    let (trouble, written) =
        context.with_book(&valid.owner, |book| (book.trouble.clone().or_else(|| book.attempts.trouble()), book.written.clone()));
    // The store may be behind what was written last.
    let stored = valid.seika.status.clone().unwrap_or_default();
    let known = written.as_ref().map_or(&stored, |(status, _)| status);
    let circumstances = Circumstances {
        generation: valid.seika.metadata.generation,
        trouble: trouble.as_ref(),
        foreign: &foreign,
        selector: Some(&valid.selector_text),
        before: Some(known),
    };
    let status = context.look(valid, |asked, seen| status(asked, seen, &circumstances));
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

pub(super) fn tell_of(valid: &Valid<'_>, context: &Context, created: &[Create], deleted: &[Delete]) {
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

/// Says why nothing is done. The pods stay as they are: a mistake in a spec must not cost what
/// serves.
pub(super) async fn reject(seika: &Seika, context: &Context, problem: String) -> Result<(), WriteError> {
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
