//! What `matrix`, `top`, `hand-back` and `bundle` tell of a cluster with real daemons.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_api::{CLASS, PodAutoscaler};
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply};
use kantai_tests::eventually;
use kantai_tests::knative::stage::{Born, address};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{World, in_own_network};

const REVISION: &str = "hello-00001";
const HOST: &str = "hello.default.example.com";
/// What must not get out.
const SECRET: &str = "hush-4d1f";
/// The same as Secrets hold it.
const SECRET_IN_BASE64: &str = "aHVzaC00ZDFm";

#[test]
fn distances_demand_and_bundles_are_told_and_revisions_handed_back() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let world = World::start(&components).await?;
        let _probers = (world.prober("node01")?, world.prober("node02")?);
        world.decider().await?;
        let xds = world.ingress().await?;
        let _gateways = (world.gateway("node01", xds)?, world.gateway("node02", xds)?);
        world.stage.add_revision(REVISION, Born::default()).await?;
        matrix(&world).await?;
        top(&world).await?;
        dry_run(&world).await?;
        bundle(&world).await?;
        hand_back(&world).await
    })
}

async fn matrix(world: &World) -> anyhow::Result<()> {
    let measured = |text: &str| text.contains("2 of 2 pairs measured");
    let picture = world.until("both pairs are measured", &["matrix"], measured).await?;
    ensure!(picture.contains("1 node01") && picture.contains("2 node02") && !picture.contains('\u{1b}'), "{picture}");
    let csv = world.says(&["matrix", "-o", "csv"]).await?;
    let from: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(",known,").next()).collect();
    ensure!(from == ["node01,node02", "node02,node01"], "{csv}");
    let page = world.says(&["matrix", "-o", "html", "--stat", "p99"]).await?;
    ensure!(page.starts_with("<!DOCTYPE html>") && page.contains("node02"), "{page}");
    let json: Value = serde_json::from_str(&world.says(&["matrix", "-o", "json"]).await?)?;
    ensure!(json["rows"][0]["from"] == "node01" && json["unread"] == json!({}), "{json}");
    Ok(())
}

