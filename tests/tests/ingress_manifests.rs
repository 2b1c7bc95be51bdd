//! What the manifests of the gateways and of locality-ingress promise each other, read as they are
//! deployed.

use kantai_tests::api_server::documents;
use serde_json::Value;

fn manifest(text: &str, kind: &str) -> Value {
    let documents = documents(text).expect("it is YAML");
    documents.into_iter().find(|document| document["kind"] == kind).expect("it is there")
}

fn gateways() -> Value {
    manifest(include_str!("../../deploy/kantai-gateway/daemonset.yaml"), "DaemonSet")["spec"]["template"]["spec"].clone()
}

fn daemon() -> Value {
    manifest(include_str!("../../deploy/locality-ingress/deployment.yaml"), "Deployment")["spec"]["template"]["spec"].clone()
}

const BOOTSTRAP: &str = include_str!("../../deploy/kantai-gateway/envoy.yaml");

#[test]
fn a_gateway_is_killed_only_after_it_has_drained() {
    let pod = gateways();
    let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
    // Two seconds until the drain begins, and a request of a minute.
    assert!(sleep >= 62, "{sleep}");
    assert!(grace > sleep, "{grace} {sleep}");
}

#[test]
fn nothing_is_put_on_nodes_of_another_operating_system() {
    for pod in [gateways(), daemon()] {
        assert_eq!(pod["nodeSelector"]["kubernetes.io/os"], "linux");
    }
}

#[test]
fn a_gateway_answers_503_before_it_is_killed_for_its_memory() {
    let limit = gateways()["containers"][0]["resources"]["limits"]["memory"].clone();
    let limit: u64 = limit.as_str().and_then(|text| text.strip_suffix("Mi")?.parse().ok()).unwrap_or_default();
    let heap = BOOTSTRAP.lines().find_map(|line| line.trim().strip_prefix("max_heap_size_bytes: ")?.parse::<u64>().ok());
    assert!(heap.is_some_and(|heap| heap < limit * 1024 * 1024 * 9 / 10), "{heap:?} {limit}");
    assert!(daemon()["containers"][0]["resources"]["limits"]["memory"].is_string());
}

#[test]
fn the_administration_of_a_gateway_is_on_no_port() {
    let bootstrap: Value = serde_saphyr::from_str(BOOTSTRAP).expect("it is YAML");
    let path = bootstrap["admin"]["address"]["pipe"]["path"].as_str().expect("a socket");
    let clusters = bootstrap["static_resources"]["clusters"].as_array().expect("clusters");
    let admin = clusters.iter().find(|cluster| cluster["name"] == "admin").expect("the page's own");
    let address = &admin["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    assert_eq!(address["pipe"]["path"], path);
    // Where a volume of the pod is, for the rest cannot be written to.
    let mounts = gateways()["containers"][0]["volumeMounts"].clone();
    let folder = std::path::Path::new(path).parent().and_then(|folder| folder.to_str()).expect("a folder");
    assert!(mounts.as_array().is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == folder)), "{mounts}");
}

#[test]
fn a_gateway_that_hangs_is_found() {
    let pod = gateways();
    let probe = &pod["containers"][0]["livenessProbe"]["httpGet"];
    let path = probe["path"].as_str().expect("a path");
    assert!(BOOTSTRAP.contains(&format!("path: {path}\n")), "the bootstrap answers no {path}");
    let bootstrap: Value = serde_saphyr::from_str(BOOTSTRAP).expect("it is YAML");
    for thread in ["main_thread_watchdog", "worker_watchdog"] {
        assert_eq!(bootstrap["watchdogs"][thread]["kill_timeout"], "60s", "{thread}");
    }
}

#[test]
fn keys_go_to_gateways_only_and_gateways_connect_to_no_address_of_the_link() {
    let policy = manifest(include_str!("../../deploy/locality-ingress/network-policy.yaml"), "NetworkPolicy");
    let xds: Vec<_> = policy["spec"]["ingress"]
        .as_array()
        .expect("rules")
        .iter()
        .filter(|rule| rule["ports"].as_array().is_none_or(|ports| ports.iter().any(|port| port["port"] == 18_000)))
        .collect();
    assert_eq!(xds.len(), 1);
    let from = xds[0]["from"].as_array().expect("somebody");
    assert_eq!(from.len(), 1);
    assert_eq!(from[0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], "kantai-gateway");
    let policy = manifest(include_str!("../../deploy/kantai-gateway/network-policy.yaml"), "NetworkPolicy");
    let text = policy["spec"]["egress"].to_string();
    assert!(text.contains("169.254.0.0/16") && text.contains("fe80::/10"), "{text}");
}

/// The daemons that pods' networks reach: `latency-probe` uses its node's.
const DAEMONS: [(&str, &str, &str); 3] = [
    (
        include_str!("../../deploy/extra-controller/deployment.yaml"),
        include_str!("../../deploy/extra-controller/network-policy.yaml"),
        include_str!("../../deploy/extra-controller/kustomization.yaml"),
    ),
    (
        include_str!("../../deploy/seika-controller/deployment.yaml"),
        include_str!("../../deploy/seika-controller/network-policy.yaml"),
        include_str!("../../deploy/seika-controller/kustomization.yaml"),
    ),
    (
        include_str!("../../deploy/locality-ingress/deployment.yaml"),
        include_str!("../../deploy/locality-ingress/network-policy.yaml"),
        include_str!("../../deploy/locality-ingress/kustomization.yaml"),
    ),
];

#[test]
fn each_port_of_a_daemon_is_reached_only_by_whom_its_policy_names() {
    for (deployment, policy, kustomization) in DAEMONS {
        let (deployment, policy) = (manifest(deployment, "Deployment"), manifest(policy, "NetworkPolicy"));
        let name = &deployment["metadata"]["name"];
        assert!(kustomization.contains("network-policy.yaml"), "{name}");
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        for (label, value) in policy["spec"]["podSelector"]["matchLabels"].as_object().expect("labels") {
            assert_eq!(&labels[label], value, "{name}");
        }
        let rules = policy["spec"]["ingress"].as_array().expect("rules");
        assert!(rules.iter().all(|rule| rule["from"].as_array().is_some_and(|from| !from.is_empty())), "{name}");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        for port in container["ports"].as_array().expect("ports") {
            let is_named = |rule: &Value| {
                rule["ports"].as_array().is_some_and(|ports| ports.iter().any(|named| named["port"] == port["containerPort"]))
            };
            assert_eq!(rules.iter().filter(|rule| is_named(rule)).count(), 1, "{name}: {port}");
        }
    }
}
