//! The writes that one decision comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use autoscaler::handback::{BackStep, MARKER, Where};
use autoscaler::rollout::Counts;
use autoscaler::{Decision, Facts};
use gateway_link::RevisionKey;
use k8s_api::seika::{PodTemplate, Seika};
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, ResourceExt as _};

use super::{TOTAL_ANNOTATION, WriteError, Writer, pod_template};

/// One decision and the objects that it is written to.
pub(crate) struct Job {
    pub(crate) decision: Decision,
    pub(crate) facts: Arc<Facts>,
    pub(crate) autoscaler: Arc<PodAutoscaler>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) sks: Option<Arc<ServerlessService>>,
    /// The decision as a message, for the annotation of the Seika.
    pub(crate) why: Option<String>,
    /// Whether the Seika's template is to be another.
    pub(crate) template_differs: bool,
}

/// What was written of one revision.
#[derive(Debug)]
pub(crate) struct JobResult {
    pub(crate) key: RevisionKey,
    /// The PodAutoscaler after its status was written.
    pub(crate) status: Option<PodAutoscaler>,
    /// The Seika after it was written, and the template that it was given.
    pub(crate) seika: Option<(Seika, PodTemplate)>,
    /// Whether the Seika was deleted, since the revision is the stock class's again.
    pub(crate) flipped: Option<Where>,
    /// Why not all of it was written.
    pub(crate) error: Option<WriteError>,
}

impl Job {
    /// Whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        let (seika, deployment) = self.counts();
        !self.seika_differs(seika)
            && deployment.is_none_or(|deployment| deployment == self.facts.deployment)
            && self.sks.as_ref().is_some_and(|sks| sks.spec.mode == self.decision.mode)
            && self.decision.status == self.facts.status
            && !self.has_leftovers()
            && !matches!(self.decision.back, Some(BackStep::Flip(_)))
    }

    /// Pods per node for the Seika, and replicas for the Deployment; `None` leaves these alone.
    fn counts(&self) -> (&Counts, Option<u32>) {
        match (&self.decision.step, &self.decision.back) {
            (Some(step), _) => (&step.seika, Some(step.deployment)),
            (None, Some(BackStep::Counts { deployment, seika })) => (seika, Some(*deployment)),
            (None, _) => (&self.facts.seika, None),
        }
    }

    fn seika_differs(&self, counts: &Counts) -> bool {
        *counts != self.facts.seika || self.template_differs
    }

    /// Annotations of a hand-back that was not finished, or that was finished and undone by hand.
    fn has_leftovers(&self) -> bool {
        let annotations = self.autoscaler.annotations();
        self.decision.back.is_none() && (annotations.contains_key(MARKER) || annotations.contains_key(TOTAL_ANNOTATION))
    }

    /// Writes. What does not depend on each other is written at once; pods of the Deployment end
    /// last.
    pub(crate) async fn run(self, client: &Client) -> JobResult {
        let mut written = JobResult { key: self.decision.key.clone(), status: None, seika: None, flipped: None, error: None };
        if let Err(error) = self.write(client, &mut written).await {
            written.error = Some(error);
        }
        written
    }

    async fn write(&self, client: &Client, written: &mut JobResult) -> Result<(), WriteError> {
        let writer = Writer::new(client, &self.autoscaler);
        if self.has_leftovers() {
            writer.annotate(&BTreeMap::from([(MARKER, None), (TOTAL_ANNOTATION, None)])).await?;
        }
        let (counts, deployment) = self.counts();
        let seika_differs = self.seika_differs(counts);
        let status_differs = self.decision.status != self.facts.status;
        let (seika, services, status) = tokio::join!(
            async {
                if seika_differs { writer.seika(counts, &self.deployment, self.why.as_deref()).await.map(Some) } else { Ok(None) }
            },
            writer.serverless_service(self.sks.as_deref(), self.decision.mode),
            async { if status_differs { writer.status(&self.decision.status).await.map(Some) } else { Ok(None) } },
        );
        // What was written is known, also where another of the three failed.
        if let Ok(Some(seika)) = &seika {
            written.seika = Some((seika.clone(), pod_template(&self.autoscaler.name_any(), &self.deployment)));
        }
        if let Ok(Some(status)) = &status {
            written.status = Some(status.clone());
        }
        seika?;
        services?;
        status?;
        if let Some(deployment) = deployment.filter(|deployment| *deployment != self.facts.deployment) {
            let victims = self.decision.step.as_ref().map_or(&[][..], |step| &step.victims);
            writer.deployment(deployment, victims).await?;
        }
        if let Some(BackStep::Flip(place)) = self.decision.back {
            writer.hand_back(place).await?;
            writer.delete_seika().await?;
            written.flipped = Some(place);
        }
        Ok(())
    }
}
