//! What is kept of pods and nodes: no more than decisions need, so that thousands of them cost
//! little memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PodStatus};

use crate::taints::{Taint, Tolerations};
use crate::watched::WatchedPod;
use k8s_api::seika::{NODE_ANNOTATION, NODE_LABEL, REVISION_LABEL};

/// The annotation by which pods say which of them to delete first; lower goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How far a pod has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodProgress {
    /// Not bound to its node.
    Unscheduled,
    /// Bound; not all of its containers have been started.
    Pending,
    /// Started.
    Running {
        /// Since when it is ready, if it is.
        ready_since: Option<Timestamp>,
    },
    /// Failed, evicted or run to its end: it will never run again.
    Finished,
}

/// Why a pod is not further on, in one word and in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hindrance {
    /// One word.
    pub(crate) reason: String,
    /// A sentence; may be empty.
    pub(crate) message: String,
}

/// A pod of a Seika.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// Its UID.
    pub(crate) uid: String,
    /// The node that it is for, bound to it or not.
    pub(crate) node: String,
    /// The revision of the template that it was made from.
    pub(crate) revision: String,
    /// How far it has come.
    pub(crate) progress: PodProgress,
    /// What holds it up.
    pub(crate) hindrance: Option<Hindrance>,
    /// It is going already.
    pub(crate) terminating: bool,
    /// We asked for it to go and do not know whether the API server heard.
    pub(crate) doomed: bool,
    /// Lower goes first.
    pub(crate) deletion_cost: i32,
    /// How often its containers were started again.
    pub(crate) restarts: i32,
    /// When it was created.
    pub(crate) created: Option<Timestamp>,
    /// All of its labels. Not known of a pod that the API server has not shown yet.
    pub(crate) labels: Option<Arc<BTreeMap<String, String>>>,
}

impl PodView {
    /// A pod that is being asked for.
    #[must_use]
    pub(crate) fn asked_for(name: &str, node: &str, revision: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: String::new(),
            node: node.to_owned(),
            revision: revision.to_owned(),
            progress: PodProgress::Unscheduled,
            hindrance: None,
            terminating: false,
            doomed: false,
            deletion_cost: 0,
            restarts: 0,
            created: None,
            labels: None,
        }
    }

    /// Reads what matters of a pod that carries our node label.
    #[must_use]
    pub(crate) fn of(pod: &WatchedPod) -> Self {
        let metadata = &pod.metadata;
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
        let bound_to = pod.spec.node_name.as_ref().filter(|node| !node.is_empty());
        let progress = progress(pod.status.as_ref(), bound_to.is_some());
        let said = || annotation(NODE_ANNOTATION).cloned().or_else(|| label(NODE_LABEL)).unwrap_or_default();
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            // Where it is counts for more than what anybody may have written on it since.
            node: bound_to.cloned().unwrap_or_else(said),
            revision: label(REVISION_LABEL).unwrap_or_default(),
            hindrance: pod.status.as_ref().and_then(|status| hindrance(status, &progress)),
            progress,
            terminating: metadata.deletion_timestamp.is_some(),
            doomed: false,
            deletion_cost: annotation(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0),
            restarts: pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref())
                .map_or(0, |containers| containers.iter().map(|container| container.restart_count).sum()),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            labels: Some(Arc::new(metadata.labels.clone().unwrap_or_default())),
        }
    }

    /// It serves, or will: it is neither going nor finished.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        !self.terminating && self.progress != PodProgress::Finished
    }

    /// Since when it is ready, if it is.
    #[must_use]
    pub(crate) fn ready_since(&self) -> Option<Timestamp> {
        match self.progress {
            PodProgress::Running { ready_since } => ready_since,
            _ => None,
        }
    }
}

fn progress(status: Option<&PodStatus>, bound: bool) -> PodProgress {
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    match phase {
        "Failed" | "Succeeded" => PodProgress::Finished,
        _ if !bound => PodProgress::Unscheduled,
        "Running" => PodProgress::Running {
            ready_since: status
                .and_then(|status| status.conditions.as_ref())
                .and_then(|conditions| {
                    conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")
                })
                // Ready since an unknown time is ready since for ever: it must not look younger
                // than it is.
                .map(|ready| ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)),
        },
        _ => PodProgress::Pending,
    }
}

fn hindrance(status: &PodStatus, progress: &PodProgress) -> Option<Hindrance> {
    match progress {
        PodProgress::Finished => Some(Hindrance {
            reason: status.reason.clone().unwrap_or_else(|| "Failed".to_owned()),
            message: status.message.clone().unwrap_or_default(),
        }),
        PodProgress::Unscheduled => status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| Hindrance {
                reason: condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned()),
                message: condition.message.clone().unwrap_or_default(),
            }),
        PodProgress::Running { ready_since: Some(_) } => None,
        PodProgress::Pending | PodProgress::Running { .. } => status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
            .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
            // A container that is being created, or waits for another, is on its way.
            .filter(|waiting| !matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing")))
            .map(|waiting| Hindrance {
                reason: waiting.reason.clone().unwrap_or_default(),
                message: waiting.message.clone().unwrap_or_default(),
            })
            .next(),
    }
}

