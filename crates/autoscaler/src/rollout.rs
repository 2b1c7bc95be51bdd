//! The order in which pods are added and removed: new ones first, old ones when the new are ready
//! and no requests are routed to the old. Pure.
//!
//! Two makers of pods stand beside each other: the Deployment, whose bootstrap pods Knative itself
//! starts, and the Seika. Bootstrap pods count as capacity on the node they run on and are never
//! doubled. Of two pods the bootstrap pod is removed first. The Deployment only ever shrinks.

use std::collections::{BTreeMap, BTreeSet};

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

/// Pods per node.
pub type Counts = BTreeMap<NodeName, u32>;

/// Who made a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maker {
    /// The revision's Deployment.
    Deployment,
    /// The revision's Seika.
    Seika,
}

/// A pod of the revision that is neither terminating nor finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it runs; `None` until it is scheduled.
    pub node: Option<NodeName>,
    /// The node that its Seika made it for; `None` for a pod of the Deployment.
    pub meant_for: Option<NodeName>,
    /// Who made it.
    pub maker: Maker,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Why it cannot start, where Kubernetes says so: unschedulable, image pull, crash loop.
    pub trouble: Option<String>,
}

impl Pod {
    /// A pod of `maker` on `node` that is not ready yet.
    #[must_use]
    pub fn on(name: &str, node: impl Into<NodeName>, maker: Maker) -> Self {
        let node = node.into();
        let meant_for = (maker == Maker::Seika).then(|| node.clone());
        Self { name: name.to_owned(), node: Some(node), meant_for, maker, is_ready: false, trouble: None }
    }

    /// The node that it runs on or was made for.
    #[must_use]
    pub fn place(&self) -> Option<&NodeName> {
        self.node.as_ref().or(self.meant_for.as_ref())
    }
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct RolloutInputs<'a> {
    /// Pods that are neither terminating nor finished.
    pub pods: &'a [Pod],
    /// The Seika's current `spec.repurika`.
    pub seika: &'a Counts,
    /// The Deployment's current `spec.replicas`.
    pub deployment: u32,
    /// How many pods the measured demand asks for. As many ready pods stay, whatever `target`
    /// holds: a target is short where there is no room.
    pub wanted: u32,
    /// Pods that found no node. One pod of the Deployment, bound to no node, then stays pending, so
    /// that the cluster autoscaler and the Revision's status see it.
    pub unplaced: u32,
    /// Nodes that no request has been routed to for long enough.
    pub withdrawn: &'a BTreeSet<NodeName>,
}

/// The next counts of Seika and Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Pods per node of the Seika; nodes without any are left out.
    pub seika: Counts,
    /// Replicas of the Deployment: never more than now, but for the one pending pod.
    pub deployment: u32,
    /// Of the Deployment's pods, those that should go first.
    pub victims: Vec<String>,
}

/// The next step from the current pods to `target` pods per node. Changes nothing once `target` is
/// reached.
#[must_use]
pub fn step(target: &Counts, present: &RolloutInputs<'_>) -> Step {
    let wanted = |node: &NodeName| target.get(node).copied().unwrap_or(0);
    let bootstrap = |node: &NodeName| {
        let here = |pod: &&Pod| pod.maker == Maker::Deployment && pod.node.as_ref() == Some(node);
        as_count(present.pods.iter().filter(here).count())
    };
    let nodes: BTreeSet<&NodeName> =
        target.keys().chain(present.seika.keys()).chain(present.pods.iter().filter_map(|pod| pod.node.as_ref())).collect();

    // How many ready pods may go without falling below what is wanted. While too few are ready, any
    // other may be so by now, or soon, also one that is not known yet: only what cannot start goes.
    let ready = as_count(present.pods.iter().filter(|pod| pod.is_ready).count());
    let mut spare = ready.saturating_sub(present.wanted);
    let is_enough = ready >= present.wanted;

    let mut next = Step { deployment: 0, ..Step::default() };
    for &node in &nodes {
        let told = present.seika.get(node).copied().unwrap_or(0);
        let kept_bootstrap = bootstrap(node).min(wanted(node).saturating_sub(told.min(wanted(node))));
        let count = wanted(node) - kept_bootstrap;
        let surplus = told.saturating_sub(count);
        let gone = if surplus == 0 { 0 } else { leaving(present, node, surplus, wanted(node), is_enough, &mut spare) };
        let count = count.max(told - gone);
        if count > 0 {
            next.seika.insert(node.clone(), count);
        }
    }

    // Bootstrap pods: beyond what their node wants, or on no node at all, they are surplus.
    let mut kept_here: Counts = BTreeMap::new();
    let asked_pending = present.unplaced.min(1);
    let mut pending = asked_pending;
    for pod in present.pods.iter().filter(|pod| pod.maker == Maker::Deployment) {
        let Some(node) = &pod.node else {
            // A pending pod does not serve; the Seika creates pods where there is room.
            if pending == 0 {
                next.victims.push(pod.name.clone());
            }
            pending = pending.saturating_sub(1);
            continue;
        };
        let told = present.seika.get(node).copied().unwrap_or(0);
        let room = wanted(node).saturating_sub(told.min(wanted(node)));
        let kept = kept_here.entry(node.clone()).or_default();
        if *kept < room {
            *kept += 1;
            next.deployment += 1;
        } else if !pod.is_ready && (is_enough || pod.trouble.is_some()) {
            next.victims.push(pod.name.clone());
        } else if pod.is_ready && spare > 0 && may_leave(present, node, wanted(node)) {
            spare -= 1;
            next.victims.push(pod.name.clone());
        } else {
            next.deployment += 1;
        }
    }
    // A pod that is not known yet cannot be named, and Kubernetes chooses one that is not ready:
    // that may be one that is to stay.
    let deployed = || present.pods.iter().filter(|pod| pod.maker == Maker::Deployment);
    let keeps_unready = deployed().any(|pod| !pod.is_ready && !next.victims.contains(&pod.name));
    if !is_enough || keeps_unready {
        next.deployment += present.deployment.saturating_sub(as_count(deployed().count()));
    }
    next.deployment = next.deployment.min(present.deployment) + asked_pending;
    next
}

