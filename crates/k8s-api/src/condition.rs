//! Knative's conditions: like Kubernetes' own, with a meaningful Unknown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The status of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold, and waiting alone will not change that.
    False,
    /// Not decided yet, or a word that we do not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One condition of a Knative object's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Empty (an error when False), or `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// A reason in one word, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A message, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When `status` last changed. Knative refuses a condition without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// Sets a condition, sorted by type. The transition time changes only with the status.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: ConditionStatus,
    why: Option<(&str, &str)>,
    now: Timestamp,
) {
    let mut next = Condition {
        kind: kind.to_owned(),
        status,
        severity: None,
        reason: why.map(|(reason, _)| reason.to_owned()),
        message: why.map(|(_, message)| message.to_owned()),
        last_transition_time: Some(now),
    };
    match conditions.binary_search_by(|condition| condition.kind.as_str().cmp(kind)) {
        Ok(index) => {
            let held = &mut conditions[index];
            if held.status == status && held.last_transition_time.is_some() {
                next.last_transition_time = held.last_transition_time;
            }
            next.severity = held.severity.take();
            *held = next;
        }
        Err(index) => conditions.insert(index, next),
    }
}

/// The summary of conditions: any False, else any Unknown, else True. Also returns the deciding
/// condition unless the summary is True. A missing condition counts as Unknown.
#[must_use]
pub fn happy<'a>(conditions: &'a [Condition], dependents: &[&str]) -> (ConditionStatus, Option<&'a Condition>) {
    let find = |kind: &&str| conditions.iter().find(|condition| condition.kind == **kind);
    let with = |status| dependents.iter().filter_map(find).find(|condition| condition.status == status);
    if let Some(broken) = with(ConditionStatus::False) {
        return (ConditionStatus::False, Some(broken));
    }
    match with(ConditionStatus::Unknown) {
        Some(waiting) => (ConditionStatus::Unknown, Some(waiting)),
        None if dependents.iter().all(|kind| find(kind).is_some()) => (ConditionStatus::True, None),
        None => (ConditionStatus::Unknown, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set_condition(&mut conditions, "Ready", ConditionStatus::Unknown, Some(("Queued", "waiting")), at(1));
        set_condition(&mut conditions, "Active", ConditionStatus::True, None, at(1));
        set_condition(&mut conditions, "Ready", ConditionStatus::Unknown, Some(("Other", "still")), at(2));
        assert_eq!(conditions.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["Active", "Ready"]);
        assert_eq!(conditions[1].last_transition_time, Some(at(1)));
        assert_eq!(conditions[1].reason.as_deref(), Some("Other"));
        set_condition(&mut conditions, "Ready", ConditionStatus::True, None, at(3));
        assert_eq!((conditions[1].last_transition_time, conditions[1].reason.as_deref()), (Some(at(3)), None));
    }

    #[test]
    fn false_outweighs_unknown_outweighs_true() {
        let now = Timestamp::UNIX_EPOCH;
        let mut conditions = Vec::new();
        set_condition(&mut conditions, "A", ConditionStatus::True, None, now);
        assert_eq!(happy(&conditions, &["A", "B"]).0, ConditionStatus::Unknown);
        set_condition(&mut conditions, "B", ConditionStatus::Unknown, None, now);
        assert_eq!(happy(&conditions, &["A", "B"]).1.unwrap().kind, "B");
        set_condition(&mut conditions, "C", ConditionStatus::False, None, now);
        assert_eq!(happy(&conditions, &["A", "B", "C"]).0, ConditionStatus::False);
        assert_eq!(happy(&conditions, &["A"]), (ConditionStatus::True, None));
    }
}
