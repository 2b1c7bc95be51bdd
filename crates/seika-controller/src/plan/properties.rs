//! What holds of every plan, whatever is asked and seen.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::observed::fixtures::pod;
use crate::observed::{NodeView, PodProgress};
use crate::taints::Taint;

const NODES: [&str; 4] = ["node1", "node2", "node3", "gone"];
const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn nodes() -> Nodes {
    let mut nodes = Nodes::default();
    for node in &NODES[..3] {
        nodes.put(node, NodeView::USABLE);
    }
    nodes
}

#[derive(Clone, Debug)]
struct Case {
    counts: BTreeMap<String, i32>,
    picture: SeikaView,
    rollout: Rollout,
    taken: HashSet<String>,
    min_ready: SignedDuration,
    nodes: Nodes,
}

impl Case {
    fn plan(&self) -> PodPlan {
        let asked = DesiredPods {
            seika: "hello",
            uid: "uid",
            counts: &self.counts,
            revision: "new",
            rollout: &self.rollout,
            min_ready: self.min_ready,
            tolerations: &Tolerations::default(),
        };
        let seen =
            ObservedPods { nodes: &self.nodes, picture: &self.picture, taken: &self.taken, held: &BTreeMap::new(), now: now() };
        plan(&asked, &seen)
    }

    fn count(&self, node: &str) -> usize {
        usize::try_from(self.counts.get(node).copied().unwrap_or(0)).unwrap()
    }

    fn number(&self, node: &str, which: impl Fn(&PodView) -> bool) -> usize {
        self.picture.pods.iter().filter(|pod| pod.node == node && which(pod)).count()
    }

    fn create(&mut self, create: &Create) {
        assert!(self.picture.pods.iter().all(|pod| pod.name != create.name), "{} is there already", create.name);
        self.picture.unresolved.retain(|(_, name)| *name != create.name);
        self.picture.pods.push(Arc::new(pod(&create.name, &create.node)));
    }

    fn delete(&mut self, delete: &Delete) {
        let found = self.picture.pods.iter_mut().find(|pod| pod.uid == delete.uid).expect("a pod that was seen");
        if delete.force || found.progress == PodProgress::Unscheduled {
            self.picture.pods.retain(|pod| pod.uid != delete.uid);
        } else {
            assert!(!found.terminating, "{} is going already", delete.name);
            Arc::make_mut(found).terminating = true;
        }
    }

    /// The plan is carried out, the kubelets do their part, and what was in doubt is asked about.
    fn live(&mut self, plan: &PodPlan) {
        plan.deletes.iter().for_each(|one| self.delete(one));
        plan.creates.iter().for_each(|one| self.create(one));
        self.picture.pods.retain(|pod| !pod.terminating);
        for pod in &mut self.picture.pods {
            Arc::make_mut(pod).doomed = false;
            if pod.is_active() {
                Arc::make_mut(pod).progress = PodProgress::Running { ready_since: Some(Timestamp::UNIX_EPOCH) };
            }
        }
    }
}

fn any_progress() -> impl Strategy<Value = PodProgress> {
    prop_oneof![
        Just(PodProgress::Unscheduled),
        Just(PodProgress::Pending),
        Just(PodProgress::Running { ready_since: None }),
        (0..100_i64).prop_map(|ago| PodProgress::Running { ready_since: Some(Timestamp::from_second(NOW - ago).unwrap()) }),
        Just(PodProgress::Finished),
    ]
}

