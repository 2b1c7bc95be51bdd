//! A cluster that was left running, and what goes wrong in clusters: mistakes in objects, and parts
//! of ours or others' that are away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use kantai_tests::lab::{Standing, cargo_lab, eventually, source_tree};
use serde_json::Value;

use crate::{LAB, nothing_more_than, traces_of_a_lab};

#[test]
fn a_standing_cluster_copes_with_mistakes_and_missing_parts() -> anyhow::Result<()> {
    let _turn = LAB.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = traces_of_a_lab()?;
    let lab = Standing::up()?;
    a_seika_alone(&lab)?;
    mistakes(&lab)?;
    parts_that_are_away(&lab)?;
    faults_under_load()?;
    drop(lab);
    nothing_more_than(&before)
}

/// The seed's own manifest: exactly these pods on exactly these nodes, and no more than what was
/// changed changes.
fn a_seika_alone(lab: &Standing) -> anyhow::Result<()> {
    let manifest = ["apply", "-f", "examples/manifests/seika-sample.yaml"];
    let ready = ["get", "seika", "hello", "-o", "jsonpath={.status.ready}"];
    lab.done(&manifest)?;
    lab.shows(&ready, "1-2-3/1-2-3")?;
    let six = lab.pods("app=hello")?;
    let mut nodes: Vec<&str> = six.values().map(String::as_str).collect();
    nodes.sort_unstable();
    ensure!(nodes == ["node1", "node2", "node2", "node3", "node3", "node3"], "{six:?}");

    lab.done(&manifest)?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(lab.pods("app=hello")? == six, "the same manifest again changed pods: {six:?}, now {:?}", lab.pods("app=hello")?);

    lab.done(&["patch", "seika", "hello", "--type=merge", "-p", r#"{"spec":{"repurika":{"node2":0}}}"#])?;
    lab.shows(&ready, "1-0-3/1-0-3")?;
    let staying: BTreeMap<_, _> = six.into_iter().filter(|(_, node)| node != "node2").collect();
    ensure!(lab.pods("app=hello")? == staying, "{staying:?}, now {:?}", lab.pods("app=hello")?);
    Ok(())
}

fn mistakes(lab: &Standing) -> anyhow::Result<()> {
    let staying = lab.pods("app=hello")?;
    lab.done(&["patch", "seika", "hello", "--type=merge", "-p", r#"{"spec":{"repurika":{"nowhere":2}}}"#])?;
    eventually("the Seika says that there is no such node", || {
        let seen = lab.condition(&["seika", "hello"], "Degraded")?;
        Ok(if seen == ("True".to_owned(), "NodeNotFound".to_owned()) { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    ensure!(lab.pods("app=hello")? == staying, "an unknown node changed pods");

    let refused = lab.kubectl(&["patch", "seika", "hello", "--type=merge", "-p", r#"{"spec":{"repurika":{"node1":-1}}}"#])?;
    ensure!(refused.as_ref().is_err_and(|complaint| complaint.contains("repurika")), "{refused:?}");
    lab.done(&["delete", "seika", "hello", "--wait=true"])?;
    eventually("the Seika's pods are gone", || {
        let left = lab.json(&["get", "pods", "-l", "app=hello"])?["items"].as_array().map_or(0, Vec::len);
        Ok(if left == 0 { Ok(()) } else { Err(format!("{left} pods")) })
    })?;

    // A name that no node has and no registry is asked for. Knative takes pods to be only slow
    // until their progress deadline.
    let hello = std::fs::read_to_string(source_tree().join("examples/manifests/hello.yaml"))?;
    let broken = hello
        .replace("name: hello\n", "name: broken\n")
        .replace("dev.local/kantai/hello:0.1.0", "dev.local/kantai/absent:0.1.0")
        .replace("      annotations:\n", "      annotations:\n        serving.knative.dev/progress-deadline: 30s\n");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), broken)?;
    let path = file.path().to_string_lossy();
    lab.done(&["apply", "-f", &path])?;
    eventually("the Revision says that its image cannot be had", || {
        // Before there is a Revision, kubectl fails.
        let seen = lab.kubectl(&["get", "revision", "broken-00001", "-o", "jsonpath={.status.conditions}"])?;
        Ok(if seen.as_ref().is_ok_and(|text| text.contains("ImagePull")) { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    lab.done(&["delete", "-f", &path])?;
    eventually("nothing of it is left", || {
        let kinds = "pods,seikas,podautoscalers,serverlessservices,deployments,revisions,services";
        let left = lab.done(&["get", kinds, "-o", "name"])?;
        let left: Vec<&str> = left.lines().filter(|name| name.contains("broken")).collect();
        Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
    })
}

fn parts_that_are_away(lab: &Standing) -> anyhow::Result<()> {
    let url = "http://hello.default.svc.cluster.local/";
    lab.done(&["apply", "-f", "examples/manifests/hello.yaml"])?;
    eventually("hello is Ready", || {
        let seen = lab.condition(&["ksvc", "hello"], "Ready")?;
        Ok(if seen.0 == "True" { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    // For longer than a move that was decided before there was any load takes to show: a pod's
    // start and new routes. It does not matter whether it is the Seika's pod: the bootstrap pod
    // stays where it is the nearest.
    eventually("requests from node3 are answered there, and go on to be", || {
        let answers = lab.answered_by("node3", url, 6)?;
        Ok(if answers.keys().eq(["node3"]) { Ok(()) } else { Err(format!("{answers:?}")) })
    })?;

    // Without the ConfigMap the documented default holds: on, for those that opted in.
    lab.done(&["delete", "configmap", "config-ikukantai"])?;
    let only_there = |seconds| {
        let answers = lab.answered_by("node3", url, seconds)?;
        ensure!(answers.keys().eq(["node3"]), "requests from node3 were answered by {answers:?}");
        anyhow::Ok(())
    };
    only_there(5)?;
    let class =
        ["get", "podautoscaler", "hello-00001", "-o", r"jsonpath={.metadata.annotations.autoscaling\.knative\.dev/class}"];
    lab.shows(&class, "miporin.autoscaling.bonavadeur.io")?;

    lab.done(&["scale", "deployment", "prometheus", "-n", "monitoring", "--replicas=0"])?;
    // Known latencies stay at first; then the probers are read. Both are reported.
    for reason in ["LatencySourceLost", "LatencyFallback"] {
        let told = [
            "get",
            "events",
            "-n",
            "kantai-system",
            "--field-selector",
            &format!("reason={reason}"),
            "-o",
            "jsonpath={.items[*].type}",
        ];
        eventually(&format!("an event {reason}"), || {
            only_there(1)?;
            let seen = lab.done(&told)?;
            Ok(if seen.split(' ').any(|kind| kind == "Warning") { Ok(()) } else { Err(seen) })
        })?;
    }

    // Gateways keep their last configuration.
    lab.done(&["scale", "deployment", "extra-controller", "-n", "kantai-system", "--replicas=0"])?;
    eventually("no extra-controller", || {
        let left =
            lab.done(&["get", "pods", "-n", "kantai-system", "-l", "app.kubernetes.io/name=extra-controller", "-o", "name"])?;
        Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    })?;
    only_there(20)?;
    let nodes: BTreeSet<String> = lab.answered_by("node1", url, 2)?.into_keys().collect();
    ensure!(nodes == BTreeSet::from(["node3".to_owned()]), "requests from node1 were answered by {nodes:?}");

    lab.done(&["scale", "deployment", "extra-controller", "-n", "kantai-system", "--replicas=2"])?;
    eventually("requests from node1 are answered there", || {
        let answers = lab.answered_by("node1", url, 2)?;
        Ok(if answers.keys().eq(["node1"]) { Ok(()) } else { Err(format!("{answers:?}")) })
    })
}

/// Two of the faults of `cargo lab -- faults`, shorter and judged alike: each of the programs that
/// keep pods where they are is away. The others take a quarter of an hour more.
fn faults_under_load() -> anyhow::Result<()> {
    const NAMES: [&str; 2] = ["extra-controller-gone", "seika-controller-gone"];
    let out = tempfile::tempdir()?;
    let folder = out.path().display().to_string();
    let output = cargo_lab(&[&["faults", "--running", "--brief", "--out", &folder][..], &NAMES[..]].concat())?;
    let path = out.path().join("faults/report.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let report: Value = serde_json::from_str(&text)?;

    let figures = report["figures"].as_array().context("figures")?;
    let short: Vec<&Value> = figures.iter().filter(|figure| figure["ok"] != true).collect();
    ensure!(short.is_empty(), "short: {short:#?} of {:#?}", report["faults"]);
    let value = |id: &str| figures.iter().find(|figure| figure["id"] == id).and_then(|figure| figure["value"].as_f64());
    for name in NAMES {
        let (failed, sent) = (format!("{}_failed", name.replace('-', "_")), format!("{}_sent", name.replace('-', "_")));
        ensure!(value(&failed) == Some(0.0), "{failed}: {:?}", value(&failed));
        ensure!(value(&sent).is_some_and(|sent| sent > 2_000.0), "{sent}: {:?}", value(&sent));
    }
    let printed = String::from_utf8(output.stdout)?;
    ensure!(printed.lines().count() == figures.len(), "{printed}");
    ensure!(printed.lines().all(|line| line.split('\t').count() == 5 && line.ends_with("\tok")), "{printed}");
    ensure!(output.status.success(), "{}", output.status);
    Ok(())
}
