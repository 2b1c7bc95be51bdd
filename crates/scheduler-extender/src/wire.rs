//! What kube-scheduler and its extenders say to each other. Pure.
//!
//! The scheduler writes the keys `Pod`, `Nodes` and `NodeNames`, earlier releases wrote them in
//! lower case; any case is read. Answers have the case of today, which every release reads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A request to score or filter nodes for a pod.
#[derive(Debug, Default)]
pub(crate) struct Question<'a> {
    /// The pod.
    pub(crate) pod: Pod,
    /// The nodes that it may run on.
    pub(crate) names: Vec<Text<'a>>,
    /// Whether they came as whole objects: the scheduler does not know that names are enough.
    pub(crate) has_objects: bool,
    /// For each node whose pods would have to go, these pods.
    pub(crate) victims: BTreeMap<String, Victims>,
}

/// A text that is not copied where it needs no unescaping.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What is read of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) status: Status,
}

/// What is read of a pod's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metadata {
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What is read of a pod's status.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    /// The node that other pods were evicted from for this one.
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) nominated_node_name: String,
}

/// Pods that would have to go from a node.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Victims {
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) pods: Vec<Victim>,
    #[serde(rename = "NumPDBViolations")]
    pub(crate) disruption_budget_violations: i64,
}

/// One of them.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Victim {
    #[serde(rename = "UID", alias = "uid")]
    pub(crate) uid: String,
    /// Where the scheduler sends whole pods.
    #[serde(skip_serializing)]
    metadata: VictimMetadata,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct VictimMetadata {
    #[serde(deserialize_with = "or_nothing")]
    uid: String,
}

/// The begin of a node's entry in the answer to prioritize; its score and a brace follow. The score
/// is a whole number: one with a point makes the scheduler drop the list.
pub(crate) fn before_score(node: &str) -> Box<str> {
    format!("{{\"Host\":{},\"Score\":", serde_json::Value::from(node)).into()
}

/// The answer to filter. Names only: the scheduler believes whole nodes without a check.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FilterAnswer<'a> {
    pub(crate) node_names: Vec<&'a str>,
    /// Nodes that evicting pods would not help, each with its reason.
    pub(crate) failed_and_unresolvable_nodes: BTreeMap<&'a str, &'a str>,
    pub(crate) error: &'a str,
}

/// The answer to preempt: those of the nodes that are worth it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PreemptAnswer {
    #[serde(rename = "NodeNameToMetaVictims")]
    pub(crate) victims: BTreeMap<String, Victims>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeList<'a> {
    #[serde(borrow, deserialize_with = "or_nothing")]
    items: Vec<NodeObject<'a>>,
}

#[derive(Deserialize)]
struct NodeObject<'a> {
    #[serde(borrow)]
    metadata: NodeMetadata<'a>,
}

#[derive(Deserialize)]
struct NodeMetadata<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

/// `null` is what is not there.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl<'de: 'a, 'a> Deserialize<'de> for Question<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(QuestionVisitor)
    }
}

struct QuestionVisitor;

