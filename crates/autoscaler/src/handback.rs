//! Handing a revision back to the stock autoscaler and taking it over again, without dropping below
//! the pods that demand asks for.
//!
//! Off, per revision: the Deployment gets as many replicas as pods are wanted (its own bootstrap
//! pods among them), and for each of them that is ready one of the Seika's leaves; only then does
//! the class change. Earlier, the stock autoscaler would count both sets and start in a panic at
//! the doubled number. A revision without pods just changes its class. Scaling goes on meanwhile.
//!
//! On again: the class comes back, and the Deployment's pods are what bootstrap pods are: capacity
//! where they run, the first to go.

use std::collections::BTreeSet;

use k8s_api::{CLASS, STOCK_CLASS};
use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use crate::rollout::{Counts, Maker, Pod, as_count};

/// Annotation of a PodAutoscaler that was handed back: where its class was changed.
pub const MARKER: &str = "bonavadeur.io/handed-back";

/// Where the class of a revision was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Where {
    /// On the PodAutoscaler alone. That is enough where Knative copies annotations once (to 1.20).
    PodAutoscaler,
    /// On the Revision as well: Knative copies its annotations to the PodAutoscaler again and again
    /// (since 1.21).
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

/// Which autoscaler acts on a revision, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It is ours: decide.
    Decide,
    /// It is ours and is being handed back.
    HandBack,
    /// It was handed back and is taken over again.
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

/// The state of a revision that is being handed back.
#[derive(Clone, Copy, Debug)]
pub struct HandbackInputs<'a> {
    /// Its pods that are neither terminating nor finished.
    pub pods: &'a [Pod],
    /// Pods per node that its Seika asks for.
    pub seika: &'a Counts,
    /// Replicas that its Deployment asks for.
    pub deployment: u32,
    /// Nodes whose kubelet is silent. Pods there that are not ready may still serve.
    pub silent: &'a BTreeSet<NodeName>,
    /// Whether its class was changed before and has come back: Knative copied it from the Revision.
    pub was_reverted: bool,
}

/// The next step on the way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackStep {
    /// Set the counts of Deployment and Seika.
    Counts {
        /// Replicas of the Deployment.
        deployment: u32,
        /// Pods per node of the Seika.
        seika: Counts,
    },
    /// Change the class on the PodAutoscaler, and the Revision too if that says so.
    Flip(Where),
}