fn any_pods(revisions: &'static [&'static str]) -> impl Strategy<Value = Vec<Arc<PodView>>> {
    let one = (0..NODES.len(), any_progress(), any::<bool>(), any::<bool>(), 0..revisions.len(), -2..2_i32, 0..4_u32);
    vec(one, 0..24).prop_map(move |pods| {
        // Slots are filled from the front, as the controller does, with now and then one under a
        // name of old.
        pods.into_iter()
            .enumerate()
            .map(|(index, (node, progress, terminating, doomed, revision, deletion_cost, other_name))| {
                let node = NODES[node];
                let slot = u32::try_from(index).unwrap();
                let name = if other_name == 0 { format!("old-{index}") } else { pod_name("hello", "uid", node, slot) };
                let terminating = terminating && progress != PodProgress::Unscheduled;
                let revision = revisions[revision].to_owned();
                Arc::new(PodView { progress, terminating, doomed, revision, deletion_cost, ..pod(&name, node) })
            })
            .collect()
    })
}

fn any_case(revisions: &'static [&'static str]) -> impl Strategy<Value = Case> {
    let counts = btree_map(prop::sample::select(&NODES[..]).prop_map(str::to_owned), 0..8_i32, 0..4);
    let rollout = (0..3_i32, 0..3_i32, prop::option::of(1..4_i32), prop::option::of(1..4_i32), any::<bool>()).prop_map(
        |(surge, max_unavailable_per_node, max_surge, max_unavailable, paused)| {
            let max_surge_per_node = if surge + max_unavailable_per_node == 0 { 1 } else { surge };
            Rollout { max_surge_per_node, max_unavailable_per_node, max_surge, max_unavailable, paused, ..Rollout::default() }
        },
    );
    let unresolved = btree_set((prop::sample::select(&NODES[..]), 0..30_u32), 0..3);
    let taken = vec((prop::sample::select(&NODES[..]), 0..30_u32), 0..3);
    (counts, any_pods(revisions), rollout, unresolved, taken, 0..60_i64).prop_map(
        |(counts, pods, rollout, unresolved, taken, ready)| {
            let named = |(node, slot): (&str, u32)| (node.to_owned(), pod_name("hello", "uid", node, slot));
            let unresolved =
                unresolved.into_iter().map(named).filter(|(_, name)| pods.iter().all(|pod| pod.name != *name)).collect();
            let taken = taken.into_iter().map(|one| named(one).1).collect();
            let min_ready = SignedDuration::from_secs(ready);
            Case { counts, picture: SeikaView { pods, unresolved }, rollout, taken, min_ready, nodes: nodes() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Even if every create goes through and no delete does.
    #[test]
    fn never_more_than_allowed(case in any_case(&["new", "old"])) {
        let plan = case.plan();
        let mut after = case.clone();
        plan.creates.iter().for_each(|one| after.create(one));
        let mut beyond_in_all = 0;
        let mut beyond_before = 0;
        for node in NODES {
            let before = case.number(node, PodView::is_active);
            let rolling = !case.rollout.paused && case.number(node, |pod| pod.is_active() && pod.revision == "old") > 0;
            let surge = if rolling { usize::try_from(case.rollout.max_surge_per_node).unwrap() } else { 0 };
            let active = after.number(node, PodView::is_active);
            prop_assert!(active <= before.max(case.count(node) + surge), "{} on {}", active, node);
            beyond_in_all += active.saturating_sub(case.count(node));
            beyond_before += before.saturating_sub(case.count(node));
        }
        if let Some(max_surge) = case.rollout.max_surge {
            prop_assert!(beyond_in_all <= beyond_before.max(usize::try_from(max_surge).unwrap()));
        }
    }

    #[test]
    fn what_is_done_needs_no_doing_again(case in any_case(&["new"])) {
        let plan = case.plan();
        let mut after = case.clone();
        plan.deletes.iter().for_each(|one| after.delete(one));
        plan.creates.iter().for_each(|one| after.create(one));
        for node in &NODES[..3] {
            prop_assert_eq!(after.number(node, PodView::is_active), case.count(node));
        }
        prop_assert_eq!(after.number("gone", |_| true), 0);
        let again = after.plan();
        prop_assert_eq!((again.creates, again.deletes), (Vec::new(), Vec::new()));
    }

    #[test]
    fn nothing_is_created_on_a_node_that_is_not_there(case in any_case(&["new", "old"])) {
        prop_assert!(case.plan().creates.iter().all(|create| create.node != "gone"));
    }

    #[test]
    fn names_are_free_and_unresolved_ones_come_first(case in any_case(&["new", "old"])) {
        let plan = case.plan();
        let names: HashSet<&str> = plan.creates.iter().map(|create| create.name.as_str()).collect();
        prop_assert_eq!(names.len(), plan.creates.len());
        for create in &plan.creates {
            prop_assert!(!case.taken.contains(&create.name));
            prop_assert!(case.picture.pods.iter().all(|pod| pod.name != create.name));
        }
        for (node, name) in &case.picture.unresolved {
            let created = plan.creates.iter().filter(|create| create.node == *node).count();
            let unresolved: HashSet<_> =
                case.picture.unresolved.iter().filter(|(on, name)| on == node && !case.taken.contains(name)).map(|(_, name)| name).collect();
            if created >= unresolved.len() && unresolved.contains(name) {
                prop_assert!(names.contains(name.as_str()));
            }
        }
    }

    /// A roll-out takes away no more availability than allowed, and ends.
    #[test]
    fn a_roll_out_ends_and_keeps_serving(mut case in any_case(&["new", "old"])) {
        case.rollout.paused = false;
        let available = |case: &Case, node: &str| {
            let since = now() - case.min_ready;
            case.number(node, |pod| pod.is_active() && !pod.doomed && pod.ready_since().is_some_and(|ready| ready <= since))
        };
        let lacking = |case: &Case| {
            NODES[..3].iter().map(|node| case.count(node).saturating_sub(available(case, node))).sum::<usize>()
        };
        for _ in 0..64 {
            let plan = case.plan();
            if let Some(max_unavailable) = case.rollout.max_unavailable {
                let mut after = case.clone();
                plan.deletes.iter().for_each(|one| after.delete(one));
                prop_assert!(lacking(&after) <= lacking(&case).max(usize::try_from(max_unavailable).unwrap()));
            }
            for node in &NODES[..3] {
                let mut after = case.clone();
                plan.deletes.iter().for_each(|one| after.delete(one));
                let floor = case.count(node).saturating_sub(usize::try_from(case.rollout.max_unavailable_per_node).unwrap());
                prop_assert!(available(&after, node) >= available(&case, node).min(floor));
            }
            if plan.creates.is_empty() && plan.deletes.is_empty() {
                for node in &NODES[..3] {
                    prop_assert_eq!(case.number(node, |pod| pod.is_active() && pod.revision == "new"), case.count(node));
                    prop_assert_eq!(case.number(node, PodView::is_active), case.count(node));
                }
                return Ok(());
            }
            case.live(&plan);
        }
        prop_assert!(false, "does not end");
    }

    /// Where no new pod could start, no old one that serves is given up for it.
    #[test]
    fn nodes_that_take_no_pods_keep_theirs(mut case in any_case(&["new", "old"]), how in 0..3_u8) {
        let view = match how {
            0 => NodeView { ready: false, ..NodeView::USABLE },
            1 => NodeView { cordoned: true, ..NodeView::USABLE },
            _ => NodeView { taints: vec![Taint { key: "k".into(), value: "v".into(), effect: "NoExecute".into() }], ..NodeView::USABLE },
        };
        case.nodes.put("node1", view);
        let outdated = case.plan().deletes.into_iter().filter(|one| one.node == "node1" && one.cause == DeleteCause::Outdated).count();
        prop_assert_eq!(outdated, 0);
        let paused = Case { rollout: Rollout { paused: true, ..case.rollout.clone() }, ..case.clone() };
        let of_node1 = |plan: PodPlan| plan.creates.into_iter().filter(|one| one.node == "node1").count();
        prop_assert_eq!(of_node1(case.plan()), of_node1(paused.plan()));
    }
}
