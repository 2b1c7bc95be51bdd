//! What a pod's spec says about pods beside it: anti-affinity and spread constraints.
//!
//! Among the pods of one revision these are honoured as numbers of pods per node: required
//! anti-affinity per node against the revision's own labels, and spread constraints per node with
//! `DoNotSchedule`. Pods of other revisions that such a selector selects too, as one by the
//! service's label does, are not counted. Everything else depends on pods of others or on groups of
//! nodes. It is listed in [`AmongPods::left_to_trial`]: a pod that the scheduler then refuses shows
//! it, and the node is avoided for a while.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

/// The label that is unique per node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What a revision's pods require of the pods beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AmongPods {
    /// The most pods of the revision on one node; `None` where nothing limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_node_most: Option<u32>,
    /// How evenly the revision's pods must be spread over nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// What is required and not planned for, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_to_trial: Vec<String>,
}

/// A spread constraint over nodes that keeps pods from being scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many more pods any node may have than the one with the fewest.
    pub max_skew: u32,
    /// With fewer nodes than this, the fewest count as 0.
    pub min_domains: u32,
    /// Whether only nodes that match the pod's selector and affinity count.
    pub counts_matching_only: bool,
    /// Whether only nodes whose taints the pod tolerates count.
    pub counts_tolerated_only: bool,
}

impl Spread {
    /// The least and the most pods per node with which `pods` on `domains` counted nodes keep
    /// within the skew, however they are placed between the two. `has_closed` says that one of the
    /// counted nodes takes no pod: then none may have more than the skew.
    ///
    /// ```
    /// use autoscaler::room::Spread;
    ///
    /// let spread = Spread {
    ///     max_skew: 1,
    ///     min_domains: 1,
    ///     counts_matching_only: true,
    ///     counts_tolerated_only: false,
    /// };
    /// assert_eq!(spread.bounds(2, 3, false), (0, 1));
    /// assert_eq!(spread.bounds(7, 3, false), (2, 3));
    /// assert_eq!(spread.bounds(7, 3, true), (0, 1)); // four of the seven stay without a place
    /// ```
    #[must_use]
    pub fn bounds(&self, pods: u32, domains: u32, has_closed: bool) -> (u32, u32) {
        let least = if has_closed || domains < self.min_domains { 0 } else { pods.checked_div(domains).unwrap_or(0) };
        (least, least.saturating_add(self.max_skew.max(1)))
    }
}

impl AmongPods {
    /// Reads what a spec requires for pods in `namespace` with these labels.
    #[must_use]
    pub fn read(namespace: &str, labels: &BTreeMap<String, String>, spec: &PodSpec) -> Self {
        let mut read = Self::default();
        let affinity = spec.affinity.as_ref();
        let apart = affinity.and_then(|affinity| {
            affinity.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
        });
        for term in apart.into_iter().flatten() {
            if is_about(term, namespace, labels) {
                if term.topology_key == HOSTNAME {
                    read.per_node_most = Some(1);
                } else {
                    read.left_to_trial.push(format!("pod anti-affinity by {}", term.topology_key));
                }
            } else {
                read.left_to_trial.push(format!("anti-affinity by {} to other pods", term.topology_key));
            }
        }
        let together = affinity
            .and_then(|affinity| affinity.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
        for term in together.into_iter().flatten() {
            read.left_to_trial.push(format!("pod affinity by {}", term.topology_key));
        }
        for constraint in spec.topology_spread_constraints.iter().flatten() {
            // `ScheduleAnyway` is a wish of the scheduler's score.
            if constraint.when_unsatisfiable != "DoNotSchedule" {
                continue;
            }
            if constraint.topology_key == HOSTNAME && matches(constraint.label_selector.as_ref(), labels) {
                read.spread.push(spread(constraint));
            } else {
                read.left_to_trial.push(format!("topology spread by {}", constraint.topology_key));
            }
        }
        if spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()) {
            read.left_to_trial.push("where its volumes are".to_owned());
        }
        read
    }
}

