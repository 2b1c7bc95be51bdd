//! Which pods a Seika adopts and which it releases. Pure.
//!
//! A pod belongs to the Seika that its controller reference names, and to no other. Orphans that
//! the selector matches are adopted. Pods that it no longer matches, because they were relabelled
//! to be examined, say, are released. Pods of other owners are only reported. All of this concerns
//! pods with the node label: a pod without it belongs to no node, so that no count could include
//! it.

mod attempts;

use std::sync::Arc;

use kube::core::{Selector, SelectorExt as _};

pub(crate) use self::attempts::Attempts;
use crate::index::{SeikaView, Stray};
use crate::observed::PodView;

/// The pods to adopt and to release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Orphans to adopt.
    pub(crate) adopt: Vec<Arc<PodView>>,
    /// Pods to release.
    pub(crate) release: Vec<Arc<PodView>>,
    /// Pods of other owners that match: name and owner.
    pub(crate) foreign: Vec<String>,
}

/// Compares the selector with the pods that there are.
pub(crate) fn claims<'a>(selector: &Selector, picture: &SeikaView, strays: impl IntoIterator<Item = &'a Stray>) -> Claims {
    // A pod that the watch does not show yet has the labels that it was created with.
    let matches = |pod: &PodView| pod.labels.as_ref().is_none_or(|labels| selector.matches(labels));
    let held = |pod: &PodView| picture.pods.iter().any(|held| held.uid == pod.uid);
    let mut claims = Claims {
        release: picture.pods.iter().filter(|pod| !pod.terminating && !matches(pod)).cloned().collect(),
        ..Claims::default()
    };
    for Stray { pod, controller } in strays {
        match controller {
            _ if !matches(pod) || held(pod) => {}
            Some(controller) => claims.foreign.push(format!("pod {} of {controller}", pod.name)),
            None if pod.is_active() => claims.adopt.push(Arc::clone(pod)),
            None => {}
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::PodProgress;
    use crate::observed::fixtures::pod;

    fn labelled(name: &str, app: &str) -> PodView {
        PodView { labels: Some(Arc::new([("app".to_owned(), app.to_owned())].into())), ..pod(name, "node1") }
    }

    fn selector() -> Selector {
        [("app".to_owned(), "hello".to_owned())].into_iter().collect()
    }

    fn stray(pod: PodView, controller: Option<&str>) -> Stray {
        Stray { pod: Arc::new(pod), controller: controller.map(str::to_owned) }
    }

    fn names(pods: &[Arc<PodView>]) -> Vec<&str> {
        pods.iter().map(|pod| pod.name.as_str()).collect()
    }

    /// A selector may name any label but our own, and whatever labels a pod has count.
    #[test]
    fn all_labels_of_a_pod_count() {
        let watched = serde_json::json!({ "metadata": { "name": "p", "uid": "u", "labels": {
            "app": "hello", k8s_api::seika::NODE_LABEL: "node1", k8s_api::seika::REVISION_LABEL: "rev" } } });
        let pod = PodView::of(&serde_json::from_value(watched).unwrap());
        let of_node: Selector = [(k8s_api::seika::NODE_LABEL.to_owned(), "node1".to_owned())].into_iter().collect();
        let picture = SeikaView { pods: vec![Arc::new(pod)], unresolved: Vec::new() };
        assert!(claims(&of_node, &picture, &[]).release.is_empty());
    }

    #[test]
    fn orphans_that_match_are_taken_in() {
        let strays = [
            stray(labelled("matches", "hello"), None),
            stray(labelled("other-app", "other"), None),
            stray(PodView { terminating: true, ..labelled("going", "hello") }, None),
            stray(PodView { progress: PodProgress::Finished, ..labelled("finished", "hello") }, None),
            stray(labelled("held", "hello"), Some("ReplicaSet rs")),
            stray(labelled("held-other-app", "other"), Some("ReplicaSet rs")),
        ];
        let claims = claims(&selector(), &SeikaView::default(), &strays);
        assert_eq!(names(&claims.adopt), ["matches"]);
        assert_eq!(claims.foreign, ["pod held of ReplicaSet rs"]);
        assert!(claims.release.is_empty());
    }

    #[test]
    fn what_no_longer_matches_is_let_go_unless_it_goes_anyway() {
        let pods = [
            labelled("matches", "hello"),
            labelled("relabelled", "debug"),
            PodView { terminating: true, ..labelled("going", "debug") },
            PodView { labels: None, ..pod("just-asked-for", "node1") },
        ];
        let picture = SeikaView { pods: pods.into_iter().map(Arc::new).collect(), unresolved: Vec::new() };
        assert_eq!(names(&claims(&selector(), &picture, &[]).release), ["relabelled"]);
    }

    #[test]
    fn an_orphan_that_is_being_taken_in_is_not_taken_in_twice() {
        let orphan = labelled("orphan", "hello");
        let picture = SeikaView { pods: vec![Arc::new(orphan.clone())], unresolved: Vec::new() };
        assert_eq!(claims(&selector(), &picture, &[stray(orphan, None)]), Claims::default());
    }
}
