//! What each daemon's ServiceAccount has to be allowed: what its manifest gives it.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use kube::api::{Api, PostParams};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::daemons::{DECIDER, INGRESS, PROBER, SEIKAS};
use crate::known::{Known, Unread};

/// Roles and ClusterRoles of the daemons, as they are deployed.
const MANIFESTS: [(&str, &str); 4] = [
    (DECIDER, include_str!("../../../../deploy/extra-controller/rbac.yaml")),
    (SEIKAS, include_str!("../../../../deploy/seika-controller/rbac.yaml")),
    (INGRESS, include_str!("../../../../deploy/locality-ingress/rbac.yaml")),
    (PROBER, include_str!("../../../../deploy/latency-probe/rbac.yaml")),
];
/// As many are asked for at once.
const AT_ONCE: usize = 16;

/// Something that a daemon has to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) daemon: &'static str,
    pub(super) verb: String,
    group: String,
    /// With its subresource, as in `podautoscalers/status`.
    pub(super) resource: String,
    /// Empty for all objects.
    name: String,
    /// Empty for all namespaces.
    namespace: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {:?}", self.name)?;
        }
        match self.namespace.as_str() {
            "" => Ok(()),
            namespace => write!(f, " in {namespace}"),
        }
    }
}

/// A document of a manifest: a role, a binding, or something else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<PolicyRule>,
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

/// All rights of the daemons that `wanted` names, with the namespaces of this cluster.
pub(super) fn needed(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> Known<Vec<Right>> {
    let mut rights = BTreeSet::new();
    for (daemon, text) in MANIFESTS.into_iter().filter(|(daemon, _)| wanted(daemon)) {
        let manifests = documents(text).map_err(|error| Unread::because(error.to_string()))?;
        for role in roles_of(daemon, &manifests) {
            let namespace = match (role.kind.as_str(), role.metadata.namespace.as_str()) {
                ("ClusterRole", _) => "",
                (_, "kantai-system") => &cluster.system,
                (_, "knative-serving") => &cluster.knative,
                (_, other) => other,
            };
            rights.extend(role.rules.iter().flat_map(|rule| of_rule(daemon, namespace, rule)));
        }
    }
    Ok(rights.into_iter().collect())
}

fn documents(text: &str) -> Result<Vec<Manifest>, serde_saphyr::Error> {
    text.split("\n---\n").map(serde_saphyr::from_str).collect()
}

/// The roles that are bound to a daemon's account. Others are for people.
fn roles_of<'a>(daemon: &str, manifests: &'a [Manifest]) -> Vec<&'a Manifest> {
    let is_bound = |role: &&Manifest| {
        manifests.iter().any(|binding| {
            let refers = binding.role_ref.as_ref().is_some_and(|to| to.kind == role.kind && to.name == role.metadata.name);
            let is_near = role.kind == "ClusterRole" || binding.metadata.namespace == role.metadata.namespace;
            refers && is_near && binding.subjects.iter().any(|one| one.kind == "ServiceAccount" && one.name == daemon)
        })
    };
    manifests.iter().filter(is_bound).collect()
}

fn of_rule<'a>(daemon: &'static str, namespace: &'a str, rule: &'a PolicyRule) -> impl Iterator<Item = Right> + 'a {
    let names = rule.resource_names.clone().filter(|names| !names.is_empty()).unwrap_or_else(|| vec![String::new()]);
    let groups = rule.api_groups.clone().unwrap_or_default();
    let of_verb = move |verb: &'a String| {
        let names = names.clone();
        groups.clone().into_iter().flat_map(move |group| {
            let names = names.clone();
            rule.resources.iter().flatten().flat_map(move |resource| {
                let group = group.clone();
                names.clone().into_iter().map(move |name| Right {
                    daemon,
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name,
                    namespace: namespace.to_owned(),
                })
            })
        })
    };
    rule.verbs.iter().flat_map(of_verb)
}

/// Of each right whether the daemon has it.
pub(super) async fn ask(cluster: &Cluster, rights: Vec<Right>) -> Vec<(Right, Known<bool>)> {
    let asked = rights.into_iter().map(async |right| {
        let allowed = is_allowed(cluster, &right).await;
        (right, allowed)
    });
    futures::stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn is_allowed(cluster: &Cluster, right: &Right) -> Known<bool> {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    let attributes = ResourceAttributes {
        group: set(&right.group),
        resource: set(resource),
        subresource: set(subresource),
        verb: set(&right.verb),
        namespace: set(&right.namespace),
        name: set(&right.name),
        ..ResourceAttributes::default()
    };
    let system = &cluster.system;
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{system}:{}", right.daemon)),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{system}"),
            "system:authenticated".to_owned(),
        ]),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client());
    let doing = format!("ask whether {} may {right}", right.daemon);
    let review = cluster.ask(&doing, reviews.create(&PostParams::default(), &review)).await?;
    review.status.map(|status| status.allowed).ok_or_else(|| Unread::because(format!("failed to {doing}: no answer")))
}

/// Some right of a daemon to a resource, for tests of what is made of it.
#[cfg(test)]
pub(super) fn example(daemon: &'static str, resource: &str) -> Right {
    let (verb, group) = ("list".to_owned(), String::new());
    Right { daemon, verb, group, resource: resource.to_owned(), name: String::new(), namespace: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_manifests_is_a_right() {
        let rule = PolicyRule {
            api_groups: Some(vec!["coordination.k8s.io".to_owned()]),
            resources: Some(vec!["leases".to_owned()]),
            resource_names: Some(vec!["extra-controller".to_owned()]),
            verbs: vec!["get".to_owned(), "update".to_owned()],
            ..PolicyRule::default()
        };
        let rights: Vec<String> = of_rule(DECIDER, "kantai-system", &rule).map(|right| right.to_string()).collect();
        assert_eq!(
            rights,
            [
                "get leases.coordination.k8s.io \"extra-controller\" in kantai-system",
                "update leases.coordination.k8s.io \"extra-controller\" in kantai-system"
            ]
        );
        for (daemon, text) in MANIFESTS {
            let manifests = documents(text).unwrap();
            let roles = roles_of(daemon, &manifests);
            assert!(roles.iter().any(|role| !role.rules.is_empty()), "{daemon}");
            // Roles for people are aggregated to those of the cluster, and bound to no account.
            assert!(
                roles.iter().all(|role| !role.metadata.name.contains("edit") && !role.metadata.name.contains("view")),
                "{daemon}"
            );
        }
    }
}