/// Finds the next step that keeps `wanted` pods serving. A pod of the Seika leaves for every pod of
/// the Deployment that is ready beyond that. Where the Deployment's pods find no room, one of the
/// Seika's leaves first, and the next one when `floor` pods are ready again.
#[must_use]
pub fn next(present: &HandbackInputs<'_>, wanted: u32, floor: u32) -> BackStep {
    let of = |maker| present.pods.iter().filter(move |pod| pod.maker == maker);
    let ready = |maker| as_count(of(maker).filter(|pod| pod.is_ready).count());
    let asked: u32 = present.seika.values().sum();
    let existing = as_count(of(Maker::Seika).count());
    if asked == 0 && existing == 0 && present.deployment >= wanted {
        return BackStep::Flip(if present.was_reverted { Where::Revision } else { Where::PodAutoscaler });
    }
    let serving = ready(Maker::Deployment) + ready(Maker::Seika);
    let mut leaving = serving.saturating_sub(wanted);
    let is_stuck = of(Maker::Deployment).any(|pod| pod.node.is_none() && pod.trouble.is_some());
    if leaving == 0 && is_stuck && serving >= floor && existing <= asked {
        leaving = 1;
    }
    let mut seika = present.seika.clone();
    for (node, count) in seika.iter_mut().rev() {
        let here = || of(Maker::Seika).filter(|pod| pod.place() == Some(node));
        if present.silent.contains(node) {
            // Once enough others are ready, those that Kubernetes has evicted are not to come back.
            if serving >= wanted && here().next().is_none() {
                *count = 0;
            }
            continue;
        }
        let ready_here = as_count(here().filter(|pod| pod.is_ready).count()).min(*count);
        let gone = ready_here.min(leaving);
        leaving -= gone;
        // Pods that are not ready do not serve. While too few are ready, only pods that cannot
        // start are removed: any other may be ready by now, also one that the picture does not have
        // yet.
        let kept = if serving >= wanted {
            ready_here
        } else {
            *count - as_count(here().filter(|pod| !pod.is_ready && pod.trouble.is_some()).count()).min(*count - ready_here)
        };
        *count = kept - gone;
    }
    seika.retain(|_, count| *count > 0);
    BackStep::Counts { deployment: present.deployment.max(wanted), seika }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    /// Pods of the Seika on node1 and of the Deployment on node2, the first so many of each ready.
    fn pods(seika: u32, seika_ready: u32, deployment: u32, deployment_ready: u32) -> Vec<Pod> {
        let some = |count, ready, node: &'static str, maker| {
            (0..count).map(move |n| Pod { is_ready: n < ready, ..Pod::on(&format!("{node}-{n}"), node, maker) })
        };
        let seika = some(seika, seika_ready, "node1", Maker::Seika);
        seika.chain(some(deployment, deployment_ready, "node2", Maker::Deployment)).collect()
    }

    fn step(pods: &[Pod], asked: u32, deployment: u32, wanted: u32) -> (u32, u32) {
        let seika: Counts = [("node1".into(), asked)].into_iter().filter(|(_, count)| *count > 0).collect();
        match next(
            &HandbackInputs { pods, seika: &seika, deployment, silent: &BTreeSet::new(), was_reverted: false },
            wanted,
            wanted,
        ) {
            BackStep::Counts { deployment, seika } => (deployment, seika.values().sum()),
            BackStep::Flip(_) => (u32::MAX, 0),
        }
    }

    const FLIP: (u32, u32) = (u32::MAX, 0);

    #[rstest]
    #[case::at_zero(pods(0, 0, 0, 0), 0, 0, 0, FLIP)]
    #[case::bootstrap_pods_alone(pods(0, 0, 1, 1), 0, 1, 1, FLIP)]
    #[case::first_the_deployment(pods(3, 3, 0, 0), 3, 0, 3, (3, 3))]
    #[case::bootstrap_pods_count(pods(2, 2, 1, 1), 2, 1, 3, (3, 2))]
    #[case::one_leaves_for_each_that_is_ready(pods(3, 3, 3, 2), 3, 3, 3, (3, 1))]
    #[case::then_all(pods(3, 3, 3, 3), 3, 3, 3, (3, 0))]
    #[case::until_gone(pods(1, 1, 3, 3), 0, 3, 3, (3, 0))]
    #[case::then_the_class(pods(0, 0, 3, 3), 0, 3, 3, FLIP)]
    #[case::more_demand_meanwhile(pods(2, 2, 2, 2), 2, 2, 5, (5, 2))]
    fn step_by_step(
        #[case] pods: Vec<Pod>,
        #[case] asked: u32,
        #[case] deployment: u32,
        #[case] wanted: u32,
        #[case] expected: (u32, u32),
    ) {
        assert_eq!(step(&pods, asked, deployment, wanted), expected);
    }

    #[test]
    fn where_there_is_no_room_for_both_sets_they_change_one_by_one() {
        let unschedulable = |pods: &mut Vec<Pod>, from: usize| {
            for pod in &mut pods[from..] {
                (pod.node, pod.trouble) = (None, Some("Unschedulable".to_owned()));
            }
        };
        let mut stuck = pods(3, 3, 3, 0);
        unschedulable(&mut stuck, 3);
        assert_eq!(step(&stuck, 3, 3, 3), (3, 2));
        // The pod that leaves is still there: the next one waits.
        assert_eq!(step(&stuck, 2, 3, 3), (3, 2));
        // Its place was taken by a pod that starts, and then is ready.
        let mut taken = pods(2, 2, 3, 0);
        unschedulable(&mut taken, 3);
        assert_eq!(step(&taken, 2, 3, 3), (3, 2));
        taken[2].is_ready = true;
        assert_eq!(step(&taken, 2, 3, 3), (3, 1));
    }

    #[test]
    fn a_flip_that_was_reverted_is_made_on_the_revision_too() {
        let present =
            HandbackInputs { pods: &[], seika: &Counts::new(), deployment: 1, silent: &BTreeSet::new(), was_reverted: true };
        assert_eq!(next(&present, 1, 1), BackStep::Flip(Where::Revision));
    }

    /// What is known of pods may be some seconds old.
    #[test]
    fn while_too_few_are_ready_pods_that_are_not_known_yet_stay() {
        let seika = Counts::from([("node1".into(), 2)]);
        let asked = |pods: &[Pod]| {
            let silent = BTreeSet::new();
            match next(&HandbackInputs { pods, seika: &seika, deployment: 2, silent: &silent, was_reverted: false }, 2, 2) {
                BackStep::Counts { seika, .. } => seika,
                flip @ BackStep::Flip(_) => panic!("{flip:?}"),
            }
        };
        assert_eq!(asked(&[]), seika);
        assert_eq!(asked(&pods(2, 1, 2, 0)), seika);
        assert_eq!(asked(&pods(0, 0, 2, 2)), Counts::new());
    }

    /// Kubernetes calls all pods of a silent node not ready; they go when it has evicted them and
    /// enough others are ready. Until then one that is not known yet may serve as well.
    #[test]
    fn pods_of_silent_nodes_stay() {
        let seika = Counts::from([("node1".into(), 2)]);
        let silent = BTreeSet::from(["node1".into()]);
        let asked = |pods: &[Pod]| match next(
            &HandbackInputs { pods, seika: &seika, deployment: 2, silent: &silent, was_reverted: false },
            2,
            2,
        ) {
            BackStep::Counts { seika, .. } => seika,
            flip @ BackStep::Flip(_) => panic!("{flip:?}"),
        };
        assert_eq!(asked(&pods(2, 0, 0, 0)), seika);
        assert_eq!(asked(&pods(2, 0, 2, 2)), seika);
        assert_eq!(asked(&pods(1, 0, 0, 0)), seika);
        assert_eq!(asked(&pods(1, 0, 2, 1)), seika);
        assert_eq!(asked(&pods(1, 0, 2, 2)), seika);
        assert_eq!(asked(&[]), seika);
        assert_eq!(asked(&pods(0, 0, 2, 2)), Counts::new());
    }

    proptest! {
        /// However many pods are ready, as many as are wanted stay ready, unless the Deployment's
        /// find no room: then one fewer.
        #[test]
        fn ready_pods_stay(seika in 0_u32..6, deployment in 0_u32..6, ready in 0_u32..6, wanted in 0_u32..6, stuck: bool) {
            let mut pods = pods(seika, seika, deployment, ready.min(deployment));
            if stuck {
                pods.push(Pod { node: None, trouble: Some("Unschedulable".to_owned()), ..Pod::on("x", "x", Maker::Deployment) });
            }
            let (_, left) = step(&pods, seika, deployment, wanted);
            let (before, after) = (seika + ready.min(deployment), left + ready.min(deployment));
            prop_assert!(after + u32::from(stuck) >= before.min(wanted));
        }
    }
}
