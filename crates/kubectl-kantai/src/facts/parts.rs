//! Kantai's own workloads.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::error::PluginError;

/// Label of everything that is Kantai's own.
const PART_OF: &str = "app.kubernetes.io/part-of=kantai";

/// What runs a part's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum PartKind {
    Deployment,
    DaemonSet,
}

/// A daemon as it is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) kind: PartKind,
    pub(crate) ready: i32,
    /// `None` where its controller has not said yet.
    pub(crate) desired: Option<i32>,
    /// Variables of its containers that are set to a plain text.
    #[serde(skip)]
    pub(crate) variables: BTreeMap<String, String>,
}

impl Part {
    pub(crate) fn is_ready(&self) -> bool {
        self.desired.is_some_and(|desired| self.ready >= desired && desired > 0)
    }

    /// Such as `2/3`.
    pub(crate) fn ready_of_desired(&self) -> String {
        self.desired.map_or_else(|| format!("{}/?", self.ready), |desired| format!("{}/{desired}", self.ready))
    }
}

/// Kantai's workloads, in name order.
pub(crate) async fn parts(cluster: &Cluster) -> Result<Vec<Part>, PluginError> {
    let scope = Scope::One(cluster.system.clone());
    let selector = || ListParams::default().labels(PART_OF);
    let (deployments, daemon_sets) = futures::try_join!(
        cluster.list("list Kantai's Deployments", cluster.api::<Deployment>(&scope), selector()),
        cluster.list("list Kantai's DaemonSets", cluster.api::<DaemonSet>(&scope), selector()),
    )?;
    let mut parts: Vec<Part> = deployments.iter().map(of_deployment).chain(daemon_sets.iter().map(of_daemon_set)).collect();
    parts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(parts)
}

fn of_deployment(deployment: &Deployment) -> Part {
    let spec = deployment.spec.as_ref();
    Part {
        name: deployment.name_any(),
        kind: PartKind::Deployment,
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        desired: spec.and_then(|spec| spec.replicas),
        variables: spec.map(|spec| variables(spec.template.spec.as_ref())).unwrap_or_default(),
    }
}

fn of_daemon_set(set: &DaemonSet) -> Part {
    let status = set.status.as_ref();
    Part {
        name: set.name_any(),
        kind: PartKind::DaemonSet,
        ready: status.map_or(0, |status| status.number_ready),
        // Before its controller has looked, the status says zero of everything.
        desired: status.filter(|status| status.observed_generation.is_some()).map(|status| status.desired_number_scheduled),
        variables: set.spec.as_ref().map(|spec| variables(spec.template.spec.as_ref())).unwrap_or_default(),
    }
}

fn variables(spec: Option<&k8s_openapi::api::core::v1::PodSpec>) -> BTreeMap<String, String> {
    let all = spec.into_iter().flat_map(|spec| &spec.containers).flat_map(|container| container.env.iter().flatten());
    all.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?))).collect()
}
