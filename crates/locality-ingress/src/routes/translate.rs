//! Translates each Ingress to [`IngressRoutes`], and merges all of them by host into the
//! [`RouteTable`]. Pure.
//!
//! Each Ingress is validated by itself: an invalid one has no routes and an [`IngressProblem`],
//! and does not affect others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::network_hash::network_hash;
use super::own_hosts;
use super::route_table::{
    ANY_HOST, Action, Cluster, ClusterKey, ClusterTarget, Host, Route, RouteList, RouteTable, Split, VirtualHost,
};
use super::validate::{
    IngressProblem, check_header, check_host, check_match_header, check_prefix, check_rewrite, is_allowed_backend,
};
use crate::kubernetes::objects::{IngressObject, ObjectName, RoutingObjects};
use k8s_api::kingress::{BackendSplit, HTTP_REDIRECTED, HttpPath, VISIBILITY_EXTERNAL, VISIBILITY_LOCAL};

/// The TLS port of a revision's Services.
const HTTPS: u16 = 443;

/// Settings of the translation.
#[derive(Clone, Debug)]
pub struct TranslateSettings {
    /// The DNS name of the Service of the gateways' internal listeners.
    pub internal_gateway: String,
    /// The Secret with the authority (`ca.crt`) of the certificates of activators and queue-proxies
    /// under Knative's internal encryption.
    pub internal_authority: ObjectName,
}

impl TranslateSettings {
    /// Whether a DNS name is that of our own internal listeners, in any form that resolves.
    fn is_ourselves(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut parts = self.internal_gateway.splitn(3, '.');
        match (parts.next(), parts.next()) {
            _ if host == self.internal_gateway => true,
            (Some(service), Some(namespace)) => {
                host == format!("{service}.{namespace}") || host == format!("{service}.{namespace}.svc")
            }
            _ => false,
        }
    }
}

/// The routes of one generation of one Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressRoutes {
    /// The generation.
    pub generation: i64,
    /// When the Ingress was created, in seconds since 1970.
    pub created_unix_seconds: i64,
    /// The hash with which a gateway answers a probe of this version.
    pub hash: Arc<str>,
    /// Hosts of both listeners, with their routes for external requests; internally the same
    /// without redirects.
    pub external: BTreeMap<Host, HostRoutes>,
    /// Hosts of the internal listener only.
    pub local: BTreeMap<Host, HostRoutes>,
    /// Certificates of external hosts. Missing Secrets are in [`missing`](Self::missing) instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_certificates: BTreeMap<Host, ObjectName>,
    /// Certificates of internal hosts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub local_certificates: BTreeMap<Host, ObjectName>,
    /// Whether external plain HTTP is redirected to HTTPS.
    #[serde(default)]
    pub redirect_to_https: bool,
    /// The backends of the routes.
    pub clusters: Box<[(ClusterKey, Cluster)]>,
    /// Referenced objects that do not exist yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The forwarding routes of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoutes {
    /// The first match wins.
    pub routes: RouteList,
}

