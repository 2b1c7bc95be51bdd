//! The `Seika` resource as it is on the wire.
//!
//! Names such as `repurika` are the wire's; methods use the field's own words. The pod template is
//! kept as written: fields of pods that are newer than this program still reach the pods.

mod schema;
mod template;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use kube::core::DeserializeGuard;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::schema::{crd_yaml, definition};
pub use self::template::{PodTemplate, TemplateMeta};

/// Carried by every pod of a Seika: the node that the pod is for.
pub const NODE_LABEL: &str = "bonavadeur.io/seika-hostname";
/// Carried by every pod of a Seika: which version of the template it was made from.
pub const REVISION_LABEL: &str = "bonavadeur.io/seika-revision";
/// Carried by what is kept of a Seika's earlier templates: its UID.
pub const UID_LABEL: &str = "bonavadeur.io/seika-uid";
/// Annotation of pods whose node's name is too long for [`NODE_LABEL`]: the name in full.
pub const NODE_ANNOTATION: &str = "bonavadeur.io/seika-node";
/// Labels and annotations that this controller writes. No selector may name one of them: the value
/// differs from pod to pod, so the selector would match some of a Seika's pods and not others.
pub const OWN_KEYS: [&str; 4] = [NODE_LABEL, REVISION_LABEL, UID_LABEL, NODE_ANNOTATION];
/// How many of those are kept by default.
pub const REVISION_HISTORY_LIMIT: i32 = 10;
/// The most pods that one node can be asked to hold.
pub const COUNT_MAX: i32 = 1000;
/// The most nodes that one Seika can name: as many as Kubernetes supports in a cluster.
pub const NODES_MAX: u32 = 5000;

/// A Seika, or why it cannot be read: one that cannot must not hide the others from the watch.
pub type MaybeSeika = DeserializeGuard<Seika>;

/// What a Seika asks for.
// Each column has a type of its own; the lint takes the columns for one.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "batch.bonavadeur.io",
    version = "v1",
    kind = "Seika",
    plural = "seikas",
    namespaced,
    status = "SeikaStatus",
    // Disruption budgets read the total from here. The path has to be one below `.spec`.
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.currentReplicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    derive = "Default",
    doc = "Keeps exactly N pods on each named node.",
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.nodes",
        description = "The cluster's nodes, in name order"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.ready",
        description = "Ready pods per node / desired pods per node, nodes in name order"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas", description = "Pods wanted in all"),
    printcolumn(
        name = "Ready-Pods",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Pods that are ready"
    ),
    printcolumn(
        name = "Updated",
        type_ = "integer",
        json_path = ".status.updatedReplicas",
        description = "Pods made from the present template"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules()))]
pub struct SeikaSpec {
    /// Node name -> how many pods that node has. A node that is not named has none.
    #[serde(default)]
    #[schemars(schema_with = "schema::repurika")]
    pub repurika: BTreeMap<String, i32>,

    /// The sum of `repurika`, for the `scale` subresource. The controller keeps it; who writes
    /// `repurika` may write it too, and may as well leave it out. Any other number is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::replicas")]
    pub replicas: Option<i32>,

    /// Which pods are this Seika's. Its `matchLabels` are added to the labels of the pods; they
    /// cannot change. The controller's own labels (`bonavadeur.io/seika-hostname` and the like)
    /// cannot be part of it.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,

    /// What each pod looks like. Affinity to the node is added to it; its `nodeName` is dropped.
    #[schemars(schema_with = "schema::template")]
    pub template: PodTemplate,

    /// For how long a new pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::min_ready_seconds")]
    pub min_ready_seconds: i32,

    /// How pods are replaced when the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rollout")]
    pub rollout: Option<Rollout>,

    // They are kept as ControllerRevisions.
    /// How many old templates are kept, beside those that pods still have. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision_history_limit")]
    pub revision_history_limit: Option<i32>,
}

