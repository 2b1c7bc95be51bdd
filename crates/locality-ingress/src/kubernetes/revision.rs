//! Knative's `Revision` (`serving.knative.dev/v1`), reduced to its `containerConcurrency` and
//! whether it sets `target-burst-capacity`.

use std::borrow::Cow;
use std::num::NonZeroU32;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::objects::{Concurrency, RevisionObject};

/// What Knative reads how much a revision must be able to take on top from.
const BURST_CAPACITY: [&str; 2] =
    ["autoscaling.knative.dev/target-burst-capacity", "autoscaling.knative.dev/targetBurstCapacity"];

/// A `Revision`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WatchedRevision {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// The specification.
    #[serde(default)]
    pub spec: RevisionSpec,
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevisionSpec {
    /// The hard limit, enforced by the queue-proxy; 0 or absent means no limit.
    #[serde(default)]
    pub container_concurrency: Option<i64>,
}

impl WatchedRevision {
    /// What of it matters here.
    #[must_use]
    pub(crate) fn read(&self) -> RevisionObject {
        let annotations = self.metadata.annotations.as_ref();
        let is_set = |key: &&str| annotations.is_some_and(|annotations| annotations.contains_key(*key));
        RevisionObject { concurrency: self.concurrency(), sets_burst_capacity: BURST_CAPACITY.iter().any(is_set) }
    }

    fn concurrency(&self) -> Concurrency {
        let limit = self.spec.container_concurrency.and_then(|limit| u32::try_from(limit).ok()).and_then(NonZeroU32::new);
        limit.map_or(Concurrency::Unlimited, Concurrency::Limited)
    }
}

impl kube::Resource for WatchedRevision {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Revision".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "serving.knative.dev".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "revisions".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_capacity_is_set_under_either_name() {
        let sets = |annotations: serde_json::Value| {
            let revision: WatchedRevision =
                serde_json::from_value(serde_json::json!({"metadata": {"name": "a", "annotations": annotations}})).unwrap();
            revision.read().sets_burst_capacity
        };
        for key in BURST_CAPACITY {
            assert!(sets(serde_json::json!({key: "0"})), "{key}");
        }
        assert!(!sets(serde_json::json!({"autoscaling.knative.dev/target": "5"})));
    }

    #[test]
    fn only_a_limit_is_a_limit() {
        let limit = |spec: serde_json::Value| {
            let revision: WatchedRevision =
                serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
            revision.concurrency()
        };
        assert_eq!(
            limit(serde_json::json!({"containerConcurrency": 4, "containers": []})),
            Concurrency::Limited(NonZeroU32::new(4).unwrap())
        );
        for none in [
            serde_json::json!({}),
            serde_json::json!({"containerConcurrency": 0}),
            serde_json::json!({"containerConcurrency": -1}),
        ] {
            assert_eq!(limit(none), Concurrency::Unlimited);
        }
    }
}