/// Translates the Ingress `name`.
///
/// # Errors
/// An `IngressProblem` if the Ingress is invalid.
pub fn translate(
    name: &ObjectName,
    ingress: &IngressObject,
    objects: &RoutingObjects,
    settings: &TranslateSettings,
) -> Result<IngressRoutes, IngressProblem> {
    let mut routes = IngressRoutes {
        generation: ingress.generation,
        created_unix_seconds: ingress.created_unix_seconds,
        hash: network_hash(&ingress.spec, &name.namespace, &name.name).into(),
        external: BTreeMap::new(),
        local: BTreeMap::new(),
        external_certificates: BTreeMap::new(),
        local_certificates: BTreeMap::new(),
        redirect_to_https: false,
        clusters: Box::default(),
        missing: Vec::new(),
    };
    // A host may be in several rules (Knative 1.15 does that for certificate challenges), so paths
    // are collected by host first.
    let mut external: BTreeMap<Host, Vec<&HttpPath>> = BTreeMap::new();
    let mut local: BTreeMap<Host, Vec<&HttpPath>> = BTreeMap::new();
    for rule in &ingress.spec.rules {
        let by_host = match rule.visibility.as_str() {
            VISIBILITY_EXTERNAL => &mut external,
            VISIBILITY_LOCAL => &mut local,
            other => return Err(IngressProblem::UnknownVisibility { visibility: other.to_owned() }),
        };
        let paths = &rule.http.as_ref().ok_or(IngressProblem::NoPaths)?.paths;
        if rule.hosts.is_empty() {
            by_host.entry(ANY_HOST.to_owned()).or_default().extend(paths);
        }
        for host in &rule.hosts {
            check_host(host)?;
            by_host.entry(host.to_ascii_lowercase()).or_default().extend(paths);
        }
    }
    let mut alike: Vec<RouteList> = Vec::new();
    for (from, to_external) in [(external, true), (local, false)] {
        for (host, mut paths) in from {
            // Longest prefix first. The sort is stable: Serving puts paths with headers first.
            paths.sort_by_key(|path| std::cmp::Reverse(path.path.len()));
            let mut of_host = Vec::new();
            for path in paths {
                of_host.push(path_route(name, path)?);
            }
            let host_routes = HostRoutes { routes: shared(of_host, &mut alike) };
            if to_external { &mut routes.external } else { &mut routes.local }.insert(host, host_routes);
        }
    }
    let paths = ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let splits = paths.flat_map(|path| &path.splits).filter(|split| split.percent > 0);
    let clusters: Result<Vec<_>, _> = splits.map(|split| backend(split, objects, settings, &mut routes.missing)).collect();
    let mut clusters = clusters?;
    clusters.sort_by(|(one, _), (other, _)| one.cmp(other));
    clusters.dedup_by(|(one, _), (other, _)| one == other);
    routes.clusters = clusters.into();
    check_circles(&routes)?;
    certificates(name, ingress, objects, &mut routes)?;
    Ok(routes)
}

/// A request that returns to the gateway with a host of the same Ingress would loop.
fn check_circles(routes: &IngressRoutes) -> Result<(), IngressProblem> {
    let own: Vec<&ClusterKey> = routes
        .clusters
        .iter()
        .filter(|(_, cluster)| cluster.target == ClusterTarget::OwnInternalListener)
        .map(|(key, _)| key)
        .collect();
    let hosts = || routes.external.iter().chain(&routes.local);
    for route in hosts().flat_map(|(_, of_host)| &of_host.routes) {
        let Action::Forward { rewrite_host, splits } = &route.action else { continue };
        let Some(split) = splits.iter().find(|split| own.contains(&&split.cluster)) else { continue };
        let elsewhere = rewrite_host.as_ref().is_some_and(|asked| hosts().all(|(host, _)| !asked.eq_ignore_ascii_case(host)));
        if !elsewhere {
            return Err(IngressProblem::Circle { service: split.cluster.service.to_string() });
        }
    }
    Ok(())
}

/// `routes`, sharing memory with equal routes of another host in `alike`.
fn shared(routes: Vec<Route>, alike: &mut Vec<RouteList>) -> RouteList {
    if let Some(same) = alike.iter().find(|one| ***one == *routes) {
        return same.clone();
    }
    let routes = RouteList::from(routes);
    // If some hosts differ, mostly all do; comparing many would take longer than it saves.
    if alike.len() < MOST_ALIKE {
        alike.push(routes.clone());
    }
    routes
}

/// The number of different routes of one Ingress to compare with.
const MOST_ALIKE: usize = 8;

fn path_route(name: &ObjectName, path: &HttpPath) -> Result<Route, IngressProblem> {
    let prefix = if path.path.is_empty() { "/".to_owned() } else { path.path.clone() };
    check_prefix(&prefix)?;
    let rewrite_host = (!path.rewrite_host.is_empty()).then(|| path.rewrite_host.clone());
    rewrite_host.as_deref().map_or(Ok(()), check_rewrite)?;
    let mut headers = BTreeMap::new();
    for (header, matched) in &path.headers {
        check_match_header(header, &matched.exact)?;
        headers.insert(header.to_ascii_lowercase(), matched.exact.clone());
    }
    let mut splits = Vec::new();
    for split in &path.splits {
        if split.service_namespace != name.namespace {
            return Err(IngressProblem::ForeignBackend { namespace: split.service_namespace.clone() });
        }
        // A backend with 0 % is omitted.
        let weight = u32::try_from(split.percent).ok().filter(|&weight| weight <= 100);
        let weight = weight.ok_or(IngressProblem::BadPercent { percent: split.percent })?;
        if weight == 0 {
            continue;
        }
        // The split's own headers override the path's.
        let mut set_headers = BTreeMap::new();
        for (header, value) in path.append_headers.iter().chain(&split.append_headers) {
            check_header(header, value)?;
            // Names that differ only in case are one header; their order must not decide which one
            // wins.
            set_headers.insert(header.to_ascii_lowercase(), value.clone());
        }
        splits.push(Split { cluster: cluster_key(split), weight, set_headers });
    }
    if splits.is_empty() {
        return Ok(Route { prefix, headers, action: Action::Unavailable });
    }
    Ok(Route { prefix, headers, action: Action::Forward { rewrite_host, splits } })
}

