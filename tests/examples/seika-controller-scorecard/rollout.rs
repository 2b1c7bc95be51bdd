//! Requests that fail while the pods that answer them are replaced, in the lab: real kubelets,
//! kube-proxy, gateways and Knative.
//!
//! Twice: a Seika by itself behind a Service, whose template is changed by hand; and the Seika of a
//! Knative revision, whose template changes because Knative's own configuration does. Load flows
//! without a break from before the first pod is replaced until after the last has gone.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kantai_tests::lab::{Load, Standing, eventually};
use netem_lab::load::Outcome;
use scorecards::note;
use serde_json::{Value, json};

/// How often each of the two has all its pods replaced.
const ROLLOUTS: usize = 3;
/// For what is led to old pods still: longer than those have to end.
const TAIL: Duration = Duration::from_secs(10);
/// Fewer requests would show little.
const REQUESTS_MIN: usize = 500;
/// Where Knative says how the pods of its revisions are to be, and of that something that changes
/// no behaviour.
const KNATIVE_SETTING: (&str, &str) = ("config-deployment", "queue-sidecar-memory-request");

/// Brings the lab up, and returns how many requests failed.
pub(crate) fn measure() -> anyhow::Result<usize> {
    let lab = Standing::up()?;
    let mut failed = seika_behind_a_service(&lab).context("failed to roll a Seika behind a Service")?;
    failed += seika_of_a_revision(&lab).context("failed to roll the Seika of a Knative revision")?;
    Ok(failed)
}

fn seika_behind_a_service(lab: &Standing) -> anyhow::Result<usize> {
    let mut manifest = tempfile::NamedTempFile::new()?;
    manifest.write_all(serving().to_string().as_bytes())?;
    lab.done(&["apply", "-f", &manifest.path().to_string_lossy()])?;
    eventually("all pods of the Seika serve", || settled(lab, "serving", None))?;
    let load = ["node1", "node3"].map(|node| {
        // Each request on a connection of its own: a kept one would stay with a pod until that
        // closes it under the client's hands, which is a matter between client and server.
        lab.load(node, "http://serving.default.svc.cluster.local/?wait_ms=50", 2, &["--connections", "new"])
    });
    let load = load.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(3));
    for version in 1..=ROLLOUTS {
        let before = revision(lab, "serving")?;
        let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": version.to_string() } } } } });
        lab.done(&["patch", "seika", "serving", "--type=merge", "-p", &template.to_string()])?;
        eventually("all pods are of the new template", || settled(lab, "serving", Some(&before)))?;
    }
    std::thread::sleep(TAIL);
    let failed = tally("a Seika behind a Service", load)?;
    lab.done(&["delete", "-f", &manifest.path().to_string_lossy()])?;
    Ok(failed)
}

fn seika_of_a_revision(lab: &Standing) -> anyhow::Result<usize> {
    lab.done(&["apply", "-f", "examples/manifests/hello.yaml"])?;
    eventually("hello is Ready", || {
        let seen = lab.condition(&["ksvc", "hello"], "Ready")?;
        Ok(if seen.0 == "True" { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    let load = lab.load("node3", "http://hello.default.svc.cluster.local/?wait_ms=50", 4, &[])?;
    lab.shows(&["get", "deployment", "hello-00001-deployment", "-o", "jsonpath={.spec.replicas}"], "0")?;
    eventually("the Seika's pods serve", || settled(lab, "hello-00001", None))?;
    let (map, key) = KNATIVE_SETTING;
    let setting = |value: &Value| {
        let patch = json!({ "data": { key: value } }).to_string();
        lab.done(&["patch", "configmap", map, "--namespace=knative-serving", "--type=merge", "-p", &patch])
    };
    let path = format!("jsonpath={{.data.{key}}}");
    let was = lab.done(&["get", "configmap", map, "--namespace=knative-serving", "-o", &path])?;
    for number in 1..=ROLLOUTS {
        let before = revision(lab, "hello-00001")?;
        setting(&json!(format!("{}Mi", 16 + number)))?;
        eventually("all pods are of Knative's new template", || settled(lab, "hello-00001", Some(&before)))?;
    }
    std::thread::sleep(TAIL);
    let failed = tally("the Seika of a Knative revision", vec![load])?;
    setting(&if was.is_empty() { Value::Null } else { json!(was) })?;
    lab.done(&["delete", "-f", "examples/manifests/hello.yaml"])?;
    Ok(failed)
}

/// What is served with, as a list of objects: pods that a Service can take out of its endpoints
/// before they end.
fn serving() -> Value {
    let labels = json!({ "app": "serving" });
    let container = json!({
        "name": "hello",
        "image": "dev.local/kantai/hello:0.1.0",
        "ports": [{ "containerPort": 8080 }],
        "env": [{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        // Longer than it takes all nodes to hear that requests go elsewhere.
        "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "serving", "namespace": "default" },
        "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let seika = json!({
        "apiVersion": "batch.bonavadeur.io/v1", "kind": "Seika", "metadata": { "name": "serving", "namespace": "default" },
        "spec": {
            "repurika": { "node1": 2, "node2": 1, "node3": 2 },
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [service, seika] })
}

fn revision(lab: &Standing, seika: &str) -> anyhow::Result<String> {
    lab.done(&["get", "seika", seika, "-o", "jsonpath={.status.revision}"])
}

/// Whether the Seika has all its pods, all of them of the present template and available, the
/// template being another one than `before`.
fn settled(lab: &Standing, seika: &str, before: Option<&str>) -> anyhow::Result<Result<(), String>> {
    // While it is being made, kubectl fails.
    let seen = match lab.kubectl(&["get", "seika", seika, "-o", "json"])? {
        Ok(text) => serde_json::from_str::<Value>(&text)?,
        Err(complaint) => return Ok(Err(complaint)),
    };
    let status = &seen["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let desired = number("desiredReplicas");
    let all = ["currentReplicas", "updatedReplicas", "availableReplicas"].iter().all(|field| number(field) == desired);
    let is_new = before.is_none_or(|before| status["revision"].as_str() != Some(before));
    let is_observed = status["observedGeneration"] == seen["metadata"]["generation"];
    Ok(if desired > 0 && all && is_new && is_observed { Ok(()) } else { Err(status.to_string()) })
}

fn tally(what: &str, load: Vec<Load>) -> anyhow::Result<usize> {
    let outcomes = load.into_iter().map(Load::finish).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.succeeded()).collect();
    let pods: BTreeSet<&str> = outcomes.iter().filter_map(|outcome| outcome.served_by_pod.as_deref()).collect();
    note(&format!(
        "rollout_failed_requests: {what}, {ROLLOUTS} roll-outs: {} of {} requests failed, {} pods answered",
        failed.len(),
        outcomes.len(),
        pods.len()
    ));
    failed.iter().take(5).for_each(|outcome| note(&format!("rollout_failed_requests: {outcome:?}")));
    ensure!(outcomes.len() >= REQUESTS_MIN, "only {} requests were sent", outcomes.len());
    ensure!(pods.len() > ROLLOUTS, "only {} pods answered in {ROLLOUTS} roll-outs", pods.len());
    Ok(failed.len())
}