fn spread(constraint: &TopologySpreadConstraint) -> Spread {
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1).max(1);
    Spread {
        max_skew: number(Some(constraint.max_skew)),
        min_domains: number(constraint.min_domains),
        counts_matching_only: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        counts_tolerated_only: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// Whether a term is about pods of `namespace` with these labels. A selector of namespaces is taken
/// to select this one: only the namespace's labels could tell.
fn is_about(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let namespaces = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace =
        namespaces.iter().any(|listed| listed == namespace) || term.namespace_selector.is_some() || namespaces.is_empty();
    // Pods that differ in such a label are meant, and the revision's own do not.
    let means_others = term.mismatch_label_keys.iter().flatten().any(|key| labels.contains_key(key));
    in_namespace && !means_others && matches(term.label_selector.as_ref(), labels)
}

/// Whether a selector selects a pod with these labels. No selector selects none, an empty one all.
fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    let has_labels = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    has_labels
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = labels.get(&requirement.key);
            let is_listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
            match requirement.operator.as_str() {
                "In" => is_listed(),
                "NotIn" => !is_listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: &Value) -> AmongPods {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        let labels =
            [("serving.knative.dev/service", "hello"), ("app", "hello-00001")].map(|(key, value)| (key.into(), value.into()));
        AmongPods::read("default", &labels.into(), &serde_json::from_value(spec).unwrap())
    }

    fn apart(key: &str, selector: &Value, more: &Value) -> AmongPods {
        let mut term = json!({"topologyKey": key, "labelSelector": selector});
        for (key, value) in more.as_object().unwrap() {
            term[key] = value.clone();
        }
        read(&json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
    }

    #[test]
    fn anti_affinity_to_its_own_labels_allows_one_pod_per_node() {
        let hello = json!({"matchLabels": {"serving.knative.dev/service": "hello"}});
        let nothing = json!({});
        assert_eq!(apart(HOSTNAME, &hello, &nothing), AmongPods { per_node_most: Some(1), ..AmongPods::default() });
        assert_eq!(apart(HOSTNAME, &nothing, &nothing).per_node_most, Some(1));
        assert_eq!(apart(HOSTNAME, &hello, &json!({"namespaces": ["default"]})).per_node_most, Some(1));
        assert_eq!(apart(HOSTNAME, &hello, &json!({"namespaces": ["other"], "namespaceSelector": {}})).per_node_most, Some(1));
        let expressions = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["hello-00001"]}]});
        assert_eq!(apart(HOSTNAME, &expressions, &nothing).per_node_most, Some(1));
    }

    #[test]
    fn what_is_not_planned_for_is_said() {
        let (hello, other) = (json!({"matchLabels": {"app": "hello-00001"}}), json!({"matchLabels": {"app": "other"}}));
        let nothing = json!({});
        let left = |read: AmongPods| (read.per_node_most, read.spread.len(), read.left_to_trial);
        let only = |text: &str| (None, 0, vec![text.to_owned()]);
        assert_eq!(left(apart("zone", &hello, &nothing)), only("pod anti-affinity by zone"));
        assert_eq!(left(apart(HOSTNAME, &other, &nothing)), only("anti-affinity by kubernetes.io/hostname to other pods"));
        assert_eq!(
            left(apart(HOSTNAME, &hello, &json!({"namespaces": ["other"]}))),
            only("anti-affinity by kubernetes.io/hostname to other pods")
        );
        assert_eq!(
            left(apart(HOSTNAME, &hello, &json!({"mismatchLabelKeys": ["app"]}))),
            only("anti-affinity by kubernetes.io/hostname to other pods")
        );
        assert_eq!(
            left(read(&json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "cache"}}}]}}}))),
            only("pod affinity by kubernetes.io/hostname")
        );
        assert_eq!(
            left(read(&json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}))),
            only("where its volumes are")
        );
        assert_eq!(
            left(read(&json!({"topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": hello},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": hello}]}))),
            only("topology spread by zone")
        );
    }

    #[test]
    fn a_spread_over_nodes_is_read_with_its_policies() {
        let hello = json!({"matchLabels": {"app": "hello-00001"}});
        let constraint = |more: Value| {
            let mut constraint =
                json!({"maxSkew": 2, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": hello});
            for (key, value) in more.as_object().unwrap() {
                constraint[key] = value.clone();
            }
            read(&json!({"topologySpreadConstraints": [constraint]})).spread
        };
        let usual = Spread { max_skew: 2, min_domains: 1, counts_matching_only: true, counts_tolerated_only: false };
        assert_eq!(constraint(json!({})), [usual]);
        assert_eq!(
            constraint(json!({"minDomains": 5, "nodeTaintsPolicy": "Honor", "nodeAffinityPolicy": "Ignore"})),
            [Spread { min_domains: 5, counts_matching_only: false, counts_tolerated_only: true, ..usual }]
        );
    }

    proptest! {
        #[test]
        fn whatever_is_placed_within_the_bounds_keeps_the_skew(
            pods in 0..60_u32, max_skew in 1..4_u32, counts in prop::collection::vec(0..60_u32, 1..8)
        ) {
            let spread = Spread { max_skew, min_domains: 1, counts_matching_only: true, counts_tolerated_only: false };
            let domains = u32::try_from(counts.len()).unwrap();
            let (least, most) = spread.bounds(pods, domains, false);
            prop_assert!(least * domains <= pods && pods <= most * domains);
            let placed: Vec<u32> = counts.iter().map(|count| count.clamp(&least, &most)).copied().collect();
            prop_assert!(placed.iter().max().unwrap() - placed.iter().min().unwrap() <= max_skew);
        }
    }
}
