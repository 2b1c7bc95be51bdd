//! Virtual hosts as Envoy's `RouteConfiguration`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::SchemeRewriteSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate};
use envoy_types::pb::envoy::config::route::v3::route::Action as EnvoyAction;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    ClusterSpecifierPlugin, DirectResponseAction, HeaderMatcher, RedirectAction, RetryPolicy, Route as EnvoyRoute, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost as EnvoyHost, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent};

use prost::Message as _;

use super::Encoded;
use super::overflow::choice;
use super::proto::{any, duration, number, set_header, truth};
use crate::kubernetes::objects::ObjectName;
use crate::routes::network_hash::{HASH_HEADER, HASH_OVERRIDE, PROBE_HEADER, PROBE_VALUE};
use crate::routes::route_table::{Action, ClusterKey, Host, Route, Split, VirtualHost};

/// The route configuration `name`. Hosts of one Ingress with equal routes share a virtual host. For
/// clusters that are `overflowing` each request's cluster is chosen by what is in flight.
#[must_use]
pub fn route_configuration(
    name: &str,
    hosts: &BTreeMap<Host, VirtualHost>,
    overflowing: &BTreeSet<ClusterKey>,
) -> RouteConfiguration {
    RouteConfiguration {
        virtual_hosts: virtual_hosts(hosts, overflowing).collect(),
        cluster_specifier_plugins: choices(hosts, overflowing).collect(),
        ..without_hosts(name)
    }
}

/// [`route_configuration`] encoded, with one decoded virtual host in memory at a time.
#[must_use]
pub(crate) fn encoded_route_configuration(
    name: &str,
    hosts: &BTreeMap<Host, VirtualHost>,
    overflowing: &BTreeSet<ClusterKey>,
) -> Encoded {
    // Repeated fields may be anywhere in a message, so concatenated encodings are one message.
    let mut encoded = without_hosts(name).encode_to_vec();
    for virtual_host in virtual_hosts(hosts, overflowing) {
        encoded.extend(RouteConfiguration { virtual_hosts: vec![virtual_host], ..RouteConfiguration::default() }.encode_to_vec());
    }
    for choice in choices(hosts, overflowing) {
        encoded.extend(
            RouteConfiguration { cluster_specifier_plugins: vec![choice], ..RouteConfiguration::default() }.encode_to_vec(),
        );
    }
    encoded.into()
}

fn without_hosts(name: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        // gRPC clients send `host:80`. The backend still sees it unchanged.
        ignore_port_in_host_matching: true,
        // Clusters are sent before routes, and kept for a while after.
        validate_clusters: truth(false),
        ..RouteConfiguration::default()
    }
}

/// The route that answers probes with the hash. It comes before all other routes of the host.
fn proof(hash: &str) -> EnvoyRoute {
    EnvoyRoute {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            headers: vec![exactly(HASH_HEADER, HASH_OVERRIDE), exactly(PROBE_HEADER, PROBE_VALUE)],
            ..RouteMatch::default()
        }),
        // A cache that ignores the probe header must not serve an empty page instead of the real
        // one.
        response_headers_to_add: vec![set_header(HASH_HEADER, hash), set_header("cache-control", "no-store")],
        action: Some(EnvoyAction::DirectResponse(DirectResponseAction { status: 200, ..DirectResponseAction::default() })),
        ..EnvoyRoute::default()
    }
}

/// The Ingress of virtual host `number` in the [`route_configuration`] of `hosts`.
#[must_use]
pub(crate) fn ingress_of_virtual_host(hosts: &BTreeMap<Host, VirtualHost>, number: usize) -> Option<&ObjectName> {
    alike(hosts).into_iter().flat_map(|(ingress, alike)| alike.into_iter().map(move |_| ingress)).nth(number)
}

