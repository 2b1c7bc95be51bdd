//! The templates that a Seika had, kept as ControllerRevisions so that one can be looked at and
//! applied again. Pure.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::naming::record_name;
use k8s_api::seika::{PodTemplate, REVISION_LABEL, UID_LABEL};

/// A template that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateRecord {
    /// Its object's name.
    pub(crate) name: String,
    /// The template's revision, as pods carry it.
    pub(crate) revision: String,
    /// Larger is later.
    pub(crate) number: i64,
}

/// What is to change so that the present template is the latest one kept, and not too many are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryChange {
    /// Keep the present template under this number.
    pub(crate) add: Option<i64>,
    /// It is kept already: give this object this number.
    pub(crate) promote: Option<(String, i64)>,
    /// Forget these objects.
    pub(crate) forget: Vec<String>,
}

/// Finds it. Of earlier templates the `limit` latest stay, and those in `used` by pods.
pub(crate) fn change(records: &[TemplateRecord], present: &str, used: &HashSet<&str>, limit: usize) -> HistoryChange {
    let latest = records.iter().map(|record| record.number).max().unwrap_or(0);
    let mut change = HistoryChange::default();
    match records.iter().find(|record| record.revision == present) {
        Some(record) if record.number == latest => {}
        Some(record) => change.promote = Some((record.name.clone(), latest + 1)),
        None => change.add = Some(latest + 1),
    }
    let mut earlier: Vec<&TemplateRecord> =
        records.iter().filter(|record| record.revision != present && !used.contains(record.revision.as_str())).collect();
    earlier.sort_by_key(|record| std::cmp::Reverse(record.number));
    change.forget = earlier.into_iter().skip(limit).map(|record| record.name.clone()).collect();
    change
}

/// The ControllerRevision that keeps a template.
pub(crate) fn controller_revision(
    seika: &str,
    revision: &str,
    number: i64,
    template: &PodTemplate,
    owner: &OwnerReference,
) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": record_name(seika, &owner.uid, revision),
            "labels": { REVISION_LABEL: revision, UID_LABEL: owner.uid },
            "ownerReferences": [owner],
        },
        // In the shape of a patch, as it would be given to `kubectl patch --type merge`.
        "data": { "spec": { "template": template } },
        "revision": number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: &str, number: i64) -> TemplateRecord {
        TemplateRecord { name: format!("hello-{revision}"), revision: revision.into(), number }
    }

    #[test]
    fn a_template_is_kept_once_and_the_present_one_is_the_latest() {
        let none = HashSet::new();
        assert_eq!(change(&[], "a", &none, 10), HistoryChange { add: Some(1), ..HistoryChange::default() });
        let kept = [record("a", 1), record("b", 2)];
        assert_eq!(change(&kept, "b", &none, 10), HistoryChange::default());
        assert_eq!(change(&kept, "c", &none, 10), HistoryChange { add: Some(3), ..HistoryChange::default() });
        // Back to an earlier one.
        assert_eq!(
            change(&kept, "a", &none, 10),
            HistoryChange { promote: Some(("hello-a".into(), 3)), ..HistoryChange::default() }
        );
    }

    #[test]
    fn the_oldest_that_no_pod_has_are_forgotten() {
        let kept = [record("a", 1), record("b", 2), record("c", 3), record("d", 4), record("e", 5)];
        let forget = |used: &[&str], limit| change(&kept, "e", &used.iter().copied().collect(), limit).forget;
        assert_eq!(forget(&[], 2), ["hello-b", "hello-a"]);
        assert_eq!(forget(&["a"], 2), ["hello-b"]);
        assert_eq!(forget(&["a", "b", "c", "d"], 0), Vec::<String>::new());
        assert_eq!(forget(&[], 0).len(), 4);
    }
}
