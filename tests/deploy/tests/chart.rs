//! The chart, rendered by Helm, against the manifests, rendered by kustomize.

use std::collections::BTreeSet;

use deploy_checks::objects::{Objects, differences, read};
use deploy_checks::tools::Tools;
use serde_json::Value;

const NAMESPACE: &str = "kantai-system";

fn chart(namespace: &str, settings: &[&str]) -> anyhow::Result<Objects> {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = ["template", "kantai", ".", "--namespace", namespace].into_iter().chain(set).collect();
    read(&Tools::get()?.helm(&arguments)?)
}

/// The manifests. Kustomize names a ConfigMap by its content, Helm marks the pods that use it: that
/// name is made Helm's.
fn manifests(folder: &str) -> anyhow::Result<Objects> {
    let text = Tools::get()?.kustomize(folder)?;
    let named = text.lines().find_map(|line| {
        let suffix = line.trim().strip_prefix("name: kantai-gateway-")?;
        (suffix.len() == 10).then(|| format!("kantai-gateway-{suffix}"))
    });
    read(&named.map_or(text.clone(), |named| text.replace(&named, "kantai-gateway")))
}

fn told<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.map(str::to_owned).into()
}

#[test]
fn helm_finds_nothing_wrong() -> anyhow::Result<()> {
    Tools::get()?.helm(&["lint", "--strict", "."]).map(drop)
}

#[test]
fn by_default_the_chart_makes_what_the_manifests_make() -> anyhow::Result<()> {
    let (from_kustomize, from_helm) = (manifests("deploy")?, chart(NAMESPACE, &["handBack.enabled=false"])?);
    assert!(from_kustomize.len() > 40, "{:?}", from_kustomize.keys());
    let expected = told([
        // Helm has --create-namespace.
        "- Namespace kantai-system",
        // It stays after an uninstall.
        "+ CustomResourceDefinition seikas.batch.bonavadeur.io metadata annotations",
        // A changed bootstrap has pods replaced.
        "+ DaemonSet kantai-system/kantai-gateway spec template metadata annotations",
    ]);
    assert_eq!(differences(&from_kustomize, &from_helm), expected);
    let definition = &from_helm["CustomResourceDefinition seikas.batch.bonavadeur.io"];
    assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    Ok(())
}

