//! Runs one rollout check per Ingress while this replica leads.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::progress::IngressProgress;
use super::rollout_check::{Dependencies, check_rollout, clear_refusal};
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::watches::ForeignFinalizer;

/// Follows the progress of Ingresses until the stop. Statuses are written, and foreign finalizers
/// removed, only while `leading` is true. Refusals by gateways are the exception: only the replica
/// that the gateway is connected to knows them, so that replica writes and withdraws them.
pub(crate) async fn supervise(
    mut progress_changes: mpsc::UnboundedReceiver<(ObjectName, Option<IngressProgress>)>,
    mut held: mpsc::Receiver<ForeignFinalizer>,
    mut leading: watch::Receiver<bool>,
    dependencies: Dependencies,
    stop: CancellationToken,
) {
    let mut all: BTreeMap<ObjectName, IngressProgress> = BTreeMap::new();
    let mut to_release: BTreeMap<ObjectName, ForeignFinalizer> = BTreeMap::new();
    let mut pursuits: BTreeMap<ObjectName, JoinHandle<()>> = BTreeMap::new();
    loop {
        let leads = *leading.borrow_and_update();
        dependencies.metrics.leading.set(i64::from(leads));
        tokio::select! {
            news = progress_changes.recv() => match news {
                Some((name, current)) => {
                    let same_work = current.as_ref().zip(all.get(&name)).is_some_and(|(new, old)| {
                        (new.generation, &new.progress) == (old.generation, &old.progress)
                    });
                    match current {
                        Some(current) => {
                            let before = all.insert(name.clone(), current.clone());
                            let was_refused = before.as_ref().is_some_and(IngressProgress::is_refused_by_gateway);
                            let said_refused = before.as_ref().is_some_and(IngressProgress::says_refused_by_gateway);
                            // Our own status write comes back as a change; the check that wrote it
                            // needs no restart. A write of another replica does.
                            let same_words = said_refused == current.says_refused_by_gateway();
                            let busy = pursuits.get(&name).is_some_and(|pursuit| !pursuit.is_finished());
                            let goes_on = same_work && same_words && busy;
                            if (leads || current.is_refused_by_gateway()) && !goes_on {
                                restart(&mut pursuits, name, current, &dependencies);
                            } else if !leads && was_refused && !current.is_refused_by_gateway() {
                                let taken = tokio::spawn(clear_refusal(name.clone(), current, dependencies.clone()));
                                if let Some(before) = pursuits.insert(name, taken) {
                                    before.abort();
                                }
                            }
                        }
                        None => {
                            all.remove(&name);
                            if let Some(pursuit) = pursuits.remove(&name) {
                                pursuit.abort();
                            }
                        }
                    }
                }
                None => break,
            },
            Some(one) = held.recv() => {
                if leads {
                    tokio::spawn(release(one, dependencies.clone()));
                } else {
                    to_release.insert(one.name.clone(), one);
                }
            }
            changed = leading.changed() => {
                if changed.is_err() {
                    break;
                }
                for (_, pursuit) in std::mem::take(&mut pursuits) {
                    pursuit.abort();
                }
                let leads = *leading.borrow();
                for (name, current) in all.iter().filter(|(_, current)| leads || current.is_refused_by_gateway()) {
                    restart(&mut pursuits, name.clone(), current.clone(), &dependencies);
                }
                if leads {
                    for one in std::mem::take(&mut to_release).into_values() {
                        tokio::spawn(release(one, dependencies.clone()));
                    }
                }
            }
            () = stop.cancelled() => break,
        }
    }
    for pursuit in pursuits.into_values() {
        pursuit.abort();
    }
}

fn restart(
    pursuits: &mut BTreeMap<ObjectName, JoinHandle<()>>,
    name: ObjectName,
    current: IngressProgress,
    dependencies: &Dependencies,
) {
    let pursuit = tokio::spawn(check_rollout(name.clone(), current, dependencies.clone()));
    if let Some(before) = pursuits.insert(name, pursuit) {
        before.abort();
    }
}

async fn release(held: ForeignFinalizer, dependencies: Dependencies) {
    match dependencies.writer.release(&held).await {
        Ok(()) => tracing::info!(ingress = %held.name, "removed another implementation's finalizer"),
        // The object changed meanwhile: its next event has it again.
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "retrying with the next event of the object"),
    }
}
