//! Hostile and merely odd input: nothing panics, nothing that Envoy would refuse comes out, splits
//! and their sums survive.

use std::collections::BTreeMap;

use k8s_api::kingress::{BackendSplit, HeaderMatch, HttpPath, HttpRule, IngressRule, IngressSpec, IngressStatus, IngressTls};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use locality_ingress::kubernetes::{IngressObject, ObjectName, RoutingObjects, ServiceObject, ServicePort};
use locality_ingress::routes::{Action, TranslateSettings, merge, translate};
use locality_ingress::xds::route_configuration;
use proptest::prelude::*;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just("ns".to_owned()), Just("a".to_owned()), Just(String::new()), "[a-z]{1,8}", ".{0,12}"]
}

fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(word(), word(), 0..3)
}

prop_compose! {
    fn split()(namespace in word(), name in word(), port in prop_oneof![any::<i32>().prop_map(IntOrString::Int), word().prop_map(IntOrString::String)],
               percent in prop_oneof![0_i64..101, any::<i64>()], set in headers()) -> BackendSplit {
        BackendSplit { service_namespace: namespace, service_name: name, service_port: port, percent, append_headers: set }
    }
}

prop_compose! {
    fn path()(path in prop_oneof![Just(String::new()), "/[a-z/]{0,6}", word()], rewrite_host in word(), matches in headers(),
              splits in prop::collection::vec(split(), 0..4), set in headers()) -> HttpPath {
        let headers = matches.into_iter().map(|(name, exact)| (name, HeaderMatch { exact })).collect();
        HttpPath { path, rewrite_host, headers, splits, append_headers: set }
    }
}

prop_compose! {
    fn rule()(hosts in prop::collection::vec(word(), 0..4), visibility in prop_oneof![Just("ExternalIP".to_owned()), Just("ClusterLocal".to_owned()), word()],
              paths in prop::option::of(prop::collection::vec(path(), 0..4))) -> IngressRule {
        IngressRule { hosts, visibility, http: paths.map(|paths| HttpRule { paths }) }
    }
}

prop_compose! {
    fn ingress()(rules in prop::collection::vec(rule(), 0..4), tls in prop::collection::vec((prop::collection::vec(word(), 0..3), word(), word()), 0..2),
                 http_option in word(), created in 0_i64..3) -> IngressObject {
        let tls = tls.into_iter().map(|(hosts, secret_name, secret_namespace)| IngressTls { hosts, secret_name, secret_namespace }).collect();
        let spec = IngressSpec { tls, rules, http_option }.defaulted();
        IngressObject { uid: String::new(), generation: 1, created_unix_seconds: created, spec, status: IngressStatus::default() }
    }
}

fn settings() -> TranslateSettings {
    TranslateSettings {
        internal_gateway: "i.example".into(),
        internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_envoy_would_take_it(ingresses in prop::collection::vec(ingress(), 1..4)) {
        let objects = RoutingObjects::default();
        let translated: BTreeMap<_, _> = ingresses
            .iter()
            .enumerate()
            .filter_map(|(i, one)| {
                let name = ObjectName::new("ns", format!("i{i}"));
                translate(&name, one, &objects, &settings()).ok().map(|routes| (name, routes))
            })
            .collect();
        let (table, conflicts) = merge(&translated);
        for (host, virtual_host) in table.internal.iter().chain(&table.external) {
            prop_assert!(!conflicts.contains_key(&virtual_host.ingress));
            prop_assert!(host == "*" || host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*'));
            for route in &virtual_host.routes {
                prop_assert!(route.prefix.starts_with('/'));
                if let Action::Forward { splits, .. } = &route.action {
                    // Envoy refuses a sum of weights of 0 and above 2^32.
                    prop_assert!(!splits.is_empty() && splits.iter().all(|split| (1..=100).contains(&split.weight)));
                    prop_assert!(splits.iter().all(|split| table.clusters.contains_key(&split.cluster)));
                }
            }
        }
        // What is outside is inside, too.
        prop_assert!(table.external.keys().all(|host| table.internal.contains_key(host)));
        let _ = route_configuration("internal", &table.internal, &Default::default());
    }

    #[test]
    fn splits_keep_their_proportions(percents in prop::collection::vec(0_i64..101, 1..6)) {
        let split = |(i, &percent): (usize, &i64)| BackendSplit {
            service_namespace: "ns".into(),
            service_name: format!("s{i}"),
            service_port: IntOrString::Int(80),
            percent,
            append_headers: BTreeMap::new(),
        };
        let path = HttpPath { splits: percents.iter().enumerate().map(split).collect(), ..HttpPath::default() };
        let rule = IngressRule { hosts: vec!["h".into()], http: Some(HttpRule { paths: vec![path] }), ..IngressRule::default() };
        let spec = IngressSpec { rules: vec![rule], ..IngressSpec::default() }.defaulted();
        let one = IngressObject { uid: String::new(), generation: 1, created_unix_seconds: 0, spec, status: IngressStatus::default() };
        let port = ServicePort { name: "http".into(), number: 80, http2: false };
        let service = ServiceObject { ports: vec![port], external_name: None, pods_of: None, of_revision: false };
        let services = (0..percents.len()).map(|i| (ObjectName::new("ns", format!("s{i}")), service.clone())).collect();
        let objects = RoutingObjects { services, ..RoutingObjects::default() };
        let routes = translate(&ObjectName::new("ns", "i"), &one, &objects, &settings()).unwrap();
        let wanted: Vec<_> = match percents.as_slice() {
            [0] => vec![100],
            several => several.iter().filter(|&&percent| percent > 0).map(|&percent| u32::try_from(percent).unwrap()).collect(),
        };
        for route in &routes.external["h"].routes {
            match &route.action {
                Action::Forward { splits, .. } => prop_assert_eq!(splits.iter().map(|split| split.weight).collect::<Vec<_>>(), wanted.clone()),
                _ => prop_assert!(wanted.is_empty()),
            }
        }
    }
}