async fn top(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    backend(&client).await?;
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let url = format!("http://{}:8080/", address(1, 1));
    eventually("a request is answered", async || {
        let answer = http.get(&url).header("host", HOST).send().await;
        Ok(match answer {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    let asking = tokio::spawn(async move {
        loop {
            let _ = http.get(&url).header("host", HOST).send().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let is_there = |text: &str| {
        let Ok(shown) = serde_json::from_str::<Value>(text) else { return false };
        let ways = shown["rates"].as_array().into_iter().flatten();
        ways.filter(|way| way["revision"] == REVISION && way["source"] == "node01").any(|way| {
            way["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0) && way["mean_seconds"].as_f64().is_some()
        })
    };
    world.until("requests are counted", &["top", "--interval", "1s", "-o", "json"], is_there).await?;
    let table = world.says(&["top", "--once", "--interval", "1s"]).await?;
    ensure!(table.contains("ENTER AT") && table.contains(REVISION), "{table}");
    let words = world.says(&["explain", "--host", HOST, "--node", "node01"]).await?;
    ensure!(words.contains("belongs to Ingress") && words.contains("node01"), "{words}");
    asking.abort();
    Ok(())
}

/// The only pod is on the first node; were that drained, it would be on the other.
async fn dry_run(world: &World) -> anyhow::Result<()> {
    let drained = ["dry-run", "drain", "node01", "-o", "json"];
    let moves = |text: &str| {
        let Ok(shown) = serde_json::from_str::<Value>(text) else { return false };
        shown[0]["revision"] == REVISION
            && shown[0]["before"] == json!({"node01": 1})
            && shown[0]["after"] == json!({"node02": 1})
    };
    world.until("a drain moves the pod", &drained, moves).await?;
    let table = world.says(&["dry-run", "link", "node01", "node02", "80ms"]).await?;
    ensure!(table.contains("Nothing was changed") && table.contains(REVISION), "{table}");
    let odd = world.asks(&["dry-run", "drain", "node99"]).await.err().context("it drains what is not there")?;
    ensure!(odd.to_string().contains("node99"), "{odd}");
    Ok(())
}

/// The revision's Service, whose one endpoint answers, and the Ingress that leads to it.
async fn backend(client: &Client) -> anyhow::Result<()> {
    let at = address(2, 11);
    apply(
        client,
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": REVISION},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8012}]}}),
    )
    .await?;
    apply(
        client,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "default", "name": format!("{REVISION}-1"), "labels": {"kubernetes.io/service-name": REVISION}},
            "endpoints": [{"addresses": [at], "nodeName": "node02", "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 8012}],
        }),
    )
    .await?;
    let splits = json!([{"serviceNamespace": "default", "serviceName": REVISION, "servicePort": 80, "percent": 100}]);
    let ingress = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": {"namespace": "default", "name": "hello",
            "annotations": {"networking.knative.dev/ingress.class": "kantai.ingress.networking.knative.dev"}},
        "spec": {"httpOption": "Enabled", "rules": [{"hosts": [HOST], "visibility": "ExternalIP", "http": {"paths": [{"splits": splits}]}}]},
    });
    apply(client, &ingress).await?;
    let listener = tokio::net::TcpListener::bind((at, 8012)).await?;
    let router = axum::Router::new().fallback(async || "here");
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(())
}

async fn bundle(world: &World) -> anyhow::Result<()> {
    let client = world.stage.client();
    let meta = json!({"namespace": SYSTEM_NAMESPACE, "name": "database"});
    apply(&client, &json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": SECRET}})).await?;
    apply(&client, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"password": SECRET}})).await?;
    // As people put passwords where they do not belong.
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let patch = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{\"password\":\"{SECRET}\"}}")}},
        "spec": {"template": {"spec": {"containers": [{"name": "extra-controller", "env": [{"name": "PASSWORD", "value": SECRET},
            {"name": "KANTAI_PROMETHEUS_URL", "value": format!("http://user:{SECRET}@prometheus.monitoring:9090")}]}]}}},
    });
    deployments.patch("extra-controller", &PatchParams::default(), &Patch::Strategic(patch)).await?;

    let file = world.stage.folder().join("bundle.tar.gz");
    let said = world.says(&["bundle", "--file", &file.to_string_lossy()]).await?;
    ensure!(said.contains("No Secret is in it"), "{said}");
    let files = unpacked(&file)?;
    for (path, content) in &files {
        let text = String::from_utf8_lossy(content);
        ensure!(!text.contains(SECRET) && !text.contains(SECRET_IN_BASE64), "{path}: {text}");
    }
    let text = |path: &str| {
        let found =
            files.iter().find(|(name, _)| name.ends_with(path)).with_context(|| format!("no {path} in {:?}", files.keys()));
        found.map(|(_, content)| String::from_utf8_lossy(content).into_owned())
    };
    ensure!(text("system/deployments.json")?.contains("\"PASSWORD\""), "the name of the variable stays");
    ensure!(text("podautoscalers.json")?.contains(REVISION) && text("seikas.json")?.contains(REVISION));
    ensure!(text(&format!("explain/default-{REVISION}.json"))?.contains("words"));
    ensure!(text("matrix.json")?.contains("node02") && text("routes.json")?.contains(REVISION));
    ensure!(text("check.json")?.contains("\"gateways\"") && text("version.json")?.contains("plugin"));
    let decider = world.decider_pod.get().context("no decider")?;
    ensure!(text(&format!("extra-controller/{decider}.metrics"))?.contains("kantai_extra_controller_leading"));
    // There is no kubelet to ask for logs: the file says so.
    let log = text("kantai-gateway/kantai-gateway-node01.log")?;
    ensure!(log.starts_with("unknown: "), "{log}");
    let again = world.asks(&["bundle", "--file", &file.to_string_lossy()]).await;
    ensure!(again.is_err(), "it writes over a file that is there");
    Ok(())
}

fn unpacked(file: &std::path::Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(file)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    Ok(files)
}

async fn hand_back(world: &World) -> anyhow::Result<()> {
    let autoscalers: Api<PodAutoscaler> = world.stage.api();
    let (shown, _) = world.asks(&["hand-back"]).await?;
    ensure!(shown.contains(REVISION) && shown.contains("Nothing was changed"), "{shown}");
    ensure!(autoscalers.get(REVISION).await?.class() == CLASS, "showing has changed something");
    let done = world.says(&["hand-back", "--yes", "--timeout", "120s"]).await?;
    ensure!(done.contains("1 revisions were handed back"), "{done}");
    ensure!(autoscalers.get(REVISION).await?.class() != CLASS, "it is still ours");
    let status = world.says(&["status"]).await?;
    ensure!(status.contains("Switch: off"), "{status}");
    Ok(())
}