impl SeikaSpec {
    /// Desired pods of all nodes together.
    #[must_use]
    pub fn total(&self) -> i32 {
        self.repurika.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Whether both ask for the same. The total is left out: it only repeats the counts.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let Self { repurika, replicas: _, selector, template, min_ready_seconds, rollout, revision_history_limit } = self;
        *repurika == other.repurika
            && *rollout == other.rollout
            && *min_ready_seconds == other.min_ready_seconds
            && *revision_history_limit == other.revision_history_limit
            && *selector == other.selector
            && *template == other.template
    }
}

/// How pods are replaced when the template changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// How many pods beyond its count a node may have meanwhile. Default: 1.
    pub max_surge_per_node: i32,
    /// How many available pods a node may lack meanwhile. Default: 0.
    pub max_unavailable_per_node: i32,
    /// How many pods beyond the total all nodes together may have; unlimited by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<i32>,
    /// How many available pods all nodes together may lack meanwhile; unlimited by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<i32>,
    /// Replaces nothing while true. Counts are still kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Time without progress after which the condition `Progressing` turns false. Default: 600.
    pub progress_deadline_seconds: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_surge_per_node: 1,
            max_unavailable_per_node: 0,
            max_surge: None,
            max_unavailable: None,
            paused: false,
            progress_deadline_seconds: 600,
        }
    }
}

/// What was observed of a Seika.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeikaStatus {
    /// Node name -> how many pods it has (those that are going or finished do not count).
    #[schemars(schema_with = "schema::observed_counts")]
    pub repurika: BTreeMap<String, i32>,
    /// The cluster's nodes in name order, and any other node that the Seika names or has pods on.
    /// In clusters of more than 32 nodes: only the latter; where those are more than 32 themselves,
    /// a single entry that says how many: "200 nodes".
    pub nodes: Vec<String>,
    /// Ready pods per node, "/", desired pods per node, in the order of `nodes`: "1-2-3/1-2-3".
    /// Where `nodes` only says how many there are: the totals.
    pub ready: String,
    /// The generation of the spec that all of this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The nodes that the Seika names or has pods on, in name order. Where there are more than 32:
    /// those that have not what they should, the first 100 of them.
    #[schemars(schema_with = "schema::per_node")]
    pub per_node: Vec<NodeStatus>,
    /// Pods wanted in all.
    pub desired_replicas: i32,
    /// Pods there are in all.
    pub current_replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Pods that have been ready for `minReadySeconds`.
    pub available_replicas: i32,
    /// Pods made from the present template.
    pub updated_replicas: i32,
    /// The selector as text, for the `scale` subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision of the present template, as pods carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When one of the numbers above last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub progressed_at: Option<Time>,
    /// `Available`, `Progressing`, `Degraded`, `SelectorOverlap`. The last tells of pods of other
    /// owners that carry the label `bonavadeur.io/seika-hostname`, and of other Seikas. Pods
    /// without that label are not looked at: watching every pod of the cluster would cost more than
    /// the warning is worth, and no count can include them.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What was observed of a Seika on one node.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// Pods wanted.
    pub desired: i32,
    /// Pods there are.
    pub current: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods made from the present template.
    pub updated: i32,
    /// Why fewer are ready than wanted, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_nothing_that_is_asked_for() {
        let counts = |on_node2| [("node1".to_owned(), 1), ("node2".to_owned(), on_node2)].into();
        let spec = SeikaSpec { repurika: counts(2), ..SeikaSpec::default() };
        assert_eq!(spec.total(), 3);
        assert!(spec.asks_the_same(&SeikaSpec { replicas: Some(3), ..spec.clone() }));
        assert!(!spec.asks_the_same(&SeikaSpec { repurika: counts(3), ..spec.clone() }));
        assert!(!spec.asks_the_same(&SeikaSpec { min_ready_seconds: 1, ..spec.clone() }));
        let huge = SeikaSpec { repurika: [("node1".to_owned(), i32::MAX), ("node2".to_owned(), 1)].into(), ..spec };
        assert_eq!(huge.total(), i32::MAX);
    }
}