/// How many of `surplus` pods of the Seika may leave `node` now. Takes the ready ones among them
/// from `spare`.
fn leaving(present: &RolloutInputs<'_>, node: &NodeName, surplus: u32, wanted: u32, is_enough: bool, spare: &mut u32) -> u32 {
    let here = || present.pods.iter().filter(|pod| pod.maker == Maker::Seika && pod.place() == Some(node));
    let ready = as_count(here().filter(|pod| pod.is_ready).count());
    let told = present.seika.get(node).copied().unwrap_or(0);
    // Pods that are not ready, or do not exist yet, do not serve: they are removed first and at
    // once.
    let unready = if is_enough {
        told.saturating_sub(ready)
    } else {
        as_count(here().filter(|pod| !pod.is_ready && pod.trouble.is_some()).count())
    };
    let unready = unready.min(surplus);
    if !may_leave(present, node, wanted) {
        return unready;
    }
    let ready_gone = (surplus - unready).min(*spare);
    *spare -= ready_gone;
    unready + ready_gone
}

/// A node that keeps a pod can lose another at any time; the last one only leaves when requests are
/// led elsewhere.
fn may_leave(present: &RolloutInputs<'_>, node: &NodeName, wanted: u32) -> bool {
    wanted > 0 || present.withdrawn.contains(node)
}

