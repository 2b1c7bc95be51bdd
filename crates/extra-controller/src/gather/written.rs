//! What was written and the stores may not show yet.

use autoscaler::rollout::Counts;
use k8s_api::seika::{PodTemplate, Seika};
use k8s_api::{PodAutoscaler, PodAutoscalerStatus};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

/// What was written of one revision. Lost without harm with the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// UID of the PodAutoscaler that all this is about.
    pub(super) uid: String,
    status: Option<(u64, PodAutoscalerStatus)>,
    seika: Option<(u64, Counts)>,
    /// The version at which the watch has seen a Seika of that name deleted last.
    deleted_at: u64,
    template: Option<PodTemplate>,
    /// UID and generation of the Deployment whose template was found to be the Seika's.
    same_as: Option<(String, i64)>,
    /// Whether its ServiceMonitor was written.
    pub(crate) has_monitor: bool,
}

impl Written {
    /// Nothing was written of the revision whose PodAutoscaler has this UID.
    pub(super) fn of(uid: String) -> Self {
        Self { uid, ..Self::default() }
    }

    /// The newest status that is known: the watch may be a moment behind what was written.
    pub(super) fn status(&mut self, seen: &PodAutoscaler) -> PodAutoscalerStatus {
        if let Some((written, status)) = &self.status {
            if version(&seen.resource_version()) < *written {
                return status.clone();
            }
            self.status = None;
        }
        seen.status.clone().unwrap_or_default()
    }

    /// The newest known counts. Once the watch has shown the last write, the watch counts, also
    /// when it shows that the Seika was deleted.
    pub(super) fn seika(&mut self, seen: Option<&Seika>) -> Counts {
        if let Some((written, counts)) = &self.seika {
            if seen.is_none_or(|seen| version(&seen.resource_version()) < *written) {
                return counts.clone();
            }
            self.seika = None;
        }
        seen.map(counts).unwrap_or_default()
    }

    /// The status was written, and this is the object now.
    pub(crate) fn wrote_status(&mut self, written: &PodAutoscaler) {
        if let Some(status) = &written.status {
            self.status = Some((version(&written.resource_version()), status.clone()));
        }
    }

    /// The Seika was written, and this is the object now.
    pub(crate) fn wrote_seika(&mut self, written: &Seika, template: PodTemplate) {
        // The answer to a write may come after the watch has shown both it and the deletion.
        let written_at = version(&written.resource_version());
        self.seika = (written_at > self.deleted_at).then(|| (written_at, counts(written)));
        (self.template, self.same_as) = (Some(template), None);
    }

    /// The watch has told that the Seika was deleted at this version. Without it, a Seika that is
    /// deleted before anybody looked would be believed to be there.
    pub(super) fn seika_was_deleted(&mut self, at: &Option<String>) {
        self.deleted_at = version(at);
        self.seika = self.seika.take().filter(|(written, _)| *written > self.deleted_at);
    }

    /// The Seika was deleted, here or elsewhere.
    pub(crate) fn seika_is_gone(&mut self) {
        (self.seika, self.template, self.same_as) = (None, None, None);
    }

    /// Whether the Seika's template is other than the `Deployment`'s asks for, which `wanted` makes
    /// of it. What was last written counts; a program that has just started finds that in `held`,
    /// the Seika that the store shows, if it is this revision's.
    pub(crate) fn template_differs(
        &mut self,
        held: Option<&Seika>,
        deployment: &Deployment,
        wanted: impl FnOnce(&Deployment) -> PodTemplate,
    ) -> bool {
        // A generation has one template: making and comparing it takes longer than a decision.
        let generation = deployment.uid().zip(deployment.metadata.generation);
        if generation.is_some() && self.same_as == generation {
            return false;
        }
        let is_own =
            |seika: &&Seika| seika.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == self.uid);
        let template = self.template.as_ref().or_else(|| held.filter(is_own).map(|seika| &seika.spec.template));
        let is_same = template.is_some_and(|template| *template == wanted(deployment));
        self.same_as = generation.filter(|_| is_same);
        !is_same
    }
}

