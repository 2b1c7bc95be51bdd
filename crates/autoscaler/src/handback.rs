//! Handing a revision back to the stock autoscaler and taking it over again, without dropping below the pods that run. Pure.
//!
//! Off, per revision: the Deployment gets as many replicas as there are pods (its own bootstrap pods among them), and when those are
//! ready the Seika's go; only then does the class change hands. Earlier, the stock autoscaler would count both sets and start in a
//! panic at the doubled number. A revision without pods just changes hands.
//!
//! On again: the class comes back, and the Deployment's pods are what bootstrap pods are: capacity where they run, the first to go.

use k8s_api::{CLASS, STOCK_CLASS};

/// Annotation of a PodAutoscaler that was handed back: where its class was changed.
pub const MARKER: &str = "bonavadeur.io/handed-back";

/// Where the class of a revision was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// On the PodAutoscaler alone. That is enough where Knative copies annotations once (to 1.20).
    PodAutoscaler,
    /// On the Revision as well: Knative copies its annotations to the PodAutoscaler again and again (since 1.21).
    Revision,
}

impl Where {
    /// As written in the [`MARKER`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodAutoscaler => "podautoscaler",
            Self::Revision => "revision",
        }
    }

    /// Reads a [`MARKER`].
    #[must_use]
    pub fn read(text: &str) -> Self {
        if text == Self::Revision.as_str() { Self::Revision } else { Self::PodAutoscaler }
    }
}

/// Who is to act on a revision, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It is ours: decide.
    Decide,
    /// It is ours and is to be handed back.
    HandBack,
    /// It was ours, was handed back, and is to be ours again.
    TakeOver(Where),
    /// It is not ours.
    Leave,
}

/// Whose a revision is by its `class` and [`MARKER`], and what the switch makes of it.
#[must_use]
pub fn duty(class: &str, marker: Option<&str>, enabled: bool) -> Duty {
    match (class == CLASS, enabled, marker) {
        (true, true, _) => Duty::Decide,
        (true, false, _) => Duty::HandBack,
        (false, true, Some(marker)) if class == STOCK_CLASS => Duty::TakeOver(Where::read(marker)),
        (false, ..) => Duty::Leave,
    }
}

/// What there is of a revision that is to be handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods {
    /// Pods that the Seika is told to have.
    pub seika_told: u32,
    /// Its pods that are not going.
    pub seika: u32,
    /// Replicas that the Deployment is told to have.
    pub deployment_told: u32,
    /// Its pods that are ready.
    pub deployment_ready: u32,
}

/// The next step on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackStep {
    /// Give the Deployment so many replicas.
    ScaleDeployment(u32),
    /// Wait for the Deployment's pods to be ready, or for the Seika's to go.
    Wait,
    /// The Seika's pods may go.
    DrainSeika,
    /// Change the class on the PodAutoscaler, and the Revision too if that says so.
    Flip(Where),
}

/// Finds the next step. `marker` is there when the class was changed before and has come back: Knative copied it from the Revision.
/// `total` is what the revision had when the way back began.
#[must_use]
pub fn next(pods: Pods, total: u32, marker: Option<&str>) -> BackStep {
    let total = total.max(pods.seika_told.max(pods.seika));
    if pods.seika_told == 0 && pods.seika == 0 {
        // The marker of a revision whose class is ours again: it was reverted.
        return BackStep::Flip(if marker.is_some() { Where::Revision } else { Where::PodAutoscaler });
    }
    if pods.deployment_told < total {
        return BackStep::ScaleDeployment(total);
    }
    if pods.deployment_ready < total {
        return BackStep::Wait;
    }
    if pods.seika_told > 0 { BackStep::DrainSeika } else { BackStep::Wait }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(CLASS, None, true, Duty::Decide)]
    #[case(CLASS, Some("podautoscaler"), true, Duty::Decide)]
    #[case(CLASS, None, false, Duty::HandBack)]
    #[case(STOCK_CLASS, Some("podautoscaler"), true, Duty::TakeOver(Where::PodAutoscaler))]
    #[case(STOCK_CLASS, Some("revision"), true, Duty::TakeOver(Where::Revision))]
    #[case(STOCK_CLASS, Some("podautoscaler"), false, Duty::Leave)]
    #[case(STOCK_CLASS, None, true, Duty::Leave)]
    #[case("hpa.autoscaling.knative.dev", Some("podautoscaler"), true, Duty::Leave)]
    fn whose_it_is(#[case] class: &str, #[case] marker: Option<&str>, #[case] enabled: bool, #[case] expected: Duty) {
        assert_eq!(duty(class, marker, enabled), expected);
    }

    fn pods(seika_told: u32, seika: u32, deployment_told: u32, deployment_ready: u32) -> Pods {
        Pods { seika_told, seika, deployment_told, deployment_ready }
    }

    #[rstest]
    #[case::at_zero(pods(0, 0, 0, 0), 0, BackStep::Flip(Where::PodAutoscaler))]
    #[case::bootstrap_pods_alone(pods(0, 0, 1, 1), 1, BackStep::Flip(Where::PodAutoscaler))]
    #[case::first_the_deployment(pods(3, 3, 0, 0), 3, BackStep::ScaleDeployment(3))]
    #[case::bootstrap_pods_count(pods(2, 2, 1, 1), 3, BackStep::ScaleDeployment(3))]
    #[case::until_ready(pods(3, 3, 3, 2), 3, BackStep::Wait)]
    #[case::then_ours_go(pods(3, 3, 3, 3), 3, BackStep::DrainSeika)]
    #[case::until_gone(pods(0, 1, 3, 3), 3, BackStep::Wait)]
    #[case::then_the_class(pods(0, 0, 3, 3), 3, BackStep::Flip(Where::PodAutoscaler))]
    fn step_by_step(#[case] pods: Pods, #[case] total: u32, #[case] expected: BackStep) {
        assert_eq!(next(pods, total, None), expected);
    }

    #[test]
    fn a_flip_that_was_reverted_is_made_on_the_revision_too() {
        assert_eq!(next(pods(0, 0, 1, 1), 1, Some("podautoscaler")), BackStep::Flip(Where::Revision));
    }
}