#[test]
fn what_comes_before_an_uninstall_is_what_the_manifests_do() -> anyhow::Result<()> {
    let without = chart(NAMESPACE, &["handBack.enabled=false"])?;
    let mut hooks = chart(NAMESPACE, &[])?;
    hooks.retain(|name, _| !without.contains_key(name));
    assert!(hooks.values().all(|hook| hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"), "{hooks:?}");
    // The Job comes last, when its rights are there.
    let weight =
        |hook: &Value| hook["metadata"]["annotations"]["helm.sh/hook-weight"].as_str().map_or(0, |it| it.parse().unwrap_or(0));
    assert!(hooks.values().all(|hook| (weight(hook) < 0) == (hook["kind"] != "Job")), "{hooks:?}");
    for hook in hooks.values_mut() {
        hook["metadata"].as_object_mut().map(|metadata| metadata.remove("annotations"));
    }
    assert_eq!(differences(&manifests("deploy/hand-back")?, &hooks), BTreeSet::new());
    Ok(())
}

#[test]
fn what_scores_nodes_for_kube_scheduler_is_made_where_it_is_asked_for() -> anyhow::Result<()> {
    let without = chart(NAMESPACE, &[])?;
    let mut asked = chart(NAMESPACE, &["schedulerExtender.enabled=true"])?;
    asked.retain(|name, _| !without.contains_key(name));
    assert_eq!(differences(&manifests("deploy/scheduler-extender")?, &asked), BTreeSet::new());
    let filter = chart(NAMESPACE, &["schedulerExtender.enabled=true", "schedulerExtender.filter=true"])?;
    assert!(filter["Deployment kantai-system/scheduler-extender"].to_string().contains("KANTAI_FILTER"));
    let monitored = chart(NAMESPACE, &["schedulerExtender.enabled=true", "monitoring.podMonitors=true"])?;
    assert!(monitored.contains_key("PodMonitor kantai-system/scheduler-extender"));
    Ok(())
}

#[test]
fn plain_text_is_what_the_component_makes() -> anyhow::Result<()> {
    let secure = chart(NAMESPACE, &[])?;
    let plain = chart(NAMESPACE, &["certificates.source=plain-text"])?;
    let found = differences(&secure, &plain);
    let bootstrap = "ConfigMap kantai-system/kantai-gateway data";
    let gateway = "DaemonSet kantai-system/kantai-gateway spec template";
    let named: BTreeSet<String> = found
        .iter()
        .map(|line| line.split(": ").next().unwrap_or_default().trim_start_matches(['!', '+', '-', ' ']).to_owned())
        .collect();
    let expected = [
        format!("{bootstrap} authority.yaml"),
        format!("{bootstrap} envoy.yaml"),
        format!("{bootstrap} gateway-certificate.yaml"),
        format!("{gateway} metadata annotations checksum/bootstrap"),
        format!("{gateway} spec volumes 1 secret optional"),
        "Deployment kantai-system/locality-ingress spec template spec containers 0 env".to_owned(),
    ];
    assert_eq!(named, expected.into());
    let text = plain["ConfigMap kantai-system/kantai-gateway"]["data"]["envoy.yaml"].as_str().unwrap_or_default();
    assert!(text.contains("locality-ingress.kantai-system.svc") && !text.contains("transport_socket"), "{text}");
    Ok(())
}

#[test]
fn certificates_of_cert_manager_are_those_of_the_manifests() -> anyhow::Result<()> {
    let own = chart(NAMESPACE, &[])?;
    let mut made = chart(NAMESPACE, &["certificates.source=cert-manager"])?;
    let ingress = made["Deployment kantai-system/locality-ingress"].to_string();
    for needed in ["KANTAI_XDS_CERTIFICATE_FILE", "KANTAI_XDS_KEY_FILE", "KANTAI_XDS_CLIENT_CA_FILE", "locality-ingress-xds"] {
        assert!(ingress.contains(needed), "{ingress}");
    }
    made.retain(|name, _| !own.contains_key(name));
    let path = repository_checks::tree::root().join("deploy/own-xds-certificates/cert-manager.yaml");
    let mut manifests = read(&std::fs::read_to_string(path)?)?;
    for object in manifests.values_mut().chain(made.values_mut()) {
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("labels"));
    }
    assert_eq!((manifests.len(), differences(&manifests, &made)), (5, BTreeSet::new()));
    Ok(())
}

#[test]
fn another_namespace_is_meant_everywhere() -> anyhow::Result<()> {
    for source in ["own", "cert-manager", "plain-text"] {
        let certificates = format!("certificates.source={source}");
        let settings =
            [&certificates, "knative.namespace=knative", "monitoring.podMonitors=true", "schedulerExtender.enabled=true"];
        let objects = chart("elsewhere", &settings)?;
        let is_left = |text: &str| text.contains("kantai-system") || text.contains("knative-serving");
        let left = objects.iter().filter(|(_, object)| is_left(&object.to_string()));
        assert_eq!(left.map(|(name, _)| name).collect::<Vec<_>>(), Vec::<&String>::new(), "{source}");
    }
    Ok(())
}

#[test]
fn labels_of_ones_own_are_on_every_object_and_pod() -> anyhow::Result<()> {
    let settings = [
        "extraLabels.team=blue",
        "monitoring.podMonitors=true",
        "monitoring.rules=true",
        "certificates.source=cert-manager",
        "schedulerExtender.enabled=true",
    ];
    let objects = chart(NAMESPACE, &settings)?;
    let is_without = |object: &Value| object["metadata"]["labels"]["team"] != "blue";
    let without: Vec<_> = objects
        .iter()
        // Its file is the manifests' own.
        .filter(|(name, _)| !name.starts_with("CustomResourceDefinition"))
        .filter(|(_, object)| {
            is_without(object) || (object["spec"]["template"].is_object() && is_without(&object["spec"]["template"]))
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(without, Vec::<&String>::new());
    // Selectors cannot change.
    assert!(objects.values().all(|object| object["spec"]["selector"]["matchLabels"]["team"].is_null()));
    Ok(())
}

#[test]
fn monitoring_is_for_all_five_parts_and_has_the_alert_rules() -> anyhow::Result<()> {
    let without = chart(NAMESPACE, &[])?;
    let mut objects =
        chart(NAMESPACE, &["monitoring.podMonitors=true", "monitoring.rules=true", "monitoring.labels.release=mine"])?;
    for part in ["latency-probe", "seika-controller", "extra-controller", "locality-ingress", "kantai-gateway"] {
        let monitor = &objects[&format!("PodMonitor {NAMESPACE}/{part}")];
        let port = monitor["spec"]["podMetricsEndpoints"][0]["port"].as_str().unwrap_or_default();
        let workload = ["DaemonSet", "Deployment"].iter().find_map(|kind| objects.get(&format!("{kind} {NAMESPACE}/{part}")));
        let ports = &workload.map(|it| it["spec"]["template"]["spec"]["containers"][0]["ports"].clone()).unwrap_or_default();
        assert!(ports.as_array().is_some_and(|ports| ports.iter().any(|it| it["name"] == port)), "{part}: {port} of {ports}");
    }
    objects.retain(|name, _| !without.contains_key(name) && !name.starts_with("PodMonitor"));
    let plain = read(&repository_checks::tree::read(std::path::Path::new("deploy/alerts/prometheus-rule.yaml")))?;
    assert_eq!(differences(&plain, &objects), told(["+ PrometheusRule kantai-system/kantai metadata labels release"]));
    Ok(())
}

#[test]
fn values_that_make_no_sense_are_refused() -> anyhow::Result<()> {
    for setting in [
        "certificates.source=none",
        "gateway.treads=3",
        "seikaController.replicas=-1",
        // The chart sets it: twice would be an error when it is applied.
        "localityIngress.env.KANTAI_POLICY=spread",
    ] {
        let refused = chart(NAMESPACE, &[setting]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused.contains("schema"), "{setting}: {refused}");
    }
    Ok(())
}
