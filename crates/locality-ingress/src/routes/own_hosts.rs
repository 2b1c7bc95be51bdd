//! Backends that are the gateway itself: a DomainMapping refers to the Service of the internal
//! listeners, with another host. Such requests are routed by that host at once instead of passing
//! the gateway twice. The application then sees the client's own address and protocol, and a
//! draining gateway needs no new connection to itself.

use std::collections::{BTreeMap, BTreeSet};

use super::route_table::{ANY_HOST, Action, ClusterKey, ClusterTarget, Host, Route, RouteList, RouteTable, Split, VirtualHost};

/// Replaces routes to the internal listener by the routes of the rewritten host, in all tables. A
/// host without routes is left to the listener, which answers 404. A loop is answered with 503.
pub(crate) fn resolve(table: &mut RouteTable) {
    let own: BTreeSet<&ClusterKey> = table
        .clusters
        .iter()
        .filter(|(_, cluster)| cluster.target == ClusterTarget::OwnInternalListener)
        .map(|(key, _)| key)
        .collect();
    if own.is_empty() {
        return;
    }
    let sides = [&table.external, &table.internal, &table.external_tls, &table.internal_tls];
    let resolved = sides.map(|hosts| changed(hosts, &table.internal, &own));
    let sides = [&mut table.external, &mut table.internal, &mut table.external_tls, &mut table.internal_tls];
    for (hosts, changed) in sides.into_iter().zip(resolved) {
        for (host, routes) in changed {
            if let Some(of_host) = hosts.get_mut(&host) {
                of_host.routes = routes;
            }
        }
    }
}

fn changed(
    hosts: &BTreeMap<Host, VirtualHost>,
    internal: &BTreeMap<Host, VirtualHost>,
    own: &BTreeSet<&ClusterKey>,
) -> Vec<(Host, RouteList)> {
    let leads_here = |route: &Route| rewritten(route, own).is_some();
    let concerned = hosts.iter().filter(|(_, of_host)| of_host.routes.iter().any(leads_here));
    concerned
        .map(|(host, of_host)| (host.clone(), followed(host, &of_host.routes, internal, own, &mut Vec::new()).into()))
        .collect()
}

/// The host to which `route` rewrites requests for the internal listener, and its split.
fn rewritten<'a>(route: &'a Route, own: &BTreeSet<&ClusterKey>) -> Option<(&'a str, &'a Split)> {
    match &route.action {
        Action::Forward { rewrite_host: Some(host), splits } => match splits.as_slice() {
            [only] if own.contains(&only.cluster) => Some((host, only)),
            _ => None,
        },
        _ => None,
    }
}

fn followed(
    host: &str,
    routes: &[Route],
    internal: &BTreeMap<Host, VirtualHost>,
    own: &BTreeSet<&ClusterKey>,
    passed: &mut Vec<Host>,
) -> Vec<Route> {
    passed.push(host.to_owned());
    let mut result = Vec::new();
    for route in routes {
        let next = rewritten(route, own).and_then(|(target, split)| {
            let name = plain(target);
            let found = internal.get(&name).or_else(|| internal.get(ANY_HOST))?;
            Some((name, target, split, found))
        });
        match next {
            None => result.push(route.clone()),
            Some((name, ..)) if passed.contains(&name) => result.push(Route { action: Action::Unavailable, ..route.clone() }),
            Some((name, target, split, found)) => {
                let theirs = followed(&name, &found.routes, internal, own, passed);
                result.extend(theirs.iter().filter_map(|theirs| both(route, target, split, theirs)));
            }
        }
    }
    passed.pop();
    result
}

