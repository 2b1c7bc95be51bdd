//! What the Seika's status says: a pure function of what is asked and what is seen.

mod listing;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use self::listing::NodeListing;
use crate::observed::{NodeKnowledge, Obstacle, PodProgress, PodView};
use crate::plan::{DesiredPods, ObservedPods};
use k8s_api::seika::{NodeStatus, Rollout, SeikaStatus};

/// What a scheduler or an admission webhook says can be long, and a status has to fit into etcd.
const NODE_MESSAGE_BYTES_MAX: usize = 500;
const CONDITION_MESSAGE_BYTES_MAX: usize = 2000;

/// Something that went wrong and is not to be seen in pods or nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// One word.
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
}

/// What the status is made from, beside what is asked and seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Circumstances<'a> {
    /// The generation of the spec that was acted on.
    pub(crate) generation: Option<i64>,
    /// What went wrong.
    pub(crate) trouble: Option<&'a Trouble>,
    /// Pods of others that the selector matches too: name and owner.
    pub(crate) foreign: &'a [String],
    /// The selector as text.
    pub(crate) selector: Option<&'a str>,
    /// The status so far: what did not change keeps its time.
    pub(crate) before: Option<&'a SeikaStatus>,
}

/// Makes the status.
#[must_use]
pub(crate) fn status(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>, circumstances: &Circumstances<'_>) -> SeikaStatus {
    let mut by_node: BTreeMap<&str, Vec<&PodView>> = asked.counts.keys().map(|node| (node.as_str(), Vec::new())).collect();
    for pod in &seen.picture.pods {
        by_node.entry(&pod.node).or_default().push(pod);
    }
    let per_node: Vec<NodeStatus> = by_node.iter().map(|(node, pods)| node_status(asked, seen, node, pods)).collect();
    let total = |number: fn(&NodeStatus) -> i32| per_node.iter().map(number).sum::<i32>();
    let available = seen.picture.pods.iter().filter(|pod| asked.is_available(pod, seen.now)).count();

    let mut status = SeikaStatus {
        repurika: per_node.iter().map(|status| (status.node.clone(), status.current)).collect(),
        observed_generation: circumstances.generation,
        desired_replicas: total(|status| status.desired),
        current_replicas: total(|status| status.current),
        ready_replicas: total(|status| status.ready),
        available_replicas: number(available),
        updated_replicas: total(|status| status.updated),
        selector: circumstances.selector.map(str::to_owned),
        revision: Some(asked.revision.to_owned()),
        ..SeikaStatus::default()
    };
    let before = circumstances.before.filter(|before| marks(before) == marks(&status));
    let since = before.and_then(|before| before.progressed_at.clone());
    status.progressed_at = Some(since.unwrap_or_else(|| Time(whole_seconds(seen.now))));
    status.conditions = conditions(&status, &per_node, asked, seen, circumstances);
    let NodeListing { nodes, ready, per_node } = NodeListing::of(per_node, seen.nodes);
    SeikaStatus { nodes, ready, per_node, ..status }
}

/// What changes as long as there is progress.
fn marks(status: &SeikaStatus) -> (Option<&str>, [i32; 5]) {
    let SeikaStatus { desired_replicas, current_replicas, ready_replicas, available_replicas, updated_replicas, .. } = status;
    let numbers = [*desired_replicas, *current_replicas, *ready_replicas, *available_replicas, *updated_replicas];
    (status.revision.as_deref(), numbers)
}

/// In how long the condition `Progressing` has to be looked at again though nothing happens.
#[must_use]
pub(crate) fn next_deadline(status: &SeikaStatus, rollout: &Rollout, now: Timestamp) -> Option<SignedDuration> {
    let progresses = status.conditions.iter().any(|condition| condition.type_ == "Progressing" && condition.status == "True");
    let since = status.progressed_at.as_ref().filter(|_| progresses)?;
    Some((progress_deadline(rollout) - now.duration_since(since.0)).max(SignedDuration::from_secs(1)))
}

