//! Node affinity: which nodes a pod may be placed on by their labels and names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

/// What a pod requires of its node's labels and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDemands {
    /// Labels that the node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Of these terms the node must meet one; `None` where any node will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Vec<Term>>,
}

/// Requirements that a node must meet all of. A term without any is met by no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Term {
    /// Requirements of its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Requirement>,
    /// Requirements of its fields, of which Kubernetes knows `metadata.name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Requirement>,
}

/// One requirement of a label or field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The label or field.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`. No node meets any other.
    pub operator: String,
    /// What its value is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl NodeDemands {
    /// Reads what a pod's spec requires.
    #[must_use]
    pub fn read(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        Self { selector: spec.node_selector.clone().unwrap_or_default(), affinity: required.map(terms) }
    }

    /// Whether a node meets them, as the scheduler judges.
    #[must_use]
    pub fn are_met_by(&self, node: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let selected = self.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        selected && self.affinity.as_ref().is_none_or(|terms| terms.iter().any(|term| term.is_met_by(node, labels)))
    }
}

impl Term {
    fn is_met_by(&self, node: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let names_nothing = self.labels.is_empty() && self.fields.is_empty();
        !names_nothing
            && self.labels.iter().all(|one| one.is_met_by_label(labels.get(&one.key).map(String::as_str)))
            && self.fields.iter().all(|one| one.is_met_by_name(node))
    }
}

impl Requirement {
    /// Fields know fewer operators, and one value only.
    fn is_met_by_name(&self, node: &NodeName) -> bool {
        let [name] = self.values.as_slice() else { return false };
        match (self.key.as_str(), self.operator.as_str()) {
            ("metadata.name", "In") => node.as_str() == name,
            ("metadata.name", "NotIn") => node.as_str() != name,
            _ => false,
        }
    }

    fn is_met_by_label(&self, value: Option<&str>) -> bool {
        // The scheduler drops a term whose values no label can have, negative numbers among them.
        if !self.values.iter().all(|value| is_label_value(value)) {
            return false;
        }
        let is_listed = || value.is_some_and(|value| self.values.iter().any(|listed| listed == value));
        match self.operator.as_str() {
            "In" => is_listed(),
            // Also met where there is no such label.
            "NotIn" => !is_listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => self.numbers(value).is_some_and(|(value, bound)| value > bound),
            "Lt" => self.numbers(value).is_some_and(|(value, bound)| value < bound),
            _ => false,
        }
    }

    fn numbers(&self, value: Option<&str>) -> Option<(i64, i64)> {
        let [bound] = self.values.as_slice() else { return None };
        Some((value?.parse().ok()?, bound.parse().ok()?))
    }
}

fn is_label_value(text: &str) -> bool {
    let is_inner = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let is_outer = |letter: Option<char>| letter.is_none_or(|letter| letter.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(is_inner) && is_outer(text.chars().next()) && is_outer(text.chars().next_back())
}

fn terms(selector: &NodeSelector) -> Vec<Term> {
    let requirements = |listed: Option<&Vec<NodeSelectorRequirement>>| {
        let read = |one: &NodeSelectorRequirement| Requirement {
            key: one.key.clone(),
            operator: one.operator.clone(),
            values: one.values.clone().unwrap_or_default(),
        };
        listed.into_iter().flatten().map(read).collect()
    };
    let term = |term: &NodeSelectorTerm| Term {
        labels: requirements(term.match_expressions.as_ref()),
        fields: requirements(term.match_fields.as_ref()),
    };
    selector.node_selector_terms.iter().map(term).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn met(terms: &Value) -> bool {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "affinity": affinity})).unwrap();
        let labels = [("disk", "ssd"), ("cores", "16"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        NodeDemands::read(&spec).are_met_by(&"node1".into(), &labels.into())
    }

    #[rstest]
    #[case::is_in("disk", "In", &["hdd", "ssd"], true)]
    #[case::is_not_in("disk", "In", &["hdd"], false)]
    #[case::not_in("disk", "NotIn", &["hdd"], true)]
    #[case::not_not_in("disk", "NotIn", &["hdd", "ssd"], false)]
    #[case::an_absent_label_is_not_in("gpu", "NotIn", &["hdd"], true)]
    #[case::an_absent_label_is_in_nothing("gpu", "In", &[""], false)]
    #[case::exists("empty", "Exists", &[], true)]
    #[case::does_not_exist("gpu", "DoesNotExist", &[], true)]
    #[case::exists_after_all("disk", "DoesNotExist", &[], false)]
    #[case::greater("cores", "Gt", &["8"], true)]
    #[case::not_greater("cores", "Gt", &["16"], false)]
    #[case::less("cores", "Lt", &["17"], true)]
    #[case::by_number_and_not_by_letter("cores", "Lt", &["9"], false)]
    #[case::no_number("disk", "Gt", &["1"], false)]
    #[case::a_bound_that_no_label_can_have("cores", "Gt", &["-3"], false)]
    #[case::a_value_that_no_label_can_have("disk", "NotIn", &["hdd", "a b"], false)]
    #[case::an_empty_value("empty", "In", &[""], true)]
    #[case::two_bounds("cores", "Gt", &["1", "2"], false)]
    #[case::an_operator_of_a_later_release("disk", "Like", &["s*"], false)]
    fn a_label_is_judged_as_the_scheduler_does(
        #[case] key: &str,
        #[case] operator: &str,
        #[case] values: &[&str],
        #[case] expected: bool,
    ) {
        let requirement = json!({"key": key, "operator": operator, "values": values});
        assert_eq!(met(&json!([{"matchExpressions": [requirement]}])), expected);
    }

    #[test]
    fn terms_are_ored_and_requirements_anded() {
        let (ssd, gpu) = (json!({"key": "disk", "operator": "Exists"}), json!({"key": "gpu", "operator": "Exists"}));
        assert!(met(&json!([{"matchExpressions": [gpu]}, {"matchExpressions": [ssd]}])));
        assert!(!met(&json!([{"matchExpressions": [gpu, ssd]}])));
        assert!(!met(&json!([{}])));
        assert!(!met(&json!([])));
    }

    #[test]
    fn a_node_is_named_by_its_field() {
        let named = |key: &str, operator: &str, name: &str| {
            met(&json!([{"matchFields": [{"key": key, "operator": operator, "values": [name]}]}]))
        };
        assert!(named("metadata.name", "In", "node1"));
        assert!(!named("metadata.name", "In", "node2"));
        assert!(named("metadata.name", "NotIn", "node2"));
        assert!(!named("metadata.namespace", "NotIn", "node2"));
        assert!(!named("metadata.name", "Exists", "node1"));
        assert!(!met(&json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1", "node2"]}]}])));
    }
}