pub(crate) fn as_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(pairs: &[(&str, u32)]) -> Counts {
        pairs.iter().map(|&(node, count)| (node.into(), count)).collect()
    }

    fn pod(name: &str, node: &str, maker: Maker, ready: bool) -> Pod {
        let node = (!node.is_empty()).then(|| NodeName::from(node));
        let meant_for = node.clone().filter(|_| maker == Maker::Seika);
        Pod { name: name.to_owned(), node, meant_for, maker, is_ready: ready, trouble: None }
    }

    fn all() -> BTreeSet<NodeName> {
        ["node1", "node2", "node3"].map(NodeName::from).into()
    }

    fn go(target: &[(&str, u32)], pods: &[Pod], seika: &[(&str, u32)], deployment: u32, withdrawn: &BTreeSet<NodeName>) -> Step {
        let wanted = target.iter().map(|(_, count)| count).sum();
        step(&counts(target), &RolloutInputs { pods, seika: &counts(seika), deployment, wanted, unplaced: 0, withdrawn })
    }

    use Maker::{Deployment, Seika};

    #[test]
    fn a_bootstrap_pod_is_not_doubled() {
        let pods = [pod("b", "node1", Deployment, true)];
        assert_eq!(go(&[("node1", 1)], &pods, &[], 1, &all()), Step { seika: counts(&[]), deployment: 1, victims: vec![] });
        assert_eq!(go(&[("node1", 3)], &pods, &[], 1, &all()).seika, counts(&[("node1", 2)]));
    }

    /// What is known of a pod may be some seconds old, and a pod that starts is soon ready.
    #[test]
    fn while_too_few_are_ready_only_pods_that_cannot_start_go() {
        let target = [("node3", 2)];
        let starting = [pod("b", "node1", Deployment, false), pod("s", "node2", Seika, false), pod("t", "node3", Seika, true)];
        let kept = go(&target, &starting, &[("node2", 1), ("node3", 2)], 1, &all());
        assert_eq!(kept, Step { seika: counts(&[("node2", 1), ("node3", 2)]), deployment: 1, victims: vec![] });

        let unseen = [pod("t", "node3", Seika, true)];
        assert_eq!(go(&target, &unseen, &[("node2", 1), ("node3", 2)], 0, &all()).seika, kept.seika);

        let failing = starting.clone().map(|pod| Pod { trouble: (!pod.is_ready).then(|| "ErrImagePull".to_owned()), ..pod });
        let gone = Step { seika: counts(&target), deployment: 0, victims: vec!["b".to_owned()] };
        assert_eq!(go(&target, &failing, &[("node2", 1), ("node3", 2)], 1, &all()), gone);

        let mut enough = starting.to_vec();
        enough.push(pod("u", "node3", Seika, true));
        assert_eq!(go(&target, &enough, &[("node2", 1), ("node3", 2)], 1, &all()), gone);
    }

    /// Kubernetes chooses one that is not ready, and a pod of a node that is silent counts as such.
    #[test]
    fn a_deployment_keeps_pods_that_are_not_known_yet_while_one_that_stays_is_not_ready() {
        let (target, told) = ([("node1", 1), ("node3", 1)], [("node3", 1)]);
        let mut pods = vec![pod("b", "node1", Deployment, false), pod("s", "node3", Seika, true), pod("t", "node3", Seika, true)];
        assert_eq!(go(&target, &pods, &told, 2, &all()).deployment, 2);
        pods[0].is_ready = true;
        assert_eq!(go(&target, &pods, &told, 2, &all()).deployment, 1);
        pods.truncate(1);
        assert_eq!(go(&target, &pods, &told, 2, &all()).deployment, 2, "too few are ready");
    }

    #[test]
    fn a_move_adds_first_and_removes_when_ready_and_withdrawn() {
        let mut pods = vec![pod("b", "node1", Deployment, true)];
        let target = [("node3", 1)];
        let first = go(&target, &pods, &[], 1, &BTreeSet::new());
        assert_eq!(first, Step { seika: counts(&[("node3", 1)]), deployment: 1, victims: vec![] });
        pods.push(pod("s", "node3", Seika, false));
        assert_eq!(go(&target, &pods, &[("node3", 1)], 1, &all()), first);
        pods[1].is_ready = true;
        assert_eq!(go(&target, &pods, &[("node3", 1)], 1, &BTreeSet::new()), first);
        let last = go(&target, &pods, &[("node3", 1)], 1, &all());
        assert_eq!(last, Step { seika: counts(&[("node3", 1)]), deployment: 0, victims: vec!["b".to_owned()] });
    }

    #[test]
    fn the_bootstrap_pod_goes_before_the_seikas() {
        let pods = [pod("b", "node1", Deployment, true), pod("s", "node1", Seika, true)];
        let step = go(&[("node1", 1)], &pods, &[("node1", 1)], 1, &BTreeSet::new());
        assert_eq!(step, Step { seika: counts(&[("node1", 1)]), deployment: 0, victims: vec!["b".to_owned()] });
    }

    #[test]
    fn to_zero_everything_goes() {
        let pods = [pod("b", "node1", Deployment, true), pod("s", "node2", Seika, true), pod("u", "", Deployment, false)];
        let step = go(&[], &pods, &[("node2", 1)], 2, &all());
        assert_eq!((step.seika, step.deployment), (counts(&[]), 0));
    }

    #[test]
    fn a_node_that_requests_are_led_to_keeps_its_last_pod() {
        let pods = [pod("s", "node1", Seika, true), pod("t", "node3", Seika, true)];
        let told = [("node1", 1), ("node3", 1)];
        assert_eq!(go(&[("node3", 1)], &pods, &told, 0, &BTreeSet::new()).seika, counts(&told));
        assert_eq!(go(&[("node3", 1)], &pods, &told, 0, &all()).seika, counts(&[("node3", 1)]));
    }

    #[test]
    fn pods_that_are_not_ready_go_at_once() {
        let pods = [pod("s", "node1", Seika, true), pod("t", "node2", Seika, false)];
        let step = go(&[("node1", 1)], &pods, &[("node1", 1), ("node2", 2)], 0, &BTreeSet::new());
        assert_eq!(step.seika, counts(&[("node1", 1)]));
    }

    #[test]
    fn what_found_no_node_leaves_what_runs_alone_and_one_pod_pending() {
        let pods = [pod("s", "node1", Seika, true), pod("t", "node2", Seika, true)];
        let told = counts(&[("node1", 1), ("node2", 1)]);
        let present = RolloutInputs { pods: &pods, seika: &told, deployment: 0, wanted: 2, unplaced: 2, withdrawn: &all() };
        let next = step(&Counts::new(), &present);
        assert_eq!((next.seika, next.deployment), (told.clone(), 1));
        // It stays until there is room.
        let pods = [pods[0].clone(), pods[1].clone(), pod("u", "", Deployment, false)];
        let present = RolloutInputs { pods: &pods, seika: &told, deployment: 1, wanted: 3, unplaced: 1, withdrawn: &all() };
        assert_eq!(step(&told, &present), Step { seika: told.clone(), deployment: 1, victims: vec![] });
        let present = RolloutInputs { wanted: 2, unplaced: 0, ..present };
        assert_eq!(step(&told, &present), Step { seika: told, deployment: 0, victims: vec!["u".to_owned()] });
    }

    fn any_pods() -> impl Strategy<Value = Vec<Pod>> {
        let one = ("node[1-4]", any::<bool>(), any::<bool>());
        prop::collection::vec(one, 0..8).prop_map(|pods| {
            let named = pods.into_iter().enumerate();
            named
                .map(|(n, (node, seika, ready))| pod(&n.to_string(), &node, if seika { Seika } else { Deployment }, ready))
                .collect()
        })
    }

    fn made_by(pods: &[Pod], maker: Maker) -> Counts {
        let mut counts = Counts::new();
        for pod in pods.iter().filter(|pod| pod.maker == maker) {
            *counts.entry(pod.node.clone().unwrap()).or_default() += 1;
        }
        counts
    }

    proptest! {
        /// One step never leaves fewer ready pods than the lesser of what is wanted and what there
        /// is, whatever the target has room for, and never doubles a pod.
        #[test]
        fn ready_pods_are_never_short(
            pods in any_pods(),
            target in prop::collection::btree_map("node[1-4]", 1_u32..4, 0..4),
            unplaced in 0_u32..6,
        ) {
            let target: Counts = target.into_iter().map(|(node, count)| (node.into(), count)).collect();
            let seika = made_by(&pods, Seika);
            let deployment = as_count(pods.iter().filter(|pod| pod.maker == Deployment).count());
            let withdrawn = ["node1", "node2", "node3", "node4"].map(NodeName::from).into();
            let wanted = target.values().sum::<u32>() + unplaced;
            let present = RolloutInputs { pods: &pods, seika: &seika, deployment, wanted, unplaced, withdrawn: &withdrawn };
            let next = step(&target, &present);

            let ready = as_count(pods.iter().filter(|pod| pod.is_ready).count());
            let mut left = 0;
            for node in &withdrawn {
                let here = |pod: &&Pod| pod.maker == Seika && pod.place() == Some(node) && pod.is_ready;
                left += as_count(pods.iter().filter(here).count()).min(next.seika.get(node).copied().unwrap_or(0));
            }
            left += as_count(pods.iter().filter(|p| p.maker == Deployment && p.is_ready && !next.victims.contains(&p.name)).count());
            prop_assert!(left >= ready.min(wanted), "{next:?}");
            prop_assert!(next.deployment <= deployment + unplaced.min(1));
            // Seika and Deployment together never ask for more pods on a node than its target or
            // its present count.
            let boots = made_by(&pods, Deployment);
            for (node, count) in &next.seika {
                let (told, boot) = (seika.get(node).copied().unwrap_or(0), boots.get(node).copied().unwrap_or(0));
                let wanted = target.get(node).copied().unwrap_or(0);
                prop_assert!(*count <= told || count + boot.min(wanted) <= wanted.max(told + boot));
            }
        }

        /// Steps come to an end, with exactly the target.
        #[test]
        fn steps_arrive(mut pods in any_pods(), target in prop::collection::btree_map("node[1-4]", 1_u32..4, 0..4)) {
            let target: Counts = target.into_iter().map(|(node, count)| (node.into(), count)).collect();
            let withdrawn = ["node1", "node2", "node3", "node4"].map(NodeName::from).into();
            let mut seika = made_by(&pods, Seika);
            let mut deployment = as_count(pods.iter().filter(|pod| pod.maker == Deployment).count());
            for round in 0..4 {
                let wanted = target.values().sum();
                let present = RolloutInputs { pods: &pods, seika: &seika, deployment, wanted, unplaced: 0, withdrawn: &withdrawn };
                let next = step(&target, &present);
                pods.retain(|pod| pod.maker == Deployment && !next.victims.contains(&pod.name));
                for (node, &count) in &next.seika {
                    pods.extend((0..count).map(|n| pod(&format!("{round}-{node}-{n}"), node.as_str(), Seika, true)));
                }
                pods.iter_mut().for_each(|pod| pod.is_ready = true);
                (seika, deployment) = (next.seika, next.deployment);
            }
            let mut total = made_by(&pods, Seika);
            for (node, count) in made_by(&pods, Deployment) {
                *total.entry(node).or_default() += count;
            }
            prop_assert_eq!(total, target);
        }
    }
}