fn progress_deadline(rollout: &Rollout) -> SignedDuration {
    SignedDuration::from_secs(rollout.progress_deadline_seconds.into())
}

/// The status of a spec that cannot be acted on: what there was, and why it stays.
#[must_use]
pub(crate) fn rejected(before: &SeikaStatus, generation: Option<i64>, problem: &str, now: Timestamp) -> SeikaStatus {
    let mut status = SeikaStatus { observed_generation: generation, ..before.clone() };
    let conditions = [
        ("Degraded", (true, "Invalid", problem.to_owned())),
        ("Progressing", (false, "Invalid", "nothing is done until the spec can be acted on".to_owned())),
    ];
    for (type_, verdict) in conditions {
        let condition = condition(type_, verdict, generation, &before.conditions, now);
        match status.conditions.iter_mut().find(|present| present.type_ == type_) {
            Some(present) => *present = condition,
            None => status.conditions.push(condition),
        }
    }
    status
}

fn node_status(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>, node: &str, pods: &[&PodView]) -> NodeStatus {
    let active: Vec<&PodView> = pods.iter().copied().filter(|pod| pod.is_active()).collect();
    let ready = active.iter().filter(|pod| pod.ready_since().is_some()).count();
    let mut status = NodeStatus {
        node: node.to_owned(),
        desired: asked.counts.get(node).copied().unwrap_or(0),
        current: number(active.len()),
        ready: number(ready),
        updated: number(active.iter().filter(|pod| pod.revision == asked.revision).count()),
        reason: None,
        message: None,
    };
    let is_stuck = status.updated < status.current && obstacle(asked, seen, node).is_some();
    if status.ready < status.desired || is_stuck {
        let (reason, message) = shortfall(asked, seen, node, pods, &active);
        status.reason = Some(reason);
        status.message = message.map(|message| shortened(message, NODE_MESSAGE_BYTES_MAX));
    }
    status
}

/// What keeps new pods from starting on a node that is there.
fn obstacle(asked: &DesiredPods<'_>, seen: &ObservedPods<'_>, node: &str) -> Option<Obstacle> {
    match seen.nodes.look_up(node) {
        NodeKnowledge::Present(view) => view.obstacle(asked.tolerations),
        NodeKnowledge::Never | NodeKnowledge::GoneSince(_) => None,
    }
}

/// Why a node has fewer ready pods than wanted: what is wrong with the node, else with a pod, else
/// nothing but time.
fn shortfall(
    asked: &DesiredPods<'_>,
    seen: &ObservedPods<'_>,
    node: &str,
    pods: &[&PodView],
    active: &[&PodView],
) -> (String, Option<String>) {
    let has_to_start = active
        .iter()
        .any(|pod| pod.progress == PodProgress::Unscheduled || (pod.revision != asked.revision && pod.ready_since().is_some()));
    if !matches!(seen.nodes.look_up(node), NodeKnowledge::Present(_)) {
        return ("NodeNotFound".into(), Some(format!("there is no node {node}")));
    }
    match obstacle(asked, seen, node) {
        Some(Obstacle::NotReady) => return ("NodeNotReady".into(), Some(format!("node {node} is not ready"))),
        Some(Obstacle::Cordoned) if has_to_start => {
            return ("NodeCordoned".into(), Some(format!("node {node} takes no new pods")));
        }
        Some(Obstacle::Tainted(taint)) if has_to_start => {
            return ("NodeTainted".into(), Some(format!("node {node} has the taint {taint}")));
        }
        Some(Obstacle::Cordoned | Obstacle::Tainted(_)) | None => {}
    }
    if let Some(until) = seen.held.get(node) {
        let last = pods.iter().filter(|pod| pod.progress == PodProgress::Finished).find_map(|pod| pod.hindrance.as_ref());
        let why = last.map(|hindrance| format!("{} {}; ", hindrance.reason, hindrance.message)).unwrap_or_default();
        return ("PodsFail".into(), Some(format!("{why}no replacement before {until:.0}")));
    }
    if let Some(hindrance) = active.iter().find_map(|pod| pod.hindrance.as_ref()) {
        let message = Some(hindrance.message.clone()).filter(|message| !message.is_empty());
        return (hindrance.reason.clone(), message);
    }
    ("Starting".into(), None)
}

