//! Adopts and releases pods. What fails is noted and tried again; it never stops the pass.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::observed::PodView;
use crate::ownership::{Claims, claims};
use crate::status::Trouble;
use crate::writes::WriteError;

use super::context::Context;
use super::valid::Valid;

/// What came of it.
pub(super) struct Claimed {
    /// Pods of other owners that the selector matches.
    pub(super) foreign: Vec<String>,
    /// When to try again what failed or has to wait.
    pub(super) again_in: Option<Duration>,
}

/// Takes in orphans that match, lets go what no longer does.
pub(super) async fn settle_ownership(valid: &Valid<'_>, context: &Context) -> Claimed {
    let owner = &valid.owner;
    let (Claims { adopt, release, foreign }, unseen) = {
        let index = context.writer.index.lock();
        let picture = index.picture(owner);
        let unseen = picture.pods.iter().filter(|pod| pod.labels.is_none());
        let unseen: HashSet<String> = unseen.map(|pod| pod.uid.clone()).collect();
        (claims(&valid.selector, &picture, index.strays(&owner.namespace)), unseen)
    };
    let claimed: HashSet<String> = adopt.iter().chain(&release).map(|pod| pod.uid.clone()).collect();
    context.with_book(owner, |book| book.attempts.retain(|uid| claimed.contains(uid), |uid| unseen.contains(uid)));
    adopt_all(valid, context, due(valid, context, adopt)).await;
    release_all(valid, context, due(valid, context, release)).await;
    let again_in = context.with_book(owner, |book| book.attempts.again_in(valid.total, Instant::now()));
    Claimed { foreign, again_in }
}

/// Those that were not refused only just now, and that did match once.
fn due(valid: &Valid<'_>, context: &Context, pods: Vec<Arc<PodView>>) -> Vec<Arc<PodView>> {
    let now = Instant::now();
    context.with_book(&valid.owner, |book| {
        pods.into_iter().filter(|pod| book.attempts.is_due(&pod.uid, now) && !book.attempts.is_unlike(&pod.uid)).collect()
    })
}

async fn adopt_all(valid: &Valid<'_>, context: &Context, orphans: Vec<Arc<PodView>>) {
    if orphans.is_empty() {
        return;
    }
    match context.writer.may_adopt(&valid.owner).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            for orphan in &orphans {
                failed(valid, context, orphan, &error);
            }
            return;
        }
    }
    for orphan in orphans {
        match context.writer.adopt(&valid.owner, &valid.owner_reference, &orphan).await {
            Ok(adopted) => {
                context.with_book(&valid.owner, |book| book.attempts.done(&orphan.uid));
                if adopted {
                    announce_done(valid, context, ("SuccessfulAdopt", "Adopt", "adopted"), &orphan);
                }
            }
            Err(error) => {
                failed(valid, context, &orphan, &error);
                // One that is slow to fail must not hold up what pods are waited for.
                if !error.is_refusal() {
                    return;
                }
            }
        }
    }
}

async fn release_all(valid: &Valid<'_>, context: &Context, pods: Vec<Arc<PodView>>) {
    let mut waiting = 0;
    for (index, pod) in pods.iter().enumerate() {
        if !context.with_book(&valid.owner, |book| book.attempts.may_release(valid.total, Instant::now())) {
            waiting = pods.len() - index;
            break;
        }
        match context.writer.release(&valid.owner, pod).await {
            Ok(released) => {
                context.with_book(&valid.owner, |book| {
                    book.attempts.done(&pod.uid);
                    if released {
                        book.attempts.released(Instant::now());
                    }
                });
                if released {
                    announce_done(valid, context, ("SuccessfulRelease", "Release", "released"), pod);
                }
            }
            Err(error) => {
                failed(valid, context, pod, &error);
                if !error.is_refusal() {
                    break;
                }
            }
        }
    }
    context.with_book(&valid.owner, |book| book.attempts.wait_for_release(waiting));
}

/// Records the failure, and publishes an event the first time.
fn failed(valid: &Valid<'_>, context: &Context, pod: &PodView, error: &WriteError) {
    let trouble = Trouble { reason: error.reason(), message: error.whole_message() };
    let first = context.with_book(&valid.owner, |book| book.attempts.failed(&pod.uid, trouble, Instant::now()));
    if first {
        tracing::warn!(
            seika = valid.owner.name,
            namespace = valid.owner.namespace,
            pod = pod.name,
            error = error.whole_message(),
            "going on without"
        );
        context.announcer.warning(&valid.reference, error.reason(), "Claim", error.whole_message());
    }
}

fn announce_done(valid: &Valid<'_>, context: &Context, (reason, action, done): (&str, &str, &str), pod: &PodView) {
    tracing::info!(seika = valid.owner.name, namespace = valid.owner.namespace, pod = pod.name, "{done}");
    context.announcer.done(&valid.reference, reason, action, &pod.name, format!("{done} {}", pod.name));
}