/// The choices of the clusters that are `overflowing` and that `hosts` lead to: each costs a
/// gateway a script of its own per thread, so those of other tables are left out.
fn choices(
    hosts: &BTreeMap<Host, VirtualHost>,
    overflowing: &BTreeSet<ClusterKey>,
) -> impl Iterator<Item = ClusterSpecifierPlugin> {
    let routes = hosts.values().filter(|_| !overflowing.is_empty()).flat_map(|host| &host.routes);
    let clusters = routes.flat_map(|route| match &route.action {
        Action::Forward { splits, .. } => splits.as_slice(),
        Action::RedirectToHttps | Action::Unavailable => &[],
    });
    let used: BTreeSet<&ClusterKey> = clusters.map(|split| &split.cluster).filter(|key| overflowing.contains(key)).collect();
    used.into_iter().map(choice)
}

fn virtual_hosts(hosts: &BTreeMap<Host, VirtualHost>, overflowing: &BTreeSet<ClusterKey>) -> impl Iterator<Item = EnvoyHost> {
    alike(hosts).into_values().flatten().map(|(virtual_host, domains)| EnvoyHost {
        name: domains[0].clone(),
        domains: domains.into_iter().cloned().collect(),
        routes: std::iter::once(proof(&virtual_host.hash))
            .chain(virtual_host.routes.iter().flat_map(|one| routes(one, overflowing)))
            .collect(),
        retry_policy: Some(retry_policy()),
        ..EnvoyHost::default()
    })
}

type Alike<'a> = (&'a VirtualHost, Vec<&'a Host>);

/// The hosts of each Ingress, grouped by equal routes.
fn alike(hosts: &BTreeMap<Host, VirtualHost>) -> BTreeMap<&ObjectName, Vec<Alike<'_>>> {
    let mut alike: BTreeMap<&ObjectName, Vec<Alike<'_>>> = BTreeMap::new();
    for (host, virtual_host) in hosts {
        let of_ingress = alike.entry(&virtual_host.ingress).or_default();
        match of_ingress.iter_mut().find(|(other, _)| *other == virtual_host) {
            Some((_, domains)) => domains.push(host),
            None => of_ingress.push((virtual_host, vec![host])),
        }
    }
    alike
}

/// `one` route as Envoy has it; where it leads to clusters that are `overflowing` as one for each
/// split, for a choice of the cluster takes the place of all shares.
fn routes(one: &Route, overflowing: &BTreeSet<ClusterKey>) -> Vec<EnvoyRoute> {
    let (rewrite_host, splits) = match &one.action {
        Action::Forward { rewrite_host, splits } if splits.iter().any(|split| overflowing.contains(&split.cluster)) => {
            (rewrite_host, splits)
        }
        _ => return vec![route(one)],
    };
    let whole: u64 = splits.iter().map(|split| u64::from(split.weight)).sum();
    let mut taken = 0;
    let of_split = |split: &Split| {
        taken += u64::from(split.weight);
        let action = Action::Forward { rewrite_host: rewrite_host.clone(), splits: vec![split.clone()] };
        let mut made = route(&Route { action, ..one.clone() });
        if let Some(matched) = made.r#match.as_mut().filter(|_| taken < whole) {
            matched.runtime_fraction = Some(up_to(taken, whole));
        }
        if let Some(EnvoyAction::Route(forward)) = made.action.as_mut().filter(|_| overflowing.contains(&split.cluster)) {
            forward.cluster_specifier = Some(ClusterSpecifier::ClusterSpecifierPlugin(split.cluster.to_string()));
        }
        made
    };
    splits.iter().map(of_split).collect()
}

/// The first `taken` of `whole`. All routes are asked with the same random number.
fn up_to(taken: u64, whole: u64) -> RuntimeFractionalPercent {
    const MILLION: u64 = 1_000_000;
    // Below a million.
    let numerator = u32::try_from(taken.saturating_mul(MILLION) / whole.max(1)).unwrap_or_default();
    let fraction = FractionalPercent { numerator, denominator: fractional_percent::DenominatorType::Million.into() };
    RuntimeFractionalPercent { default_value: Some(fraction), runtime_key: String::new() }
}