fn conditions(
    status: &SeikaStatus,
    per_node: &[NodeStatus],
    asked: &DesiredPods<'_>,
    seen: &ObservedPods<'_>,
    circumstances: &Circumstances<'_>,
) -> Vec<Condition> {
    let missing_nodes: Vec<&str> = per_node
        .iter()
        .filter(|node| node.desired > 0 && !matches!(seen.nodes.look_up(&node.node), NodeKnowledge::Present(_)))
        .map(|node| node.node.as_str())
        .collect();
    let short: Vec<&str> = per_node.iter().filter(|node| node.ready < node.desired).map(|node| node.node.as_str()).collect();
    let available = if short.is_empty() && status.available_replicas >= status.desired_replicas {
        (true, "AllPodsAvailable", format!("{} pods are available", status.desired_replicas))
    } else if short.is_empty() {
        (false, "PodsTooYoung", "not all pods have been ready for long enough".to_owned())
    } else {
        (false, "PodsMissing", format!("fewer pods are ready than wanted on {}", some_of(&short)))
    };

    let outdated = status.current_replicas - status.updated_replicas;
    let beyond = per_node.iter().any(|node| node.current != node.desired);
    let progressing = if asked.rollout.paused && outdated > 0 {
        (false, "Paused", format!("{outdated} pods are of an earlier template, which stay while the roll-out is paused"))
    } else if outdated > 0 {
        (true, "RollingOut", format!("{outdated} pods are of an earlier template"))
    } else if beyond && circumstances.trouble.is_none() && missing_nodes.is_empty() {
        (true, "Scaling", format!("{} pods of {} are there", status.current_replicas, status.desired_replicas))
    } else if !short.is_empty() && circumstances.trouble.is_none() && missing_nodes.is_empty() {
        (true, "PodsStarting", format!("{} pods of {} are ready", status.ready_replicas, status.desired_replicas))
    } else {
        (false, "Settled", "nothing is being changed".to_owned())
    };

    let stalled =
        status.progressed_at.as_ref().is_some_and(|since| seen.now.duration_since(since.0) >= progress_deadline(asked.rollout));
    let progressing = match progressing {
        (true, _, message) if stalled => (
            false,
            "ProgressDeadlineExceeded",
            format!("no progress for {} s: {message}", asked.rollout.progress_deadline_seconds),
        ),
        other => other,
    };

    let failing: Vec<&str> = seen.held.keys().map(String::as_str).collect();
    let degraded = if let Some(trouble) = circumstances.trouble {
        (true, trouble.reason, trouble.message.clone())
    } else if !missing_nodes.is_empty() {
        (true, "NodeNotFound", format!("there is no node {}", some_of(&missing_nodes)))
    } else if !failing.is_empty() {
        (true, "PodsFail", format!("pods fail on {}", some_of(&failing)))
    } else {
        (false, "NothingWrong", String::new())
    };

    let foreign: Vec<&str> = circumstances.foreign.iter().map(String::as_str).collect();
    let overlap = if foreign.is_empty() {
        (false, "NoOverlap", String::new())
    } else {
        (true, "PodsOfOthersMatch", format!("the selector also matches {}", some_of(&foreign)))
    };

    [("Available", available), ("Progressing", progressing), ("Degraded", degraded), ("SelectorOverlap", overlap)]
        .into_iter()
        .map(|(type_, verdict)| {
            let before = circumstances.before.map(|before| &before.conditions[..]).unwrap_or_default();
            condition(type_, verdict, circumstances.generation, before, seen.now)
        })
        .collect()
}

