//! Golden files: Knative's conformance cases and a few of our own, as route tables and as Envoy
//! resources.

#![allow(clippy::unwrap_used)] // A test may.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use k8s_api::kingress::KIngress;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt as _;
use locality_ingress::endpoints::{LocalityPolicy, assign};
use locality_ingress::kubernetes::{Endpoint, ObjectName, RoutingObjects, convert};
use locality_ingress::routes::{Conflicts, IngressRoutes, RouteTable, TranslateSettings, merge, translate};
use locality_ingress::xds::{ListenerSettings, cluster, listeners, load_assignment, route_configuration};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Case {
    ingresses: Vec<KIngress>,
    services: Vec<Service>,
    #[serde(default)]
    secrets: Vec<Secret>,
}

/// What a case becomes.
#[derive(Serialize)]
struct Outcome {
    table: RouteTable,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    conflicts: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missing: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<String, String>,
}

fn name_of(object: &impl kube::Resource) -> ObjectName {
    ObjectName::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn outcome(case: Case) -> Outcome {
    let mut objects = RoutingObjects::default();
    for service in case.services {
        objects.services.insert(name_of(&service), convert::service(service));
    }
    for secret in case.secrets {
        let name = name_of(&secret);
        objects.secrets.extend(convert::secret(secret).map(|secret| (name, secret)));
    }
    let settings = TranslateSettings {
        internal_gateway: "kantai-gateway-internal.kantai-system.svc.cluster.local".into(),
        internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
    };
    let mut translated: BTreeMap<ObjectName, IngressRoutes> = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for ingress in case.ingresses {
        let name = name_of(&ingress);
        match translate(&name, &convert::ingress(ingress), &objects, &settings) {
            Ok(routes) => {
                translated.insert(name, routes);
            }
            Err(problem) => {
                refused.insert(name.to_string(), problem.to_string());
            }
        }
    }
    let (table, conflicts): (RouteTable, Conflicts) = merge(&translated);
    let missing = translated.iter().filter(|(_, routes)| !routes.missing.is_empty());
    Outcome {
        table,
        conflicts: conflicts.into_iter().map(|(name, hosts)| (name.to_string(), hosts.into_keys().collect())).collect(),
        missing: missing.map(|(name, routes)| (name.to_string(), routes.missing.clone())).collect(),
        refused,
    }
}

fn read(path: &Path) -> Case {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn case_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{name}.yaml"))
}

#[test]
fn objects_to_route_tables() {
    let mut paths: Vec<_> =
        std::fs::read_dir(case_file("x").parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 9);
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_yaml_snapshot!(name, outcome(read(&path)));
    }
}

/// A message without what is at its default, and without the noise of its debug form.
fn text(message: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    let boring = [": None,", ": \"\",", ": [],", ": {},", ": 0,", ": false,", "append: None"];
    for line in format!("{message:#?}").lines().filter(|line| !boring.iter().any(|end| line.ends_with(end))) {
        // The bytes of a packed message say nothing to a reader.
        if line.trim().trim_end_matches(',').parse::<u8>().is_err() {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

#[test]
fn route_tables_to_envoy() {
    let table = outcome(read(&case_file("headers_before_and_after_split"))).table;
    insta::assert_snapshot!(
        "envoy_routes_of_a_split",
        text(&route_configuration("external", &table.external, &Default::default()))
    );
    let table = outcome(read(&case_file("tls_and_redirect"))).table;
    insta::assert_snapshot!(
        "envoy_routes_of_a_redirect",
        text(&route_configuration("external", &table.external, &Default::default()))
    );
    let listeners = listeners(&table, ListenerSettings::default(), [0, 0, 0, 0].into());
    insta::assert_snapshot!("envoy_listeners_with_tls", text(&listeners));
    let table = outcome(read(&case_file("external_names_and_rewrites"))).table;
    let clusters: Vec<_> = table.clusters.iter().map(|(key, one)| cluster(key, one, LocalityPolicy::Locality)).collect();
    insta::assert_snapshot!("envoy_clusters_of_names", text(&clusters));
    let table = outcome(read(&case_file("http2_by_port_name_or_protocol"))).table;
    let clusters: Vec<_> = table.clusters.iter().map(|(key, one)| cluster(key, one, LocalityPolicy::Spread)).collect();
    insta::assert_snapshot!("envoy_clusters_that_spread", text(&clusters));
}

#[test]
fn assignments_to_envoy() {
    let on = |node: &str, last: u8| Endpoint {
        address: [10, 0, 0, last].into(),
        port: 8012,
        node: Some(node.into()),
        stand_in: false,
    };
    let row = [("node1".to_owned(), 62), ("node2".to_owned(), 38)].into();
    let zones = [("node1".to_owned(), "zone-a".to_owned())].into();
    let endpoints = [on("node1", 1), on("node1", 2), on("node2", 3), on("node3", 4)];
    let assignment = assign(LocalityPolicy::Locality, "node1", &zones, &endpoints, Some(&row));
    insta::assert_snapshot!("envoy_assignment", text(&load_assignment("ns/a/80", &assignment, &zones, false)));
}
