//! Which taints a pod puts up with, as the scheduler reads them.

use k8s_openapi::api::core::v1::Toleration;
use serde_json::Value;

use k8s_api::seika::PodTemplate;

/// The taint that a cordoned node is treated as having, whether it has it already or not.
const CORDON: (&str, &str) = ("node.kubernetes.io/unschedulable", "NoSchedule");

/// A taint of a node that keeps pods away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taint {
    /// Its key.
    pub(crate) key: String,
    /// Its value; may be empty.
    pub(crate) value: String,
    /// `NoSchedule` or `NoExecute`.
    pub(crate) effect: String,
}

impl Taint {
    /// What a cordoned node is treated as having.
    #[must_use]
    pub(crate) fn of_cordon() -> Self {
        Self { key: CORDON.0.to_owned(), value: String::new(), effect: CORDON.1.to_owned() }
    }
}

/// What a template's pods put up with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tolerations(Vec<Toleration>);

impl Tolerations {
    /// Reads them. What cannot be read is left out: the API server refuses such pods, and says why
    /// better than we could.
    #[must_use]
    pub(crate) fn of(template: &PodTemplate) -> Self {
        let listed = template.spec.get("tolerations").and_then(Value::as_array).into_iter().flatten();
        Self(listed.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect())
    }

    /// Whether one of them is about this taint.
    #[must_use]
    pub(crate) fn tolerate(&self, taint: &Taint) -> bool {
        self.0.iter().any(|toleration| tolerates(toleration, taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect, operator) = (text(&toleration.key), text(&toleration.effect), text(&toleration.operator));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match operator.as_str() {
        // Without a key, every taint there is.
        "Exists" => key.is_empty() || key == taint.key,
        "" | "Equal" => key == taint.key && text(&toleration.value) == taint.value,
        // Kubernetes 1.35 and 1.36 know Lt and Gt, behind a gate that is off. The scheduler then
        // takes them for no match, too.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::equal(json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }), true)]
    #[case::equal_of_any_effect(json!({ "key": "gpu", "operator": "Equal", "value": "yes" }), true)]
    #[case::another_value(json!({ "key": "gpu", "value": "no" }), false)]
    #[case::another_effect(json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }), false)]
    #[case::exists(json!({ "key": "gpu", "operator": "Exists" }), true)]
    #[case::everything(json!({ "operator": "Exists" }), true)]
    #[case::another_key(json!({ "key": "disk", "operator": "Exists" }), false)]
    #[case::unknown_operator(json!({ "key": "gpu", "operator": "Gt", "value": "yes" }), false)]
    #[case::nonsense(json!("gpu"), false)]
    fn as_the_scheduler_reads_them(#[case] toleration: Value, #[case] tolerated: bool) {
        let mut template = PodTemplate::default();
        template.spec.insert("tolerations".into(), json!([toleration]));
        let taint = Taint { key: "gpu".into(), value: "yes".into(), effect: "NoSchedule".into() };
        assert_eq!(Tolerations::of(&template).tolerate(&taint), tolerated);
    }
}