/// A condition that keeps the time of its like among `before`, if it has not turned since.
fn condition(
    type_: &str,
    (holds, reason, message): (bool, &str, String),
    generation: Option<i64>,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let value = if holds { "True" } else { "False" };
    let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == value);
    Condition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: shortened(message, CONDITION_MESSAGE_BYTES_MAX),
        observed_generation: generation,
        last_transition_time: same.map_or_else(|| Time(whole_seconds(now)), |same| same.last_transition_time.clone()),
    }
}

/// The wire keeps no fractions: with them, each status read back would look changed.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The first few names, and how many more there are.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// At most `bytes` bytes of `text`, and a sign that there is more.
fn shortened(mut text: String, bytes: usize) -> String {
    const MORE: &str = " ...";
    if text.len() > bytes {
        let end = (0..=bytes.saturating_sub(MORE.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::index::SeikaView;
    use crate::observed::fixtures::{pod, ready_pod};
    use crate::observed::{Hindrance, NodeView, Nodes};
    use crate::taints::{Taint, Tolerations};

    struct Case {
        counts: BTreeMap<String, i32>,
        nodes: Nodes,
        picture: SeikaView,
        held: BTreeMap<String, Timestamp>,
    }

    fn case(counts: &[(&str, i32)], pods: Vec<PodView>) -> Case {
        let mut nodes = Nodes::default();
        for node in ["node1", "node2", "node3"] {
            nodes.put(node, NodeView::USABLE);
        }
        Case {
            counts: counts.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect(),
            nodes,
            picture: SeikaView { pods: pods.into_iter().map(Arc::new).collect(), unresolved: Vec::new() },
            held: BTreeMap::new(),
        }
    }

    impl Case {
        fn status(&self, circumstances: &Circumstances<'_>) -> SeikaStatus {
            let rollout = Rollout::default();
            let asked = DesiredPods {
                seika: "hello",
                uid: "uid",
                counts: &self.counts,
                revision: "new",
                rollout: &rollout,
                min_ready: SignedDuration::ZERO,
                tolerations: &Tolerations::default(),
            };
            let seen = ObservedPods {
                nodes: &self.nodes,
                picture: &self.picture,
                taken: &HashSet::new(),
                held: &self.held,
                now: Timestamp::from_second(1000).unwrap(),
            };
            status(&asked, &seen, circumstances)
        }
    }

    fn condition<'a>(status: &'a SeikaStatus, type_: &str) -> &'a Condition {
        status.conditions.iter().find(|condition| condition.type_ == type_).unwrap()
    }

    fn reason<'a>(status: &'a SeikaStatus, node: &str) -> Option<&'a str> {
        status.per_node.iter().find(|status| status.node == node).unwrap().reason.as_deref()
    }

    #[test]
    fn ready_counts_all_nodes_of_the_cluster_in_name_order() {
        let status = case(&[("node3", 1)], vec![ready_pod("a", "node3")]).status(&Circumstances::default());
        assert_eq!(status.nodes, ["node1", "node2", "node3"]);
        assert_eq!(status.ready, "0-0-1/0-0-1");
        assert_eq!(status.repurika, [("node3".to_owned(), 1)].into());
        assert_eq!(condition(&status, "Available").status, "True");
        assert_eq!(condition(&status, "Progressing").status, "False");
        assert_eq!(condition(&status, "Degraded").status, "False");
    }

    #[test]
    fn what_is_going_or_finished_does_not_count() {
        let pods = vec![
            ready_pod("a", "node1"),
            PodView { terminating: true, ..ready_pod("b", "node1") },
            PodView { progress: PodProgress::Finished, ..pod("c", "node1") },
            PodView { revision: "old".into(), ..ready_pod("d", "node1") },
        ];
        let status = case(&[("node1", 2)], pods).status(&Circumstances::default());
        assert_eq!((status.current_replicas, status.ready_replicas, status.updated_replicas), (2, 2, 1));
        assert_eq!(condition(&status, "Progressing").reason, "RollingOut");
    }

    #[test]
    fn each_shortfall_has_its_reason() {
        let mut case = case(
            &[("node1", 1), ("node2", 1), ("node3", 2), ("node9", 1)],
            vec![
                PodView {
                    progress: PodProgress::Pending,
                    hindrance: Some(Hindrance { reason: "ImagePullBackOff".into(), message: "no such image".into() }),
                    ..pod("a", "node1")
                },
                pod("b", "node2"),
                pod("c", "node3"),
            ],
        );
        case.nodes.put("node2", NodeView { cordoned: true, ..NodeView::USABLE });
        let status = case.status(&Circumstances::default());
        assert_eq!(reason(&status, "node1"), Some("ImagePullBackOff"));
        assert_eq!(reason(&status, "node2"), Some("NodeCordoned"));
        assert_eq!(reason(&status, "node3"), Some("Starting"));
        assert_eq!(reason(&status, "node9"), Some("NodeNotFound"));
        assert_eq!(status.ready, "0-0-0-0/1-1-2-1");
        assert_eq!(condition(&status, "Degraded").message, "there is no node node9");
        assert_eq!(condition(&status, "Available").status, "False");
    }

    /// A Seika that names `count` nodes with names of the length that clouds give them, none of
    /// which is there.
    fn case_of(count: u32) -> Case {
        let counts = (0..count).map(|node| (format!("{:0>41}", format!("node{node}")), 7)).collect();
        Case { counts, ..case(&[], Vec::new()) }
    }

    #[test]
    fn of_many_nodes_only_those_that_lack_something_are_listed() {
        let mut case = case_of(200);
        for node in case.counts.keys() {
            case.nodes.put(node, NodeView::USABLE);
        }
        let nodes: Vec<String> = case.counts.keys().cloned().collect();
        let pods = nodes.iter().flat_map(|node| (0..7).map(move |pod| ready_pod(&format!("{node}-{pod}"), node)));
        let mut pods: Vec<Arc<PodView>> = pods.map(Arc::new).collect();
        case.picture.pods.clone_from(&pods);
        let status = case.status(&Circumstances::default());
        assert_eq!((status.nodes, status.ready, status.per_node), (vec!["200 nodes".to_owned()], "1400/1400".to_owned(), vec![]));
        assert_eq!(status.repurika.len(), 200);

        pods.remove(20);
        case.picture.pods = pods;
        let status = case.status(&Circumstances::default());
        assert_eq!(status.ready, "1399/1400");
        let [lacking] = &status.per_node[..] else { panic!("{:?}", status.per_node) };
        assert_eq!((&lacking.node, lacking.desired, lacking.current), (&nodes[2], 7, 6));
        assert_eq!(condition(&status, "Available").message, format!("fewer pods are ready than wanted on {}", nodes[2]));
    }

    #[test]
    fn the_status_of_as_many_nodes_as_there_may_be_is_bounded() {
        let mut case = case_of(k8s_api::seika::NODES_MAX);
        let unschedulable = Hindrance { reason: "Unschedulable".into(), message: "0/5000 nodes are available: ".repeat(500) };
        let waits = |node: &String| PodView { hindrance: Some(unschedulable.clone()), ..pod(&format!("pod-{node}"), node) };
        case.picture.pods = case.counts.keys().map(waits).map(Arc::new).collect();
        for node in case.counts.keys() {
            case.nodes.put(node, NodeView::USABLE);
        }
        let trouble = Trouble { reason: "FailedCreate", message: "no ".repeat(10_000) };
        let status = case.status(&Circumstances { trouble: Some(&trouble), ..Circumstances::default() });
        assert_eq!(status.per_node.len(), 100);
        assert_eq!(condition(&status, "Degraded").message.len(), CONDITION_MESSAGE_BYTES_MAX);
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes < 400_000, "{bytes} bytes of the 1.5 MiB that etcd takes, which the spec shares");
    }

    #[test]
    fn long_messages_are_cut_where_a_character_ends() {
        assert_eq!(shortened("short".into(), 5), "short");
        assert_eq!(shortened("\u{e9}".repeat(10), 11), format!("{} ...", "\u{e9}".repeat(3)));
    }

    #[test]
    fn failing_pods_are_told_of() {
        let failed = PodView {
            progress: PodProgress::Finished,
            hindrance: Some(Hindrance { reason: "Evicted".into(), message: "low on memory".into() }),
            ..pod("a", "node1")
        };
        let mut case = case(&[("node1", 1)], vec![failed]);
        case.held.insert("node1".into(), Timestamp::from_second(1001).unwrap());
        let status = case.status(&Circumstances::default());
        assert_eq!(reason(&status, "node1"), Some("PodsFail"));
        assert_eq!(
            status.per_node[0].message.as_deref(),
            Some("Evicted low on memory; no replacement before 1970-01-01T00:16:41Z")
        );
        assert_eq!(condition(&status, "Degraded").reason, "PodsFail");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let early = Time(Timestamp::UNIX_EPOCH);
        let settled = case(&[("node1", 1)], vec![ready_pod("a", "node1")]);
        let mut before = settled.status(&Circumstances::default());
        for condition in &mut before.conditions {
            condition.last_transition_time = early.clone();
        }
        let circumstances = Circumstances { before: Some(&before), ..Circumstances::default() };
        let after = settled.status(&circumstances);
        assert!(after.conditions.iter().all(|condition| condition.last_transition_time == early));
        let short = case(&[("node1", 2)], vec![ready_pod("a", "node1")]).status(&circumstances);
        assert_ne!(condition(&short, "Available").last_transition_time, early);
        assert_eq!(condition(&short, "Degraded").last_transition_time, early);
    }

    #[test]
    fn without_progress_the_deadline_passes() {
        let short = case(&[("node1", 2)], vec![ready_pod("a", "node1")]);
        let mut before = short.status(&Circumstances::default());
        assert_eq!(condition(&before, "Progressing").status, "True");
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(next_deadline(&before, &Rollout::default(), now), Some(SignedDuration::from_secs(600)));

        before.progressed_at = Some(Time(Timestamp::from_second(400).unwrap()));
        let late = short.status(&Circumstances { before: Some(&before), ..Circumstances::default() });
        assert_eq!(condition(&late, "Progressing").reason, "ProgressDeadlineExceeded");
        assert_eq!(late.progressed_at, before.progressed_at);
        assert_eq!(next_deadline(&late, &Rollout::default(), now), None);

        // One more pod is progress.
        let more = case(&[("node1", 2)], vec![ready_pod("a", "node1"), pod("b", "node1")]);
        let more = more.status(&Circumstances { before: Some(&late), ..Circumstances::default() });
        assert_eq!(condition(&more, "Progressing").reason, "PodsStarting");
    }

    #[test]
    fn a_node_that_takes_no_pods_says_why_its_old_pods_stay() {
        let old = PodView { revision: "old".into(), ..ready_pod("a", "node1") };
        let mut case = case(&[("node1", 1)], vec![old]);
        let taint = Taint { key: "maintenance".into(), value: String::new(), effect: "NoSchedule".into() };
        case.nodes.put("node1", NodeView { taints: vec![taint], ..NodeView::USABLE });
        let status = case.status(&Circumstances::default());
        assert_eq!(reason(&status, "node1"), Some("NodeTainted"));
        assert_eq!(condition(&status, "Progressing").reason, "RollingOut");
    }

    #[test]
    fn what_cannot_be_acted_on_keeps_its_numbers_and_says_why() {
        let before = case(&[("node1", 1)], vec![ready_pod("a", "node1")]).status(&Circumstances::default());
        let now = Timestamp::from_second(2000).unwrap();
        let status = rejected(&before, Some(2), "its selector matches nothing", now);
        assert_eq!((status.ready_replicas, status.observed_generation), (1, Some(2)));
        assert_eq!(condition(&status, "Degraded").reason, "Invalid");
        assert_eq!(condition(&status, "Degraded").message, "its selector matches nothing");
        assert_eq!(condition(&status, "Progressing").status, "False");
        assert_eq!(rejected(&status, Some(2), "its selector matches nothing", now), status, "said once");
    }
}
