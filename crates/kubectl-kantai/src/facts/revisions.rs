//! The revisions that Kantai serves.

use std::collections::BTreeMap;

use k8s_api::seika::{MaybeSeika, Seika};
use k8s_api::{CLASS, ConditionStatus, PodAutoscaler, PodAutoscalerStatus};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::error::PluginError;

/// The decision in one sentence, as extra-controller writes it to the Seika.
const DECISION: &str = "placement.kantai.dev/decision";

/// A revision of our class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Served {
    pub(crate) namespace: String,
    pub(crate) revision: String,
    /// Its status as Knative reads it: True, False or Unknown.
    pub(crate) ready: String,
    /// Why it is not ready, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Pods that it should have, and that are ready; `None` before they were decided on.
    pub(crate) desired_pods: Option<i32>,
    pub(crate) ready_pods: Option<i32>,
    /// Desired pods per node.
    pub(crate) nodes: BTreeMap<String, i32>,
    /// Why the pods are where they are, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Of each node that is short, the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) short: BTreeMap<String, String>,
}

/// The revisions of our class, by namespace and name.
pub(crate) async fn served(cluster: &Cluster, scope: &Scope) -> Result<Vec<Served>, PluginError> {
    let (autoscalers, seikas) = futures::try_join!(
        cluster.list("list PodAutoscalers", cluster.api::<PodAutoscaler>(scope), ListParams::default()),
        cluster.list("list Seikas", cluster.api::<MaybeSeika>(scope), ListParams::default()),
    )?;
    let seikas: BTreeMap<(String, String), Seika> = seikas
        .into_iter()
        .filter_map(|seika| seika.0.ok())
        .map(|seika| ((seika.namespace().unwrap_or_default(), seika.name_any()), seika))
        .collect();
    let mut served: Vec<Served> = autoscalers
        .iter()
        .filter(|autoscaler| autoscaler.class() == CLASS)
        .map(|autoscaler| {
            let key = (autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
            let seika = seikas.get(&key);
            of(key, autoscaler.status.as_ref(), seika)
        })
        .collect();
    served.sort_by(|one, other| (&one.namespace, &one.revision).cmp(&(&other.namespace, &other.revision)));
    Ok(served)
}

fn of((namespace, revision): (String, String), status: Option<&PodAutoscalerStatus>, seika: Option<&Seika>) -> Served {
    let ready = status.and_then(|status| status.condition(PodAutoscalerStatus::READY));
    let not_ready = ready.filter(|condition| condition.status != ConditionStatus::True);
    let reason = not_ready.and_then(|condition| condition.reason.clone());
    let per_node = seika.and_then(|seika| seika.status.as_ref()).map(|status| &status.per_node);
    let short = per_node.into_iter().flatten().filter_map(|one| Some((one.node.clone(), one.reason.clone()?)));
    Served {
        namespace,
        revision,
        ready: ready.map_or("Unknown".to_owned(), |condition| format!("{:?}", condition.status)),
        reason,
        desired_pods: status.and_then(|status| status.desired_scale),
        ready_pods: status.and_then(|status| status.actual_scale),
        nodes: seika.map(|seika| seika.spec.repurika.clone()).unwrap_or_default(),
        why: seika.and_then(|seika| seika.annotations().get(DECISION).cloned()),
        short: short.collect(),
    }
}

impl Served {
    /// The row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        /// Nodes that a row names.
        const NAMED: usize = 6;
        let number = |number: Option<i32>| number.map_or("?".to_owned(), |number| number.to_string());
        let placed = self.nodes.iter().filter(|(_, pods)| **pods > 0);
        let mut nodes: Vec<String> = placed.map(|(node, pods)| format!("{node} {pods}")).collect();
        let more = nodes.len().saturating_sub(NAMED);
        nodes.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let short = self.short.iter().map(|(node, reason)| format!("{node}: {reason}"));
        let why: Vec<String> = self.reason.iter().cloned().chain(short).chain(self.why.iter().cloned()).collect();
        vec![
            self.namespace.clone(),
            self.revision.clone(),
            self.ready.clone(),
            format!("{}/{}", number(self.ready_pods), number(self.desired_pods)),
            if nodes.is_empty() { "-".to_owned() } else { format!("{}{more}", nodes.join(", ")) },
            why.join("; "),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_said_yet_is_not_zero() {
        let fresh = of(("default".to_owned(), "hello-00001".to_owned()), None, None);
        assert_eq!(fresh.row(), ["default", "hello-00001", "Unknown", "?/?", "-", ""]);
    }

    #[test]
    fn pods_per_node_and_reasons_stand_in_the_row() {
        let status: PodAutoscalerStatus = serde_json::from_value(json!({"desiredScale": 3, "actualScale": 1, "conditions": [
            {"type": "Ready", "status": "Unknown", "reason": "Queued"}]}))
        .unwrap();
        let seika: Seika = serde_json::from_value(json!({
            "apiVersion": "batch.bonavadeur.io/v1", "kind": "Seika",
            "metadata": {"name": "a", "annotations": {DECISION: "demand 21 asks for 3 pods"}},
            "spec": {"repurika": {"node1": 2, "node2": 0, "node3": 1}, "selector": {}, "template": {"metadata": {}, "spec": {}}},
            "status": {"perNode": [{"node": "node1", "desired": 2, "current": 1, "ready": 0, "updated": 1, "reason": "ImagePullBackOff"}]},
        }))
        .unwrap();
        let row = of(("default".to_owned(), "a".to_owned()), Some(&status), Some(&seika)).row();
        assert_eq!(row[2..5], ["Unknown", "1/3", "node1 2, node3 1"]);
        assert_eq!(row[5], "Queued; node1: ImagePullBackOff; demand 21 asks for 3 pods");
    }
}