/// A host as in the tables: without port and final dot.
fn plain(host: &str) -> Host {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The route for requests that match `ours`, are changed by it, and then match `theirs`.
fn both(ours: &Route, target: &str, split: &Split, theirs: &Route) -> Option<Route> {
    let prefix = match (&ours.prefix, &theirs.prefix) {
        (one, other) if one.starts_with(other.as_str()) => one,
        (one, other) if other.starts_with(one.as_str()) => other,
        _ => return None,
    };
    let mut headers = ours.headers.clone();
    for (name, value) in &theirs.headers {
        match split.set_headers.get(name).or_else(|| headers.get(name)) {
            Some(there) if there == value => {}
            Some(_) => return None,
            None => {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    let action = match &theirs.action {
        Action::Forward { rewrite_host, splits } => Action::Forward {
            rewrite_host: Some(rewrite_host.clone().unwrap_or_else(|| target.to_owned())),
            splits: splits
                .iter()
                .map(|theirs| {
                    let mut set_headers = split.set_headers.clone();
                    set_headers.extend(theirs.set_headers.clone());
                    Split { set_headers, ..theirs.clone() }
                })
                .collect(),
        },
        other => other.clone(),
    };
    Some(Route { prefix: prefix.clone(), headers, action })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::ObjectName;
    use crate::routes::route_table::Cluster;

    fn key(name: &str) -> ClusterKey {
        ClusterKey { service: ObjectName::new("ns", name), port: "80".into() }
    }

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn to(prefix: &str, cluster: &str, rewrite_host: Option<&str>, set: &[(&str, &str)]) -> Route {
        let split = Split { cluster: key(cluster), weight: 100, set_headers: headers(set) };
        let action = Action::Forward { rewrite_host: rewrite_host.map(ToOwned::to_owned), splits: vec![split] };
        Route { prefix: prefix.to_owned(), headers: BTreeMap::new(), action }
    }

    fn table(hosts: &[(&str, Vec<Route>)]) -> RouteTable {
        let mut table = RouteTable::default();
        table.clusters.insert(key("self"), Cluster { http2: true, tls: false, target: ClusterTarget::OwnInternalListener });
        for (host, routes) in hosts {
            let of_host = VirtualHost { ingress: ObjectName::new("ns", *host), hash: "h".into(), routes: routes.clone().into() };
            table.internal.insert((*host).to_owned(), of_host.clone());
            table.external_tls.insert((*host).to_owned(), of_host);
        }
        resolve(&mut table);
        table
    }

    #[test]
    fn a_mapped_domain_has_the_routes_of_the_host_that_it_stands_for() {
        let tagged = Route { headers: headers(&[("tag", "blue")]), ..to("/", "blue", None, &[("r", "blue")]) };
        let table = table(&[
            ("vanity", vec![to("/api", "self", Some("Hello.ns:80"), &[("k-original-host", "vanity"), ("r", "x")])]),
            (
                "hello.ns",
                vec![to("/api/v2", "v2", Some("other"), &[]), tagged, to("/", "v1", None, &[]), to("/web", "web", None, &[])],
            ),
        ]);
        let host = headers(&[("k-original-host", "vanity"), ("r", "x")]);
        let routes = &table.external_tls["vanity"].routes;
        let seen: Vec<_> = routes
            .iter()
            .map(|route| {
                let Action::Forward { rewrite_host, splits } = &route.action else { panic!("{route:?}") };
                (route.prefix.as_str(), route.headers.len(), rewrite_host.as_deref(), splits[0].cluster.service.name.as_str())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("/api/v2", 0, Some("other"), "v2"),
                ("/api", 1, Some("Hello.ns:80"), "blue"),
                ("/api", 0, Some("Hello.ns:80"), "v1"),
            ]
        );
        let Action::Forward { splits, .. } = &routes[1].action else { panic!() };
        assert_eq!(splits[0].set_headers["r"], "blue", "what the second would have set wins");
        let Action::Forward { splits, .. } = &routes[2].action else { panic!() };
        assert_eq!(splits[0].set_headers, host);
        assert_eq!(table.internal["vanity"].routes, *routes);
    }

    #[test]
    fn a_header_that_the_first_sets_decides_what_the_second_matches() {
        let tagged = |value: &str| Route { headers: headers(&[("tag", value)]), ..to("/", value, None, &[]) };
        let table = table(&[
            ("vanity", vec![to("/", "self", Some("hello.ns"), &[("tag", "blue")])]),
            ("hello.ns", vec![tagged("green"), tagged("blue")]),
        ]);
        let routes = &table.internal["vanity"].routes;
        assert_eq!(routes.len(), 1);
        assert!(routes[0].headers.is_empty());
    }

    #[test]
    fn chains_are_followed_circles_are_answered_and_what_is_not_there_is_left() {
        let table = table(&[
            ("a", vec![to("/", "self", Some("b"), &[])]),
            ("b", vec![to("/", "self", Some("c"), &[])]),
            ("c", vec![to("/", "v1", None, &[])]),
            ("round", vec![to("/", "self", Some("about"), &[])]),
            ("about", vec![to("/", "self", Some("round"), &[])]),
            ("nowhere", vec![to("/", "self", Some("gone"), &[])]),
        ]);
        let action = |host: &str| table.internal[host].routes[0].action.clone();
        assert!(matches!(action("a"), Action::Forward { splits, .. } if splits[0].cluster == key("v1")));
        assert_eq!(action("round"), Action::Unavailable);
        assert_eq!(action("about"), Action::Unavailable);
        assert!(matches!(action("nowhere"), Action::Forward { splits, .. } if splits[0].cluster == key("self")));
    }
}