fn cluster_key(split: &BackendSplit) -> ClusterKey {
    let port = match &split.service_port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    ClusterKey { service: ObjectName::new(&split.service_namespace, &split.service_name), port }
}

fn backend(
    split: &BackendSplit,
    objects: &RoutingObjects,
    settings: &TranslateSettings,
    missing: &mut Vec<String>,
) -> Result<(ClusterKey, Cluster), IngressProblem> {
    let key = cluster_key(split);
    // No endpoint has a port of this name, so requests are answered with 503 until the Service
    // exists.
    let nowhere = Cluster { http2: false, tls: false, target: ClusterTarget::Endpoints { port_name: "-".to_owned() } };
    let Some(service) = objects.services.get(&key.service) else {
        missing.push(format!("Service {}", key.service));
        return Ok((key, nowhere));
    };
    let port = service.port(&split.service_port);
    let http2 = port.is_some_and(|port| port.http2);
    if let Some(host) = &service.external_name {
        if settings.is_ourselves(host) {
            return Ok((key, Cluster { http2, tls: false, target: ClusterTarget::OwnInternalListener }));
        }
        if !is_allowed_backend(host) {
            return Err(IngressProblem::ForbiddenName { service: key.service.to_string(), name: host.clone() });
        }
        // A Service without selector need not list its ports, so a port number is used as it is.
        let number = port.map(|port| port.number).or(match split.service_port {
            IntOrString::Int(number) => u16::try_from(number).ok(),
            IntOrString::String(_) => None,
        });
        if let Some(port) = number.filter(|&number| number > 0) {
            return Ok((key, Cluster { http2, tls: false, target: ClusterTarget::Name { host: host.clone(), port } }));
        }
    }
    Ok(match port {
        // The HTTPS port of a revision is used under internal encryption only.
        Some(port) if service.of_revision && port.number == HTTPS => {
            let authority = &settings.internal_authority;
            if objects.secrets.get(authority).is_none_or(|secret| secret.authority_pem.is_none()) {
                missing.push(format!("ca.crt of Secret {authority}, for internal encryption"));
            }
            // The protocol within TLS is that of the port without TLS.
            let http2 = service.ports.iter().any(|port| port.http2);
            (key, Cluster { http2, tls: true, target: ClusterTarget::Endpoints { port_name: port.name.clone() } })
        }
        Some(port) => (key, Cluster { http2, tls: false, target: ClusterTarget::Endpoints { port_name: port.name.clone() } }),
        None => {
            missing.push(format!("port {} of Service {}", key.port, key.service));
            (key, nowhere)
        }
    })
}

fn certificates(
    name: &ObjectName,
    ingress: &IngressObject,
    objects: &RoutingObjects,
    routes: &mut IngressRoutes,
) -> Result<(), IngressProblem> {
    for tls in &ingress.spec.tls {
        // Permission to write an Ingress must not grant the use of keys in other namespaces.
        if tls.secret_namespace != name.namespace {
            return Err(IngressProblem::ForeignSecret { namespace: tls.secret_namespace.clone(), name: tls.secret_name.clone() });
        }
        let secret = ObjectName::new(&tls.secret_namespace, &tls.secret_name);
        let there = objects.secrets.contains_key(&secret);
        if !there {
            routes.missing.push(format!("TLS Secret {secret}"));
        }
        // An entry belongs to a visibility if a rule of that visibility has all its hosts.
        for visibility in [VISIBILITY_EXTERNAL, VISIBILITY_LOCAL] {
            let belongs = !tls.hosts.is_empty()
                && ingress
                    .spec
                    .rules
                    .iter()
                    .any(|rule| rule.visibility == visibility && tls.hosts.iter().all(|host| rule.hosts.contains(host)));
            if !belongs {
                continue;
            }
            if visibility == VISIBILITY_EXTERNAL {
                routes.redirect_to_https = ingress.spec.http_option == HTTP_REDIRECTED;
            }
            let certificates = if visibility == VISIBILITY_EXTERNAL {
                &mut routes.external_certificates
            } else {
                &mut routes.local_certificates
            };
            for host in tls.hosts.iter().filter(|_| there) {
                check_host(host)?;
                certificates.insert(host.to_ascii_lowercase(), secret.clone());
            }
        }
    }
    Ok(())
}

