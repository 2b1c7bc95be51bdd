//! Which taints of a node repel a pod: one rule for the placement and the creation of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Key of the taint of a cordoned node.
const CORDON_KEY: &str = "node.kubernetes.io/unschedulable";

/// The taint that a cordoned node has. Kubernetes adds it a moment after the cordon.
#[must_use]
pub fn cordon() -> Taint {
    Taint { key: CORDON_KEY.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// The first taint that keeps new pods with these tolerations away from the node.
/// `PreferNoSchedule` keeps nobody away.
///
/// ```
/// use k8s_api::taints::{cordon, refusing};
/// use k8s_openapi::api::core::v1::Toleration;
///
/// let everything = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
/// assert_eq!(refusing(&[cordon()], &[]), Some(&cordon()));
/// assert_eq!(refusing(&[cordon()], &[everything]), None);
/// ```
#[must_use]
pub fn refusing<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let refuses = |taint: &Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().find(|taint| refuses(taint) && !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a pod with this toleration may be placed in spite of this taint.
///
/// The operators `Gt` and `Lt` (Kubernetes 1.35) compare the taint's value with the toleration's as
/// whole numbers. A toleration with an operator of a later release tolerates nothing.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let (wanted, value) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or_default() {
        // Without a key, every taint.
        "Exists" => key.is_empty() || key == taint.key,
        "" | "Equal" => key == taint.key && wanted == value,
        "Gt" => key == taint.key && numbers(value, wanted).is_some_and(|(value, bound)| value > bound),
        "Lt" => key == taint.key && numbers(value, wanted).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn numbers(value: &str, bound: &str) -> Option<(i64, i64)> {
    Some((whole_number(value)?, whole_number(bound)?))
}

/// Kubernetes accepts no plus sign and no leading zeros.
fn whole_number(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let field = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: field(key),
            operator: field(operator),
            value: field(value),
            effect: field(effect),
            ..Toleration::default()
        }
    }

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), ..Taint::default() }
    }

    #[test]
    fn a_taint_is_tolerated_as_the_scheduler_reads_it() {
        let gpu = taint("gpu", "yes", "NoSchedule");
        let cases = [
            (("gpu", "", "yes", "NoSchedule"), true),
            (("gpu", "Equal", "yes", ""), true),
            (("gpu", "Equal", "no", ""), false),
            (("gpu", "Exists", "", "NoExecute"), false),
            (("gpu", "Exists", "", ""), true),
            // The API server refuses Exists with a value; the key decides here.
            (("gpu", "Exists", "no", ""), true),
            (("", "Exists", "", ""), true),
            (("", "Exists", "", "NoExecute"), false),
            (("", "", "yes", ""), false),
            (("disk", "Exists", "", ""), false),
            (("gpu", "exists", "", ""), false),
            (("gpu", "AnOperatorOfALaterRelease", "yes", ""), false),
            (("gpu", "Gt", "yes", ""), false),
        ];
        for ((key, operator, value, effect), tolerated) in cases {
            let toleration = toleration(key, operator, value, effect);
            assert_eq!(tolerates(&toleration, &gpu), tolerated, "{toleration:?}");
        }
    }

    #[test]
    fn gt_and_lt_compare_whole_numbers() {
        let cases = [
            ("950", "Gt", "900", true),
            ("900", "Gt", "900", false),
            ("-5", "Gt", "-10", true),
            ("850", "Lt", "900", true),
            ("900", "Lt", "900", false),
            ("10", "Lt", "9", false),
            // No whole numbers as Kubernetes takes them.
            ("950.5", "Gt", "900", false),
            ("0950", "Gt", "900", false),
            ("950", "Gt", "+900", false),
            ("", "Lt", "900", false),
            ("850", "Lt", "9223372036854775808", false),
        ];
        for (value, operator, bound, tolerated) in cases {
            let toleration = toleration("sla", operator, bound, "");
            assert_eq!(tolerates(&toleration, &taint("sla", value, "NoSchedule")), tolerated, "{value} {operator} {bound}");
        }
        assert!(!tolerates(&toleration("other", "Gt", "1", ""), &taint("sla", "5", "NoSchedule")));
    }

    #[test]
    fn only_noschedule_and_noexecute_keep_pods_away() {
        let taints = ["PreferNoSchedule", "AnEffectOfALaterRelease", "NoExecute"].map(|effect| taint("k", "v", effect));
        assert_eq!(refusing(&taints, &[]), Some(&taints[2]));
        assert_eq!(refusing(&taints, &[toleration("k", "Equal", "v", "NoExecute")]), None);
        assert_eq!(refusing(&[], &[]), None);
    }
}
