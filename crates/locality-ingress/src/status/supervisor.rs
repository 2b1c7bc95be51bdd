//! Runs one pursuit per Ingress while this replica leads.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pursuit::{Means, pursue, tell_taken};
use super::standing::Standing;
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::watches::Held;

/// Follows the standings until the stop. Statuses are written, and foreign finalizers removed, only
/// while `leading` is true; except for what gateways refused: only the replica that such a gateway
/// is connected to knows it, so that one says it, and says so when it is over.
pub(crate) async fn supervise(
    mut standings: mpsc::UnboundedReceiver<(ObjectName, Option<Standing>)>,
    mut held: mpsc::Receiver<Held>,
    mut leading: watch::Receiver<bool>,
    means: Means,
    stop: CancellationToken,
) {
    let mut all: BTreeMap<ObjectName, Standing> = BTreeMap::new();
    let mut to_release: BTreeMap<ObjectName, Held> = BTreeMap::new();
    let mut pursuits: BTreeMap<ObjectName, JoinHandle<()>> = BTreeMap::new();
    loop {
        let leads = *leading.borrow_and_update();
        means.metrics.leading.set(i64::from(leads));
        tokio::select! {
            news = standings.recv() => match news {
                Some((name, standing)) => {
                    let same_work = standing.as_ref().zip(all.get(&name)).is_some_and(|(new, old)| {
                        (new.generation, &new.progress) == (old.generation, &old.progress)
                    });
                    match standing {
                        Some(standing) => {
                            let before = all.insert(name.clone(), standing.clone());
                            let was_refused = before.as_ref().is_some_and(Standing::is_refused_by_gateway);
                            let said_refused = before.as_ref().is_some_and(Standing::says_refused_by_gateway);
                            // Our own write of the status comes back; the pursuit that wrote it
                            // needs no restart. What another replica wrote is news.
                            let same_words = said_refused == standing.says_refused_by_gateway();
                            let busy = pursuits.get(&name).is_some_and(|pursuit| !pursuit.is_finished());
                            let goes_on = same_work && same_words && busy;
                            if (leads || standing.is_refused_by_gateway()) && !goes_on {
                                restart(&mut pursuits, name, standing, &means);
                            } else if !leads && was_refused && !standing.is_refused_by_gateway() {
                                let taken = tokio::spawn(tell_taken(name.clone(), standing, means.clone()));
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
                    tokio::spawn(release(one, means.clone()));
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
                for (name, standing) in all.iter().filter(|(_, standing)| leads || standing.is_refused_by_gateway()) {
                    restart(&mut pursuits, name.clone(), standing.clone(), &means);
                }
                if leads {
                    for one in std::mem::take(&mut to_release).into_values() {
                        tokio::spawn(release(one, means.clone()));
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

fn restart(pursuits: &mut BTreeMap<ObjectName, JoinHandle<()>>, name: ObjectName, standing: Standing, means: &Means) {
    let pursuit = tokio::spawn(pursue(name.clone(), standing, means.clone()));
    if let Some(before) = pursuits.insert(name, pursuit) {
        before.abort();
    }
}

async fn release(held: Held, means: Means) {
    match means.writer.release(&held).await {
        Ok(()) => tracing::info!(ingress = %held.name, "released from a foreign finalizer"),
        // It changed meanwhile: its next event tells of it again.
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "will be tried again with its next event"),
    }
}