/// Hosts that an Ingress claims and an older one has.
pub type Conflicts = BTreeMap<ObjectName, BTreeMap<Host, ObjectName>>;

/// Merges all Ingresses into one table. The older Ingress gets a host that two claim; the other one
/// is left out with all its hosts, so that it is never partly served.
#[must_use]
pub fn merge<'a>(all: impl IntoIterator<Item = (&'a ObjectName, &'a IngressRoutes)>) -> (RouteTable, Conflicts) {
    let mut by_age: Vec<_> = all.into_iter().collect();
    by_age.sort_by_key(|(name, routes)| (routes.created_unix_seconds, *name));
    let mut table = RouteTable::default();
    let mut conflicts = Conflicts::new();
    for (name, routes) in by_age {
        let taken: BTreeMap<Host, ObjectName> = routes
            .external
            .keys()
            .chain(routes.local.keys())
            .filter_map(|host| table.internal.get(host).map(|holder| (host.clone(), holder.ingress.clone())))
            .collect();
        if !taken.is_empty() {
            conflicts.insert(name.clone(), taken);
            continue;
        }
        insert_hosts(&mut table, name, routes);
        table.clusters.extend(routes.clusters.iter().map(|(key, cluster)| (key.clone(), cluster.clone())));
    }
    own_hosts::resolve(&mut table);
    (table, conflicts)
}

fn insert_hosts(table: &mut RouteTable, name: &ObjectName, routes: &IngressRoutes) {
    let host_of =
        |routes_of_host: RouteList| VirtualHost { ingress: name.clone(), hash: routes.hash.clone(), routes: routes_of_host };
    for (host, forwarded) in &routes.external {
        let forwarded = &forwarded.routes;
        // No redirect to a host without a certificate.
        let redirects = routes.redirect_to_https && routes.external_certificates.contains_key(host);
        let outside = if redirects { redirected(forwarded).into() } else { forwarded.clone() };
        table.external.insert(host.clone(), host_of(outside));
        table.internal.insert(host.clone(), host_of(forwarded.clone()));
        if !routes.external_certificates.is_empty() {
            table.external_tls.insert(host.clone(), host_of(forwarded.clone()));
        }
    }
    for (host, forwarded) in &routes.local {
        // A host with rules of both visibilities: internally it has the paths of both.
        match table.internal.entry(host.clone()) {
            Entry::Vacant(only) => {
                only.insert(host_of(forwarded.routes.clone()));
            }
            Entry::Occupied(mut both) => {
                let mut routes = [&*both.get().routes, &*forwarded.routes].concat();
                routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
                both.get_mut().routes = routes.into();
            }
        }
        if !routes.local_certificates.is_empty() {
            table.internal_tls.insert(host.clone(), host_of(forwarded.routes.clone()));
        }
    }
    for (from, to) in [
        (&routes.external_certificates, &mut table.external_certificates),
        (&routes.local_certificates, &mut table.internal_certificates),
    ] {
        for (host, secret) in from {
            to.entry(host.clone()).or_insert_with(|| secret.clone());
        }
    }
}

/// The plain HTTP routes of a redirected host: certificate challenges are still forwarded.
fn redirected(forwarded: &[Route]) -> Vec<Route> {
    let challenge = |route: &&Route| route.prefix.starts_with("/.well-known/acme-challenge/");
    let mut routes: Vec<Route> = forwarded.iter().filter(challenge).cloned().collect();
    routes.push(Route { prefix: "/".to_owned(), headers: BTreeMap::new(), action: Action::RedirectToHttps });
    routes
}
