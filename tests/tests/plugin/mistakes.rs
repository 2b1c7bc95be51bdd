//! Ten mistakes that operators make, each on a cluster where all else is well: `check --pre` names
//! it, says what to do about it, and finds nothing once it is mended.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, documents};
use kantai_tests::eventually;
use kantai_tests::knative::stage::{Born, set_ready};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::stage::{Process, World, in_own_network, prober_binary};

const REVISION: &str = "hello-00001";
const PROMETHEUS: &str = "http://prometheus.monitoring.svc:9090";
const OURS: &str = "kantai.ingress.networking.knative.dev";
const CHECK: [&str; 5] = ["check", "--pre", "--behind-after=1s", "-o", "json"];

#[test]
fn each_of_ten_mistakes_is_named_with_its_remedy() -> anyhow::Result<()> {
    let prober = prober_binary()?;
    in_own_network(async |components| {
        let world = World::start(&components).await?;
        let client = world.stage.client();
        knative(&client, "1.15.2").await?;
        network(&client, &json!({"ingress-class": OURS})).await?;
        for node in &world.stage.nodes {
            renew(&client, node, 0).await?;
        }
        let (_first, second) = (world.prober("node01")?, world.prober("node02")?);
        let _prometheus = world.prometheus().await?;
        told_of(&client, PROMETHEUS).await?;
        world.decider().await?;
        let xds = world.ingress().await?;
        let (_gateway, stuck) = (world.gateway("node01", xds)?, world.gateway("node02", xds)?);
        leads(&client, "seika-controller").await?;
        world.stage.add_revision(REVISION, Born::default()).await?;
        ingress(&client, "hello", OURS).await?;
        well(&world).await?;
        let (said, code) = world.asks(&["check", "--pre", "--wait", "--timeout=30s"]).await?;
        ensure!(code == ExitCode::SUCCESS && said.contains(" 0 failed, 0 unknown"), "{said}");
        nobody(&world).await?;

        wrong_classes(&world).await?;
        old_knative(&world).await?;
        skewed_clock(&world).await?;
        cut_rights(&world).await?;
        wrong_prometheus(&world).await?;
        node_without_gateway(&world).await?;

        // A gateway that hangs does not take the next change.
        stuck.pause()?;
        ingress(&client, "other", OURS).await?;
        named(&world, "configuration of gateways", "node02").await?;
        drop(stuck);
        let _gateway_again = world.gateway("node02", xds)?;
        well(&world).await?;

        // A prober as it is deployed, without capabilities, where the node grants its group no
        // ping sockets: so are new network namespaces.
        second.end().await?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
        command.arg(&prober).args(&world.prober_arguments("node02")?[1..]);
        let plain = Process::start(command, &world.stage.folder().join("latency-probe.log"))?;
        named(&world, "ICMP probes", "node02").await?;
        drop(plain);
        let _again = world.prober("node02")?;
        well(&world).await?;

        // Last, since what it had is gone with it.
        let definitions: Api<kube::api::DynamicObject> = Api::all_with(
            client.clone(),
            &kube::discovery::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
                "apiextensions.k8s.io",
                "v1",
                "CustomResourceDefinition",
            )),
        );
        definitions.delete("serverlessservices.networking.internal.knative.dev", &DeleteParams::default()).await?;
        named(&world, "definitions", "serverlessservices.networking.internal.knative.dev").await
    })
}

/// Who may read nothing learns nothing: neither that all is well, nor that it is not.
async fn nobody(world: &World) -> anyhow::Result<()> {
    let (said, code) = world.asks(&[&CHECK[..], &["--as", "nobody"]].concat()).await?;
    let report: Value = serde_json::from_str(&said)?;
    let outcomes = report["findings"].as_array().into_iter().flatten().map(|finding| &finding["outcome"]);
    let (version, others): (Vec<_>, Vec<_>) = outcomes.enumerate().partition(|(number, _)| *number == 0);
    ensure!(
        version.iter().all(|(_, outcome)| *outcome == "ok") && others.iter().all(|(_, outcome)| *outcome == "unknown"),
        "{said}"
    );
    ensure!(
        code == ExitCode::SUCCESS && world.asks(&["check", "--strict", "--as", "nobody"]).await?.1 == ExitCode::FAILURE,
        "{said}"
    );
    Ok(())
}