fn route(route: &Route) -> EnvoyRoute {
    let mut request_headers_to_add = Vec::new();
    let action = match &route.action {
        Action::Forward { rewrite_host, splits } => {
            if let [only] = splits.as_slice() {
                request_headers_to_add = only.set_headers.iter().map(|(name, value)| set_header(name, value)).collect();
            }
            EnvoyAction::Route(forward(rewrite_host.as_deref(), splits))
        }
        Action::RedirectToHttps => EnvoyAction::Redirect(RedirectAction {
            scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
            ..RedirectAction::default()
        }),
        Action::Unavailable => {
            EnvoyAction::DirectResponse(DirectResponseAction { status: 503, ..DirectResponseAction::default() })
        }
    };
    EnvoyRoute {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(route.prefix.clone())),
            headers: route.headers.iter().map(|(name, value)| exactly(name, value)).collect(),
            ..RouteMatch::default()
        }),
        request_headers_to_add,
        action: Some(action),
        ..EnvoyRoute::default()
    }
}

pub(super) fn exactly(name: &str, value: &str) -> HeaderMatcher {
    let exact = StringMatcher { match_pattern: Some(MatchPattern::Exact(value.to_owned())), ..StringMatcher::default() };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
        ..HeaderMatcher::default()
    }
}

fn forward(rewrite_host: Option<&str>, splits: &[Split]) -> RouteAction {
    let cluster_specifier = match splits {
        [only] => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|split| ClusterWeight {
                    name: split.cluster.to_string(),
                    weight: number(split.weight),
                    request_headers_to_add: split.set_headers.iter().map(|(name, value)| set_header(name, value)).collect(),
                    ..ClusterWeight::default()
                })
                .collect(),
            ..WeightedCluster::default()
        }),
    };
    RouteAction {
        cluster_specifier: Some(cluster_specifier),
        host_rewrite_specifier: rewrite_host.map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_owned())),
        // The activator and the queue-proxy enforce a revision's time-outs; the gateway has none of
        // its own.
        timeout: duration(Duration::ZERO),
        idle_timeout: duration(Duration::ZERO),
        ..RouteAction::default()
    }
}

/// Retries only requests that cannot have reached a backend, each time on another endpoint if its
/// priority has one. Responses of a backend are never retried.
///
/// An unreachable endpoint is ejected at once, so a priority without another one is left a moment
/// later, well within the retries. Envoy's extension that tries another priority each time is
/// created for every request, failed or not, at several times the cost of all other retry handling.
fn retry_policy() -> RetryPolicy {
    RetryPolicy {
        retry_on: "connect-failure,refused-stream".to_owned(),
        // Together about a tenth of a second.
        num_retries: number(8),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: 5,
        retry_back_off: Some(RetryBackOff {
            base_interval: duration(Duration::from_millis(1)),
            max_interval: duration(Duration::from_millis(50)),
        }),
        ..RetryPolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_one_by_one_they_are_the_same_configuration() {
        let host = |name: &str| {
            let redirect = Route { prefix: "/".into(), headers: BTreeMap::new(), action: Action::RedirectToHttps };
            (
                format!("{name}.example"),
                VirtualHost { ingress: ObjectName::new("ns", name), hash: name.into(), routes: vec![redirect].into() },
            )
        };
        let hosts = ["a", "b"].map(host).into();
        let encoded = encoded_route_configuration("external", &hosts, &BTreeSet::new());
        let decoded = RouteConfiguration::decode(encoded.content).unwrap();
        assert_eq!(decoded, route_configuration("external", &hosts, &BTreeSet::new()));
        assert_eq!(decoded.virtual_hosts.len(), 2);
        assert_eq!(decoded.virtual_hosts[1].name, "b.example");
        assert_eq!(ingress_of_virtual_host(&hosts, 1), Some(&ObjectName::new("ns", "b")));
        assert_eq!(ingress_of_virtual_host(&hosts, 2), None);
    }
}