/// Versions of one kind of object are comparable numbers; one that is not counts as old.
fn version(version: &Option<String>) -> u64 {
    version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Pods per node that a Seika asks for.
pub(crate) fn counts(seika: &Seika) -> Counts {
    let counts = seika.spec.repurika.iter().filter_map(|(node, count)| Some((node.as_str().into(), u32::try_from(*count).ok()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seika(version: u64, on_node1: u32) -> (Seika, Counts) {
        let counts = Counts::from([("node1".into(), on_node1)]);
        let spec = serde_json::json!({
            "metadata": { "name": "hello-00001", "resourceVersion": version.to_string() },
            "spec": { "repurika": { "node1": on_node1 }, "selector": {}, "template": {} },
        });
        (serde_json::from_value(spec).unwrap(), counts)
    }

    #[test]
    fn what_was_written_holds_until_the_watch_has_shown_it() {
        let mut held = Written::default();
        let (old, _) = seika(5, 1);
        let (written, counts) = seika(7, 2);
        held.wrote_seika(&written, PodTemplate::default());
        assert_eq!(held.seika(None), counts);
        assert_eq!(held.seika(Some(&old)), counts);
        assert_eq!(held.seika(Some(&written)), counts);
        // Somebody deleted it: it has to be written again.
        assert_eq!(held.seika(None), Counts::new());
    }

    #[test]
    fn one_that_was_deleted_before_anybody_looked_is_gone() {
        let mut held = Written::default();
        let (written, counts) = seika(7, 2);
        held.wrote_seika(&written, PodTemplate::default());
        // An earlier one of the name.
        held.seika_was_deleted(&Some("6".to_owned()));
        assert_eq!(held.seika(None), counts);
        held.seika_was_deleted(&Some("8".to_owned()));
        assert_eq!(held.seika(None), Counts::new());
        // The watch may be quicker than the answer to the write.
        held.wrote_seika(&written, PodTemplate::default());
        assert_eq!(held.seika(None), Counts::new());
        let (made_again, counts) = seika(9, 1);
        held.wrote_seika(&made_again, PodTemplate::default());
        assert_eq!(held.seika(None), counts);
    }

    fn deployment(generation: i64, image: &str) -> Deployment {
        let deployment = serde_json::json!({
            "metadata": { "name": "hello-00001-deployment", "uid": "d", "generation": generation },
            "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "a", "image": image }] } } },
        });
        serde_json::from_value(deployment).unwrap()
    }

    fn wanted(deployment: &Deployment) -> PodTemplate {
        PodTemplate::from(deployment.spec.clone().unwrap().template)
    }

    #[test]
    fn a_program_that_has_just_started_finds_the_template_in_the_seika() {
        let (mut found, _) = seika(5, 1);
        let (now, next) = (deployment(1, "one"), deployment(2, "two"));
        found.spec.template = wanted(&now);
        let differs =
            |held: &mut Written, seika: Option<&Seika>, deployment: &Deployment| held.template_differs(seika, deployment, wanted);
        // Neither no Seika nor that of an earlier PodAutoscaler will do.
        let mut held = Written::of("pa".to_owned());
        assert!(differs(&mut held, None, &now) && differs(&mut held, Some(&found), &now));
        let owner =
            serde_json::json!({"apiVersion": "a/v1", "kind": "PodAutoscaler", "name": "a", "uid": "pa", "controller": true});
        found.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
        assert!(!differs(&mut held, Some(&found), &now));
        assert!(!held.template_differs(Some(&found), &now, |_| unreachable!("a generation is compared once")));
        assert!(differs(&mut held, Some(&found), &next));
        // Knative's next template is written, and the store does not show it yet.
        held.wrote_seika(&found, wanted(&next));
        assert!(!differs(&mut held, Some(&found), &next));
        // Scaled: another generation of the same template.
        assert!(!differs(&mut held, Some(&found), &deployment(3, "two")));
        held.seika_is_gone();
        assert!(differs(&mut held, None, &deployment(3, "two")));
    }
}