async fn wrong_classes(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    autoscaler(&client, &json!({"pod-autoscaler-class": "miporin.autoscaling.knative.dev"})).await?;
    named(world, "autoscaler class", "miporin.autoscaling.knative.dev").await?;
    ensure!(world.asks(&CHECK).await?.1 == ExitCode::FAILURE, "what fails is in the exit code");
    autoscaler(&client, &json!({})).await?;
    well(world).await?;

    let kourier = "kourier.ingress.networking.knative.dev";
    network(&client, &json!({"ingress-class": OURS, "ingress.class": kourier})).await?;
    named(world, "ingress class", kourier).await?;
    network(&client, &json!({"ingress-class": OURS})).await?;
    well(world).await?;

    // The same by one service: pods by Kantai, requests by gateways that tell no demand.
    ingress(&client, "hello", kourier).await?;
    named(world, "ingress class", "default/hello").await?;
    ingress(&client, "hello", OURS).await?;
    well(world).await
}

async fn old_knative(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    knative(&client, "1.14.0").await?;
    named(world, "Knative version", "1.14.0").await?;
    knative(&client, "1.15.2").await?;
    well(world).await
}

async fn skewed_clock(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    renew(&client, "node02", 90).await?;
    named(world, "clocks", "node02").await?;
    renew(&client, "node02", 0).await?;
    well(world).await
}

async fn cut_rights(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    let whole = documents(include_str!("../../../deploy/extra-controller/rbac.yaml"))?;
    let mut cut = whole[0].clone();
    let rules = cut["rules"].as_array_mut().context("no rules")?;
    rules.retain(|rule| rule["resources"] != json!(["podautoscalers/status"]));
    ensure!(rules.len() + 1 == whole[0]["rules"].as_array().map_or(0, Vec::len), "the manifest has no such rule any more");
    apply(&client, &cut).await?;
    named(world, "rights", "extra-controller may not patch podautoscalers/status").await?;
    apply(&client, &whole[0]).await?;
    well(world).await
}

async fn wrong_prometheus(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    for wrong in ["http://prometheus.observability.svc:9090", "http://prometheus.monitoring.svc:9091"] {
        told_of(&client, wrong).await?;
        named(world, "Prometheus", wrong).await?;
    }
    // It answers, but its query finds nothing.
    told_of(&client, PROMETHEUS).await?;
    well(world).await
}

async fn node_without_gateway(world: &World) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.stage.client(), SYSTEM_NAMESPACE);
    let pod = pods.get("kantai-gateway-node02").await?;
    pods.delete("kantai-gateway-node02", &DeleteParams::default().grace_period(0)).await?;
    named(world, "gateways", "node02").await?;
    let at = pod.status.and_then(|status| status.pod_ip).context("it had an address")?;
    world.stage.daemon_pod("kantai-gateway", "node02", at.parse()?).await?;
    well(world).await
}

/// What `check --pre` finds: of each check its outcome, what it says, and the remedy.
async fn findings(world: &World) -> anyhow::Result<Vec<Value>> {
    let report: Value = serde_json::from_str(&world.says(&CHECK).await?)?;
    Ok(report["findings"].as_array().context("no findings")?.clone())
}

