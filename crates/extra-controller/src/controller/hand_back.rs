//! The way back to the stock autoscaler, a step at a time.

use std::collections::BTreeMap;

use kube::Resource as _;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use gateway_link::RevisionKey;

use super::{Context, Held, LOOK_EVERY, Look, ReconcileError};
use crate::apply::{self, TOTAL_ANNOTATION, Writer};
use crate::handback::{self, BackStep, MARKER, Pods, Where};
use crate::knative::PodAutoscaler;
use crate::rollout::{Counts, Maker};

pub(super) async fn advance(
    autoscaler: &PodAutoscaler,
    key: &RevisionKey,
    context: &Context,
    writer: &Writer<'_>,
    held: &mut Held,
    look: &Look,
) -> Result<Action, ReconcileError> {
    let count = |maker, ready_only: bool| {
        let pods = look.gathered.pods.iter().filter(|pod| pod.maker == maker && (pod.ready || !ready_only)).count();
        u32::try_from(pods).unwrap_or(u32::MAX)
    };
    let pods = Pods {
        seika_told: look.seika_told.values().sum(),
        seika: count(Maker::Seika, false),
        deployment_told: look.deployment_told,
        deployment_ready: count(Maker::Deployment, true),
    };
    let begun = autoscaler.annotations().get(TOTAL_ANNOTATION).and_then(|total| total.parse().ok());
    // Before the Deployment grows, what it has are bootstrap pods, which count.
    let total = begun.unwrap_or_else(|| pods.seika_told + count(Maker::Deployment, false).min(pods.deployment_told));
    let marker = autoscaler.annotations().get(MARKER).map(String::as_str);
    match handback::next(pods, total, marker) {
        BackStep::ScaleDeployment(replicas) => {
            if begun.is_none() {
                writer.annotate(&BTreeMap::from([(TOTAL_ANNOTATION, Some(replicas.to_string().as_str()))])).await?;
            }
            writer.deployment(replicas, &[]).await?;
        }
        BackStep::Wait => {}
        BackStep::DrainSeika => {
            let seika = writer.seika(&Counts::new(), &look.deployment).await?;
            held.wrote_seika(&seika, Counts::new(), apply::pod_template(&key.revision, &look.deployment));
        }
        BackStep::Flip(place) => {
            writer.hand_back(place).await?;
            writer.delete_seika().await?;
            held.seika_is_gone();
            let way = match place {
                Where::PodAutoscaler => "",
                Where::Revision => ", by its annotations too",
            };
            let note = format!("{key} is the stock autoscaler's again{way}");
            context.notifier.about(&autoscaler.object_ref(&()), EventType::Normal, "HandedBack", note).await;
        }
    }
    Ok(Action::requeue(LOOK_EVERY))
}
