//! Which pods of a service stand, over time, as the API server reports them, and whether one was
//! removed before there was another. Pure.
//!
//! A pod stands from when it was first ready until it is deleted. That it is marked not ready in
//! between does not count: Kubernetes marks every pod of a silent node so.

use std::collections::BTreeMap;

use serde::Serialize;

/// Pods that have not changed for this long are settled.
const CALM_SECONDS: f64 = 5.0;

/// A pod as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodLook {
    /// Another pod may have the same name when this one is gone.
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) ready: bool,
    /// Whether it is terminating, has ended, or is gone.
    pub(super) ends: bool,
    /// How often its containers were started again.
    pub(super) restarts: i32,
}

/// A change of the pods that stand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// When it was seen.
    pub at_unix_seconds: f64,
    /// The pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Whether it stands from now on, or no longer.
    pub stands: bool,
    /// How many stand now.
    pub standing: usize,
}

#[derive(Clone, Debug)]
struct Pod {
    node: String,
    stands: bool,
    ended: bool,
    restarts: i32,
}

/// The pods of one service from some moment on.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pods: BTreeMap<String, Pod>,
    changes: Vec<Change>,
}

impl Standing {
    pub(super) fn note(&mut self, at_unix_seconds: f64, look: PodLook) {
        let PodLook { uid, name, node, ready, ends, restarts } = look;
        let pod = self.pods.entry(uid).or_insert_with(|| Pod { node: String::new(), stands: false, ended: false, restarts });
        if let Some(node) = node {
            pod.node = node;
        }
        pod.restarts = pod.restarts.max(restarts);
        pod.ended |= ends;
        let stands = !pod.ended && (pod.stands || ready);
        if stands == pod.stands {
            return;
        }
        pod.stands = stands;
        let node = pod.node.clone();
        self.changes.push(Change { at_unix_seconds, pod: name, node, stands, standing: self.count() });
    }

    /// How many stand.
    pub(super) fn count(&self) -> usize {
        self.pods.values().filter(|pod| pod.stands).count()
    }

    /// What is still under way: pods that are to stand, or that only just do.
    pub(super) fn under_way(&self, unix_seconds: f64) -> Option<String> {
        let to_come = self.pods.values().filter(|pod| !pod.ended && !pod.stands).count();
        if to_come > 0 {
            return Some(format!("{to_come} pods are still to be ready"));
        }
        let last = self.changes.last().filter(|change| change.at_unix_seconds > unix_seconds - CALM_SECONDS)?;
        Some(format!("pod {} has only just changed", last.pod))
    }

    /// How long after a moment this many pods stood on nodes other than this one.
    pub(super) fn elsewhere_after(&self, node: &str, unix_seconds: f64, wanted: usize) -> Option<f64> {
        let mut elsewhere = 0_usize;
        let mut since = 0.0_f64;
        for change in self.changes.iter().filter(|change| change.node != node) {
            if change.at_unix_seconds >= unix_seconds && elsewhere >= wanted {
                break;
            }
            elsewhere = if change.stands { elsewhere + 1 } else { elsewhere.saturating_sub(1) };
            since = change.at_unix_seconds;
        }
        (elsewhere >= wanted).then(|| (since - unix_seconds).max(0.0))
    }

    /// What changed from a moment on.
    pub(super) fn since(&self, unix_seconds: f64) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.at_unix_seconds >= unix_seconds)
    }

    /// How often containers were started again, over all pods.
    pub(super) fn restarts(&self) -> i32 {
        self.pods.values().map(|pod| pod.restarts).sum()
    }

    /// The pods that were taken away, from a moment on, when fewer than `wanted` were left. Whoever
    /// drains `drained` takes its pods away: those are not counted, the others are.
    pub(super) fn taken_too_early(&self, from_unix_seconds: f64, wanted: usize, drained: Option<&str>) -> Vec<&Change> {
        self.since(from_unix_seconds)
            .filter(|change| !change.stands && change.standing < wanted && drained != Some(change.node.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str, node: &str, ready: bool, ends: bool) -> PodLook {
        PodLook { uid: format!("uid of {name}"), name: name.to_owned(), node: Some(node.to_owned()), ready, ends, restarts: 0 }
    }

    fn two_pods() -> Standing {
        let mut standing = Standing::default();
        standing.note(1.0, look("a", "node1", true, false));
        standing.note(2.0, look("b", "node3", true, false));
        standing
    }

    fn taken(standing: &Standing, drained: Option<&str>) -> Vec<String> {
        standing.taken_too_early(3.0, 2, drained).iter().map(|change| change.pod.clone()).collect()
    }

    #[test]
    fn a_pod_that_goes_before_its_replacement_is_ready_was_taken_too_early() {
        let mut standing = two_pods();
        standing.note(4.0, look("c", "node2", false, false));
        standing.note(5.0, look("b", "node3", true, true));
        standing.note(6.0, look("c", "node2", true, false));
        assert_eq!(taken(&standing, None), ["b"]);
        assert_eq!(standing.count(), 2);
    }

    #[test]
    fn a_pod_may_go_once_its_replacement_is_ready() {
        let mut standing = two_pods();
        standing.note(5.0, look("c", "node2", true, false));
        standing.note(6.0, look("b", "node3", true, true));
        // Its end is told several times.
        standing.note(7.0, look("b", "node3", false, true));
        assert_eq!(taken(&standing, None), [""; 0]);
        assert_eq!(standing.elsewhere_after("node3", 4.0, 2), Some(1.0));
        assert_eq!(standing.elsewhere_after("node3", 5.5, 2), Some(0.0));
        assert_eq!(standing.elsewhere_after("node3", 4.0, 3), None);
    }

    #[test]
    fn pods_that_are_called_not_ready_still_stand() {
        let mut standing = two_pods();
        standing.note(4.0, look("a", "node1", false, false));
        standing.note(5.0, look("b", "node3", false, false));
        assert_eq!((standing.count(), taken(&standing, None).len()), (2, 0));
        standing.note(6.0, look("a", "node1", false, true));
        assert_eq!(taken(&standing, None), ["a"]);
    }

    #[test]
    fn who_drains_a_node_takes_its_pods_and_no_others() {
        let mut standing = two_pods();
        standing.note(4.0, look("b", "node3", true, true));
        assert_eq!(taken(&standing, Some("node3")), [""; 0]);
        standing.note(5.0, look("a", "node1", true, true));
        assert_eq!(taken(&standing, Some("node3")), ["a"]);
    }

    #[test]
    fn another_pod_of_the_same_name_is_another_pod() {
        let mut standing = two_pods();
        standing.note(4.0, look("b", "node3", true, true));
        standing.note(5.0, PodLook { uid: "another".to_owned(), ..look("b", "node3", false, false) });
        assert_eq!(standing.under_way(20.0).as_deref(), Some("1 pods are still to be ready"));
        standing.note(6.0, PodLook { uid: "another".to_owned(), ..look("b", "node3", true, false) });
        assert_eq!((standing.count(), taken(&standing, None)), (2, vec!["b".to_owned()]));
        assert_eq!(standing.under_way(7.0).as_deref(), Some("pod b has only just changed"));
        assert_eq!(standing.under_way(20.0), None);
    }

    #[test]
    fn what_went_before_a_fault_is_not_its_doing_and_restarts_are_counted() {
        let mut standing = two_pods();
        standing.note(2.5, look("b", "node3", true, true));
        assert_eq!(taken(&standing, None), [""; 0]);
        standing.note(4.0, PodLook { restarts: 2, ..look("a", "node1", true, false) });
        assert_eq!(standing.restarts(), 2);
    }
}