/// Waits until this check, and no other, finds something, which names the culprit.
async fn named(world: &World, check: &str, culprit: &str) -> anyhow::Result<()> {
    eventually(&format!("{check} names {culprit}"), async || {
        let bad: Vec<Value> = findings(world).await?.into_iter().filter(|finding| finding["outcome"] != "ok").collect();
        let is_named = |finding: &Value| {
            finding["check"] == check
                && finding["outcome"] != "unknown"
                && finding["says"].as_str().is_some_and(|says| says.contains(culprit))
                && finding["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty())
        };
        let is_right = bad.iter().any(is_named) && bad.iter().all(|finding| finding["check"] == check || is_starting(finding));
        Ok(if is_right { Ok(()) } else { Err(json!(bad).to_string()) })
    })
    .await
}

/// Waits until nothing is found.
async fn well(world: &World) -> anyhow::Result<()> {
    eventually("all is well", async || {
        let bad: Vec<Value> = findings(world).await?.into_iter().filter(|finding| finding["outcome"] != "ok").collect();
        Ok(if bad.iter().all(is_starting) { Ok(()) } else { Err(json!(bad).to_string()) })
    })
    .await
}

/// No kubelet runs the pods of our own workloads, so they are never all ready.
fn is_starting(finding: &Value) -> bool {
    finding["check"] == "daemons" && finding["outcome"] == "warn"
}

/// Knative's controller, as its release labels it.
async fn knative(client: &Client, version: &str) -> anyhow::Result<()> {
    let labels = json!({"app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/version": version});
    apply(
        client,
        &json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "knative-serving", "name": "controller", "labels": labels},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "controller"}}, "template": {
                "metadata": {"labels": {"app": "controller"}},
                "spec": {"containers": [{"name": "controller", "image": "registry.example/controller"}]}}},
        }),
    )
    .await
}

async fn autoscaler(client: &Client, data: &Value) -> anyhow::Result<()> {
    let mut data = data.clone();
    data["scale-to-zero-grace-period"] = json!("6s");
    config(client, "config-autoscaler", &data).await
}

async fn network(client: &Client, data: &Value) -> anyhow::Result<()> {
    config(client, "config-network", data).await
}

async fn config(client: &Client, name: &str, data: &Value) -> anyhow::Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "knative-serving"}, "data": data});
    apply(client, &map).await
}

/// The Ingress that Knative makes for the service, of this class.
async fn ingress(client: &Client, name: &str, class: &str) -> anyhow::Result<()> {
    let splits = json!([{"serviceNamespace": "default", "serviceName": REVISION, "servicePort": 80, "percent": 100}]);
    apply(
        client,
        &json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {"namespace": "default", "name": name, "annotations": {"networking.knative.dev/ingress.class": class}},
            "spec": {"httpOption": "Enabled", "rules": [{"hosts": [format!("{name}.default.example.com")], "visibility": "ExternalIP",
                "http": {"paths": [{"splits": splits}]}}]},
        }),
    )
    .await
}

/// As an operator would tell extra-controller of a Prometheus.
async fn told_of(client: &Client, url: &str) -> anyhow::Result<()> {
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "extra-controller", "env": [{"name": "KANTAI_PROMETHEUS_URL", "value": url}]}]}}}});
    deployments.patch("extra-controller", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Renews a node's Lease as its kubelet does, with a clock that is so many seconds ahead.
async fn renew(client: &Client, node: &str, ahead_seconds: i64) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let clock = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead_seconds);
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{clock:.6}")});
    match leases.get_opt(node).await? {
        Some(mut lease) => {
            lease.spec = Some(serde_json::from_value(spec)?);
            leases.replace(node, &PostParams::default(), &lease).await?;
        }
        None => {
            let lease = serde_json::from_value(json!({"metadata": {"name": node}, "spec": spec}))?;
            leases.create(&PostParams::default(), &lease).await?;
        }
    }
    Ok(())
}

/// A Lease that is held, of a daemon whose work the test's own process does.
async fn leads(client: &Client, daemon: &str) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let spec = json!({"holderIdentity": format!("{daemon}-0"), "leaseDurationSeconds": 8});
    let lease = serde_json::from_value(json!({"metadata": {"name": daemon}, "spec": spec}))?;
    leases.create(&PostParams::default(), &lease).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let unready = pods.list(&Default::default()).await?.items.into_iter().map(|pod| pod.name_any());
    let first = unready.into_iter().find(|name| name.starts_with(daemon)).context("no pod")?;
    set_ready(&pods, &first, true, None).await
}