/// What of a node says whether it takes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeView {
    /// Its Ready condition is True.
    pub(crate) ready: bool,
    /// It was cordoned.
    pub(crate) cordoned: bool,
    /// Its taints, but for those that only discourage.
    pub(crate) taints: Vec<Taint>,
}

/// What keeps new pods from starting on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Its Ready condition is not True.
    NotReady,
    /// It was cordoned.
    Cordoned,
    /// It has a taint that the pods do not tolerate, as `key:effect`.
    Tainted(String),
}

impl NodeView {
    /// A node that takes pods.
    #[cfg(test)]
    pub(crate) const USABLE: Self = Self { ready: true, cordoned: false, taints: Vec::new() };

    /// Reads what matters of a node.
    #[must_use]
    pub(crate) fn of(node: &Node) -> Self {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        Self {
            ready: ready.is_some_and(|ready| ready.status == "True"),
            cordoned: spec.is_some_and(|spec| spec.unschedulable == Some(true)),
            taints: taints
                .filter(|taint| taint.effect != "PreferNoSchedule")
                .map(|taint| Taint {
                    key: taint.key.clone(),
                    value: taint.value.clone().unwrap_or_default(),
                    effect: taint.effect.clone(),
                })
                .collect(),
        }
    }

    /// What keeps new pods with these tolerations from starting on it.
    #[must_use]
    pub(crate) fn obstacle(&self, tolerations: &Tolerations) -> Option<Obstacle> {
        if !self.ready {
            return Some(Obstacle::NotReady);
        }
        if self.cordoned && !tolerations.tolerate(&Taint::of_cordon()) {
            return Some(Obstacle::Cordoned);
        }
        let taint = self.taints.iter().find(|taint| !tolerations.tolerate(taint))?;
        Some(Obstacle::Tainted(format!("{}:{}", taint.key, taint.effect)))
    }
}

/// What is known of a node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKnowledge<'a> {
    /// There is such a node.
    Present(&'a NodeView),
    /// There was one.
    GoneSince(Timestamp),
    /// There is none.
    Never,
}

/// The cluster's nodes, and when those that left did so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    present: BTreeMap<String, NodeView>,
    gone: HashMap<String, Timestamp>,
}

/// What changed with an event about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// Nothing that matters here.
    None,
    /// The state of a node.
    State,
    /// Which nodes there are.
    Membership,
}

impl Nodes {
    /// `name` is there, as `view` says.
    pub(crate) fn put(&mut self, name: &str, view: NodeView) -> NodeChange {
        self.gone.remove(name);
        match self.present.insert(name.to_owned(), view) {
            None => NodeChange::Membership,
            Some(before) if before != self.present[name] => NodeChange::State,
            Some(_) => NodeChange::None,
        }
    }

    /// `name` has left.
    pub(crate) fn remove(&mut self, name: &str, now: Timestamp) -> NodeChange {
        if self.present.remove(name).is_none() {
            return NodeChange::None;
        }
        // Only who has just left matters; without this, a cluster whose nodes come and go would
        // fill the memory.
        self.gone.retain(|_, since| now.duration_since(*since).as_secs() < 600);
        self.gone.insert(name.to_owned(), now);
        NodeChange::Membership
    }

    /// These are the nodes that are there, and no others. Returns what changed, by node.
    pub(crate) fn replace(&mut self, listed: Self, now: Timestamp) -> Vec<(String, NodeChange)> {
        let left: Vec<String> = self.present.keys().filter(|name| !listed.present.contains_key(*name)).cloned().collect();
        let mut changes: Vec<(String, NodeChange)> =
            left.into_iter().map(|name| (name.clone(), self.remove(&name, now))).collect();
        changes.extend(listed.present.into_iter().map(|(name, view)| (name.clone(), self.put(&name, view))));
        changes
    }

    /// What is known of `name`.
    #[must_use]
    pub(crate) fn look_up(&self, name: &str) -> NodeKnowledge<'_> {
        match (self.present.get(name), self.gone.get(name)) {
            (Some(view), _) => NodeKnowledge::Present(view),
            (None, Some(since)) => NodeKnowledge::GoneSince(*since),
            (None, None) => NodeKnowledge::Never,
        }
    }

    /// The names of the nodes that are there, in order.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.present.keys().map(String::as_str)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A pod that was just asked for.
    pub(crate) fn pod(name: &str, node: &str) -> PodView {
        PodView { uid: format!("uid-of-{name}"), created: Some(Timestamp::UNIX_EPOCH), ..PodView::asked_for(name, node, "new") }
    }

    /// A pod that is ready since the beginning of time.
    pub(crate) fn ready_pod(name: &str, node: &str) -> PodView {
        PodView { progress: PodProgress::Running { ready_since: Some(Timestamp::UNIX_EPOCH) }, ..pod(name, node) }
    }
}