impl<'de> Visitor<'de> for QuestionVisitor {
    type Value = Question<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the arguments of an extender")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Question<'de>, A::Error> {
        let mut question = Question::default();
        let mut objects: Option<NodeList<'de>> = None;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let is = |name: &str| key.0.eq_ignore_ascii_case(name);
            if is("Pod") {
                question.pod = map.next_value::<Option<Pod>>()?.unwrap_or_default();
            } else if is("NodeNames") {
                question.names = map.next_value::<Option<Vec<Text<'de>>>>()?.unwrap_or_default();
            } else if is("Nodes") {
                objects = map.next_value()?;
            } else if is("NodeNameToMetaVictims") || is("NodeNameToVictims") {
                let victims: Option<BTreeMap<String, Option<Victims>>> = map.next_value()?;
                for (node, victims) in victims.into_iter().flatten() {
                    let mut victims = victims.unwrap_or_default();
                    for victim in victims.pods.iter_mut().filter(|victim| victim.uid.is_empty()) {
                        victim.uid = std::mem::take(&mut victim.metadata.uid);
                    }
                    question.victims.insert(node, victims);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if let Some(objects) = objects {
            question.has_objects = true;
            if question.names.is_empty() {
                question.names = objects.items.into_iter().map(|node| node.metadata.name).collect();
            }
        }
        Ok(question)
    }
}

/// Reads a request.
///
/// # Errors
/// Where it is no JSON, or not of this form.
pub(crate) fn question(body: &[u8]) -> Result<Question<'_>, serde_json::Error> {
    // What comes after the value is ignored, as the scheduler does.
    let mut reader = serde_json::Deserializer::from_slice(body);
    Question::deserialize(&mut reader)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the scheduler of Kubernetes 1.36 writes it.
    const SENT: &str = r#"{"Pod":{"metadata":{"name":"p-302","namespace":"default","uid":"6005","resourceVersion":"2066","generation":1,
        "annotations":{"placement.kantai.dev/talks-to":"cart"}},"spec":{"containers":[{"name":"c","image":"i"}],"priority":0},
        "status":{"phase":"Pending","qosClass":"Burstable","nominatedNodeName":"n4"}},"Nodes":null,"NodeNames":["n1","n3","n\u0032"]}"#;

    #[test]
    fn the_schedulers_own_form_is_read() {
        let question = question(SENT.as_bytes()).unwrap();
        let metadata = &question.pod.metadata;
        assert_eq!((metadata.name.as_str(), metadata.namespace.as_str(), metadata.uid.as_str()), ("p-302", "default", "6005"));
        assert_eq!(metadata.annotations["placement.kantai.dev/talks-to"], "cart");
        assert_eq!(question.pod.status.nominated_node_name, "n4");
        assert_eq!(question.names.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["n1", "n3", "n2"]);
        assert!(matches!(question.names[0].0, Cow::Borrowed("n1")) && !question.has_objects);
    }

    #[test]
    fn keys_may_have_any_case_and_whole_nodes_are_understood() {
        let body = br#"{"pod":{"metadata":{"name":"p","annotations":null}},"NODENAMES":null,
            "nodes":{"metadata":{},"items":[{"metadata":{"name":"n1","labels":{}},"spec":{}},{"metadata":{"name":"n2"}}]}} trailing"#;
        let question = question(body).unwrap();
        assert_eq!(question.names.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["n1", "n2"]);
        assert!(question.has_objects && question.pod.metadata.annotations.is_empty());
    }

    #[test]
    fn victims_are_read_as_names_and_as_whole_pods() {
        let body =
            br#"{"Pod":{},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"u1"}],"NumPDBViolations":2}}}"#;
        let answer = PreemptAnswer { victims: question(body).unwrap().victims };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"u1"}],"NumPDBViolations":2}}}"#);
        let body = br#"{"Pod":{},"NodeNameToVictims":{"n2":{"Pods":[{"metadata":{"name":"x","uid":"u2"}}]},"n3":null}}"#;
        let victims = question(body).unwrap().victims;
        assert_eq!((victims["n2"].pods[0].uid.as_str(), victims["n3"].pods.len()), ("u2", 0));
    }

    #[test]
    fn names_are_escaped_in_answers() {
        let entry = format!("{}7}}", before_score("a\"b"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&entry).unwrap(), serde_json::json!({"Host": "a\"b", "Score": 7}));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in ["", "[]", "null", "<html>", r#"{"NodeNames":[1]}"#, r#"{"Pod":{"metadata":3}}"#] {
            assert!(question(body.as_bytes()).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn names_arrive_as_they_are(names in prop::collection::vec("[a-z0-9.é\"\\\\-]{1,12}", 0..40)) {
            let body = serde_json::json!({"Pod": {"metadata": {"name": "p"}}, "NodeNames": names}).to_string();
            let question = question(body.as_bytes()).unwrap();
            prop_assert_eq!(question.names.iter().map(|name| name.0.to_string()).collect::<Vec<_>>(), names);
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = question(&body);
        }
    }
}
